"""Draws the figures of a study: as PNG files for report.md, as inline SVG for report.html.

A figure is a grid of panels. On the page each panel is an SVG of its own, so that panels wrap on a phone.
Names from models and banks are shown literally, never as math.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine, LayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tidy_stlms.eval.recall.groups import CONTROL
from tidy_stlms.eval.report.page_svg import PANEL, TITLE, View, panel_svgs, sign_svg
from tidy_stlms.eval.report.palette import CONTROL_BAR, INK, MARKERS, PAPER, RULE, SOFT, probe_colour
from tidy_stlms.eval.report.panels import (
    BarPanel,
    Line,
    LinePanel,
    Mark,
    StudyFigure,
    in_a_figure,
    short_name,
)

PANEL_WIDTH, LINE_HEIGHT, BAR_ROW, BAR_MARGIN = 3.3, 2.3, 0.37, 0.6  # inches
LEGEND_WIDTH = 1.45
COLUMNS = 3
SMALL, TITLE_SIZE = 7.5, 9  # points
SIGN: dict[str, Any] = {"linewidth": 1.3, "markersize": 5.2, "markeredgecolor": PAPER, "markeredgewidth": 0.5}
WHISKER: dict[str, Any] = {"color": INK, "linewidth": 0.7}
CHANCE_LINE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": ":"}


@dataclass(frozen=True)
class Drawing:
    """A drawn figure: the whole of it, and each panel as an `<svg>` element."""

    png: bytes
    panels: list[Markup]


# a colour from the user's matplotlibrc would be wrong in one of the page's themes
in_default_style = matplotlib.style.context("default")


@in_default_style
def draw_figure(figure: StudyFigure) -> Drawing:
    """Draw a figure once, and save it as PNG and as SVG."""
    count = len(figure.panels)
    columns = 2 if count == 4 else min(COLUMNS, count)  # no row with a single panel
    rows = math.ceil(count / columns)
    width = PANEL_WIDTH * columns + (LEGEND_WIDTH if figure.legend else 0)
    n_bars = _most_bars(figure)
    height = BAR_MARGIN + BAR_ROW * n_bars if n_bars else LINE_HEIGHT
    size, layout = (width, height * rows), ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
    sheet = new_figure(size, layout)
    grid = sheet.subplots(rows, columns, squeeze=False)
    all_axes = list(grid.flat)
    for axes in all_axes[count:]:
        axes.remove()
    for number, (axes, panel) in enumerate(zip(all_axes, figure.panels, strict=False)):
        axes.set_gid(f"{PANEL}{number}")
        _draw_panel(axes, figure, panel)
    if figure.legend:
        handles = [_sign(probe_type) for probe_type in figure.legend]
        literal_legend(sheet, handles, figure.legend, loc="outside right upper")
    png = as_png(sheet)
    sheet.set_layout_engine("none")  # keeps the layout of the PNG
    svg = _as_svg(sheet)
    views = _views(sheet, all_axes[:count])
    names = [in_a_figure(f"{figure.label}, {panel.title}") for panel in figure.panels]
    return Drawing(png, panel_svgs(svg, views, names))


@in_default_style
def legend_svg(probe_type: str) -> Markup:
    """The sign of a probe type, for the page's legend."""
    sheet = new_figure((28 / 72, 14 / 72))
    sheet.patch.set_visible(False)  # the page has its own background
    sign = _sign(probe_type, [0.04, 0.5, 0.96], [0.5, 0.5, 0.5])
    sign.set_markevery([1])
    sheet.add_artist(sign)
    return sign_svg(_as_svg(sheet))


def new_figure(
    size: tuple[float, float], layout: LayoutEngine | Literal["constrained"] | None = None
) -> Figure:
    """An empty figure, (width, height) in inches.

    It is made without pyplot, which would choose a backend for the whole process and keep every figure.
    """
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def as_png(sheet: Figure) -> bytes:
    image = io.BytesIO()
    sheet.savefig(image, format="png", dpi=130)
    return image.getvalue()


