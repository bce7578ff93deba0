"""The figures of a study as PNG files, for its Markdown report."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tidy_stlms.eval.report.figures import (
    Axis,
    BarFigure,
    BarPanel,
    LineFigure,
    LinePanel,
    legend_of,
    short_name,
)
from tidy_stlms.eval.report.run_figures import COLOURS, STYLES, write_figure

MARKERS = {
    "memorization": "o",
    "syntactic": "s",
    "semantic": "^",
    "inferential": "D",
    "compositional": "v",
    "reversal": "P",
    "locality": "X",
}
UNKNOWN = "#777777"
COLUMNS = 3


def plot_figure(figure: BarFigure | LineFigure, path: Path) -> None:
    """Draw one figure; names from models and banks are shown literally, never as math."""
    if isinstance(figure, BarFigure):
        _plot_bars(figure, path)
    else:
        _plot_lines(figure, path)


def _plot_bars(figure: BarFigure, path: Path) -> None:
    n_models = max(len(panel.bars) for panel in figure.panels)
    sheet, grid = _panels(len(figure.panels), 0.9 + 0.42 * n_models, sharey=False)
    names: list[str] = []
    for axes, panel in zip(grid, figure.panels, strict=True):
        shown = [model for model, _, _ in panel.bars]
        _draw_bars(axes, panel, figure)
        first = _stands_first(axes)
        axes.set_yticks(range(len(shown)), [short_name(name) for name in shown], parse_math=False)
        axes.tick_params(axis="y", labelleft=first or shown != names)
        names = shown
    write_figure(sheet, path)


def _draw_bars(axes: Axes, panel: BarPanel, figure: BarFigure) -> None:
    for row, (_, mark, control) in enumerate(panel.bars):
        for bar, height, shift, colour in (
            (mark, 0.42, -0.1 if control else 0.0, COLOURS.get(panel.kind, UNKNOWN)),
            (control, 0.18, 0.24, "0.7"),
        ):
            if bar:
                errors = [[max(0.0, bar.mean - bar.low)], [max(0.0, bar.high - bar.mean)]]
                style = {"linewidth": 1.0, "capsize": 2.0, "ecolor": "0.15"}
                axes.barh(row + shift, bar.mean, height, xerr=errors, color=colour, error_kw=style)
    axes.set_title(panel.title, fontsize=10, loc="left", parse_math=False)
    axes.set_ylim(len(panel.bars) - 0.5, -0.5)
    _finish(axes, figure.axis, None)
    if figure.chance is not None:
        axes.axvline(figure.chance, color="black", linewidth=0.8, linestyle=":")


def _plot_lines(figure: LineFigure, path: Path) -> None:
    sheet, grid = _panels(len(figure.panels), 2.9, sharey=True)
    for axes, panel in zip(grid, figure.panels, strict=True):
        _draw_lines(axes, panel)
        axes.set_title(short_name(panel.title), fontsize=10, loc="left", parse_math=False)
        _finish(axes, figure.x, figure.y)
        if figure.chance is not None:
            axes.axhline(figure.chance, color="black", linewidth=0.8, linestyle=":")
    kinds = legend_of(figure)
    handles = [
        Line2D([], [], color=COLOURS.get(kind, UNKNOWN), marker=MARKERS.get(kind, "o"), markersize=4)
        for kind in kinds
    ]
    sheet.legend(handles, kinds, frameon=False, fontsize=8, loc="outside right upper")
    write_figure(sheet, path)


def _draw_lines(axes: Axes, panel: LinePanel) -> None:
    for line in panel.lines:
        xs, means = [mark.x for mark in line.marks], [mark.mean for mark in line.marks]
        lows, highs = [mark.low for mark in line.marks], [mark.high for mark in line.marks]
        colour = COLOURS.get(line.kind, UNKNOWN)
        axes.plot(
            xs,
            means,
            STYLES.get(line.role, "-") if line.joined else "none",
            color=colour,
            marker=MARKERS.get(line.kind, "o"),
            markerfacecolor="white" if line.is_hollow else colour,
            markersize=4,
            linewidth=1.5,
        )
        if not line.joined:
            axes.vlines(xs, lows, highs, color=colour, linewidth=1.0)
        elif line.role != "control":
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.13, linewidth=0)


def _panels(count: int, height: float, sharey: bool) -> tuple[plt.Figure, list[Axes]]:
    columns = 2 if count == 4 else min(COLUMNS, count)  # no row of a single one
    rows = math.ceil(count / columns)
    size = (2.1 + 2.7 * columns, height * rows)
    sheet, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharey=sharey, layout="constrained"
    )
    every = list(grid.flat)
    for axes in every[count:]:
        axes.remove()
    return sheet, every[:count]


def _finish(axes: Axes, x: Axis, y: Axis | None) -> None:
    axes.set_xlim(x.low, x.high)
    axes.set_xticks(*zip(*x.ticks, strict=True), fontsize=8)
    axes.set_xlabel(x.label, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    if y is not None:
        axes.set_ylim(y.low, y.high)
        axes.set_yticks(*zip(*y.ticks, strict=True), fontsize=8)
        if _stands_first(axes):
            axes.set_ylabel(y.label, fontsize=8)
    axes.grid(axis="x" if y is None else "y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _stands_first(axes: Axes) -> bool:
    spec = axes.get_subplotspec()
    return spec is not None and spec.is_first_col()