def literal_legend(figure: Figure, *handles_and_labels: Any, **options: Any) -> None:
    """A legend that shows its labels as they are: a `$` begins no mathematics."""
    legend = figure.legend(*handles_and_labels, frameon=False, fontsize=8, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def legend_label(name: str) -> str:
    """A name for a legend. matplotlib leaves out labels that begin with an underscore."""
    label = short_name(name)
    return f" {label}" if label.startswith("_") else label


def hide_upper_spines(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _as_svg(sheet: Figure) -> str:
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text, not paths
        sheet.savefig(file, format="svg")
    return file.getvalue()


def _views(sheet: Figure, panel_axes: Sequence[Axes]) -> list[View]:
    """The part of the SVG that holds each panel with its title and labels. All parts have the same size."""
    inner = [axes.get_window_extent() for axes in panel_axes]
    outer = [box for axes in panel_axes if (box := axes.get_tightbbox()) is not None]
    left = max(box.x0 - around.x0 for box, around in zip(inner, outer, strict=True))
    right = max(around.x1 - box.x1 for box, around in zip(inner, outer, strict=True))
    below = max(box.y0 - around.y0 for box, around in zip(inner, outer, strict=True))
    above = max(around.y1 - box.y1 for box, around in zip(inner, outer, strict=True))
    points = 72 / sheet.dpi  # pixels to the SVG's points; an SVG's y goes down
    top = sheet.bbox.height
    return [
        View(
            points * (box.x0 - left),
            points * (top - box.y1 - above),
            points * (left + box.width + right),
            points * (above + box.height + below),
        )
        for box in inner
    ]


def _most_bars(figure: StudyFigure) -> int:
    return max((len(panel.bars) for panel in figure.panels if isinstance(panel, BarPanel)), default=0)


def _draw_panel(axes: Axes, figure: StudyFigure, panel: BarPanel | LinePanel) -> None:
    axes.set_title(
        short_name(panel.title), fontsize=TITLE_SIZE, fontweight="bold", loc="left", parse_math=False
    )
    axes.set_xlabel(figure.x.label, fontsize=SMALL, color=SOFT)
    axes.set_xticks(*zip(*figure.x.ticks, strict=True))
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=SOFT)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)  # the page has its own background
    hide_upper_spines(axes)
    if isinstance(panel, BarPanel):
        _draw_bars(axes, figure, panel)
    else:
        _draw_lines(axes, figure, panel)


def _draw_bars(axes: Axes, figure: StudyFigure, panel: BarPanel) -> None:
    """A row for each model, from the top: its name, its bar, the bar of its control facts."""
    low, high = figure.x.low, figure.x.high
    axes.set_xlim(low, high + 0.16 * (high - low))  # the figures stand at the right
    axes.set_ylim(_most_bars(figure), 0)
    axes.set_yticks([])
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    for row, bar in enumerate(panel.bars):
        _draw_bar(axes, bar.mark, row + 0.48, 0.25, probe_colour(panel.probe_type))
        if bar.control:
            _draw_bar(axes, bar.control, row + 0.72, 0.13, CONTROL_BAR)
        axes.text(low, row + 0.24, short_name(bar.model, 44), fontsize=SMALL, color=SOFT, parse_math=False)
        axes.text(axes.get_xlim()[1], row + 0.57, f"{bar.mark.mean:.2f}", fontsize=8, ha="right")
    if figure.chance is not None:  # a piece for each bar: one long line would cross out the names
        tops = [row + 0.33 for row in range(len(panel.bars))]
        axes.vlines([figure.chance] * len(tops), tops, [top + 0.5 for top in tops], **CHANCE_LINE)


def _draw_bar(axes: Axes, mark: Mark, y: float, height: float, colour: str) -> None:
    axes.barh(y, mark.mean, height, color=colour)
    cap, low, high = min(0.08, height / 2), mark.low, mark.high
    axes.plot(
        [low, low, low, high, high, high],
        [y - cap, y + cap, y, y, y - cap, y + cap],
        **WHISKER,
        clip_on=False,
    )
    # invisible, over the whole row: a touch must also find a bar of length 0
    strip = Rectangle((0, y - height / 2), 1, height, facecolor="none", linewidth=0, clip_on=False)
    strip.set_gid(TITLE + in_a_figure(mark.title))
    axes.add_patch(strip)


def _draw_lines(axes: Axes, figure: StudyFigure, panel: LinePanel) -> None:
    assert figure.y is not None
    axes.set_xlim(figure.x.low, figure.x.high)
    axes.set_ylim(figure.y.low, figure.y.high)
    axes.set_yticks(*zip(*figure.y.ticks, strict=True))
    axes.set_ylabel(figure.y.label, fontsize=SMALL, color=SOFT, rotation_mode="anchor")
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    if figure.chance is not None:
        axes.axhline(figure.chance, **CHANCE_LINE)
    for line in panel.lines:
        _draw_line(axes, line)
    for line in panel.lines:  # marks last, so that nothing covers them
        for mark in line.marks:
            touch = Line2D([mark.x], [mark.mean], marker="o", markersize=11, markeredgewidth=0, clip_on=False)
            touch.set(color="none", gid=TITLE + in_a_figure(mark.title))
            axes.add_line(touch)


def _draw_line(axes: Axes, line: Line) -> None:
    xs, means = [mark.x for mark in line.marks], [mark.mean for mark in line.marks]
    lows, highs = [mark.low for mark in line.marks], [mark.high for mark in line.marks]
    colour = probe_colour(line.probe_type)
    if not line.joined:
        axes.vlines(xs, lows, highs, color=colour, linewidth=1.0, clip_on=False)
    elif line.role != CONTROL:
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.13, linewidth=0)
    sign = _sign(line.probe_type, xs, means)
    sign.set(linestyle="none" if not line.joined else "--" if line.role == CONTROL else "-", clip_on=False)
    if line.is_hollow:
        sign.set(markerfacecolor=PAPER, markeredgecolor=colour, markeredgewidth=1.0)
    axes.add_line(sign)


def _sign(probe_type: str, xs: list[float] | None = None, ys: list[float] | None = None) -> Line2D:
    """A line with markers, as all lines of a probe type look."""
    return Line2D(
        xs or [], ys or [], color=probe_colour(probe_type), marker=MARKERS.get(probe_type, "o"), **SIGN
    )
