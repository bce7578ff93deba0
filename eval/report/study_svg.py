"""The figures of a study as inline SVG: small panels that fit a phone, coloured by the page's style sheet.

Classes instead of style attributes, as the page's security policy allows no inline style.
"""

from markupsafe import Markup

from tidy_stlms.eval.report.figures import Axis, BarFigure, BarPanel, LineFigure, LinePanel, Mark, short_name
from tidy_stlms.eval.report.run_table import TYPES

WIDTH = 360
TITLE = 16  # the baseline of a panel's title
LONGEST = {"title": 48, "bar": 52}

BAR_RIGHT = 316  # bars end here, figures stand behind
BAR_TOP, BAR_ROW = 30, 40

LINE_LEFT, LINE_RIGHT, LINE_TOP, LINE_BOTTOM, LINE_HEIGHT = 40, 348, 30, 196, 234

SHAPES = {
    "memorization": "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
    "syntactic": "M-3.2 -3.2h6.4v6.4h-6.4z",
    "semantic": "M0 -4.2l4 7.2h-8z",
    "inferential": "M0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
    "compositional": "M0 4.2l4 -7.2h-8z",
    "reversal": "M-1.4 -4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
    "locality": "M-4 -3.4L4 3.4V-3.4L-4 3.4z",
}


def panels_as_svg(figure: BarFigure | LineFigure) -> list[Markup]:
    """One `<svg>` for each panel."""
    if isinstance(figure, BarFigure):
        return [_bar_panel(figure, panel) for panel in figure.panels]
    return [_line_panel(figure, panel) for panel in figure.panels]


def legend_key(kind: str) -> Markup:
    """The sign of a probe type in a legend."""
    line = _tag("path", d="M1 7H27", class_=f"line {_colour(kind)}")
    return _tag("svg", line, _sign(kind, 14, 7), viewBox="0 0 28 14", width=28, height=14, aria_hidden="true")


def _bar_panel(figure: BarFigure, panel: BarPanel) -> Markup:
    foot = BAR_TOP + BAR_ROW * len(panel.bars)
    parts = [_text(1, TITLE, panel.title, "title", LONGEST["title"])]
    for position, label in figure.axis.ticks:
        x = _bar_x(figure.axis, position)
        parts.append(_tag("path", d=f"M{x:g} {BAR_TOP - 4}V{foot}", class_="grid"))
        parts.append(_text(x, foot + 14, label, "tick middle"))
    for row, (_, mark, control) in enumerate(panel.bars):
        top = BAR_TOP + BAR_ROW * row
        parts.append(_bar(figure.axis, mark, top + 14, 10, f"bar {_colour(panel.kind)}"))
        parts.append(_text(WIDTH - 2, top + 23, f"{mark.mean:.2f}", "value end"))
        if control:
            parts.append(_bar(figure.axis, control, top + 26, 5, "bar control"))
    if figure.chance is not None:
        x = _bar_x(figure.axis, figure.chance)
        parts.append(_tag("path", d=f"M{x:g} {BAR_TOP - 4}V{foot}", class_="chance"))
    for row, (model, _, _) in enumerate(panel.bars):  # names last: nothing is drawn over them
        parts.append(_text(1, BAR_TOP + BAR_ROW * row + 9, model, "name", LONGEST["bar"]))
    return _sheet(f"{figure.axis.label}, {panel.title}", foot + 20, parts)


def _bar_x(axis: Axis, value: float) -> float:
    return round(1 + axis.share(value) * (BAR_RIGHT - 1), 1)


def _bar(axis: Axis, mark: Mark, top: float, height: float, style: str) -> Markup:
    mean, low, high = (_bar_x(axis, value) for value in (mark.mean, mark.low, mark.high))
    middle, cap = top + height / 2, min(3.0, height / 2)
    ends = "".join(f"M{end:g} {middle - cap:g}v{2 * cap:g}" for end in (low, high))
    # an invisible strip over the whole row, so that a finger finds a bar of no length too
    strip = _tag("rect", x=1, y=top - 1, width=BAR_RIGHT - 1, height=height + 2, class_="touch")
    return _tag(
        "g",
        _tag("title", mark.title),
        _tag("rect", x=1, y=top, width=max(0, round(mean - 1, 1)), height=height, class_=style),
        _tag("path", d=f"M{low:g} {middle:g}H{high:g}{ends}", class_="whisker"),
        strip,
        class_="mark",
    )


def _line_panel(figure: LineFigure, panel: LinePanel) -> Markup:
    parts = [_text(1, TITLE, panel.title, "title", LONGEST["title"])]
    for position, label in figure.y.ticks:
        y = _line_y(figure.y, position)
        parts.append(_tag("path", d=f"M{LINE_LEFT} {y:g}H{LINE_RIGHT}", class_="grid"))
        parts.append(_text(LINE_LEFT - 5, y + 4, label, "tick end"))
    for position, label in figure.x.ticks:
        x = _line_x(figure.x, position)
        parts.append(_tag("path", d=f"M{x:g} {LINE_BOTTOM}v4", class_="axis"))
        parts.append(_text(x, LINE_BOTTOM + 16, label, "tick middle"))
    parts.append(_tag("path", d=f"M{LINE_LEFT} {LINE_BOTTOM}H{LINE_RIGHT}", class_="axis"))
    parts.append(_text((LINE_LEFT + LINE_RIGHT) / 2, LINE_HEIGHT - 5, figure.x.label, "tick middle"))
    if figure.chance is not None:
        y = _line_y(figure.y, figure.chance)
        parts.append(_tag("path", d=f"M{LINE_LEFT} {y:g}H{LINE_RIGHT}", class_="chance"))
    for line in panel.lines:
        points = [(_line_x(figure.x, mark.x), mark) for mark in line.marks]
        if line.joined and line.role != "control" and len(points) > 1:
            upper = [f"{x:g} {_line_y(figure.y, mark.high):g}" for x, mark in points]
            lower = [f"{x:g} {_line_y(figure.y, mark.low):g}" for x, mark in reversed(points)]
            parts.append(_tag("path", d=f"M{'L'.join(upper + lower)}Z", class_=f"band {_colour(line.kind)}"))
        if line.joined:
            means = [f"{x:g} {_line_y(figure.y, mark.mean):g}" for x, mark in points]
            dashed = " dashed" if line.role == "control" else ""
            parts.append(_tag("path", d=f"M{'L'.join(means)}", class_=f"line {_colour(line.kind)}{dashed}"))
        for x, mark in points:
            y = _line_y(figure.y, mark.mean)
            if not line.joined:
                ends = f"M{x:g} {_line_y(figure.y, mark.low):g}V{_line_y(figure.y, mark.high):g}"
                parts.append(_tag("path", d=ends, class_=f"line {_colour(line.kind)}"))
            touch = _tag("circle", cx=x, cy=y, r=9, class_="touch")
            title = _tag("title", mark.title)
            sign = _sign(line.kind, x, y, hollow=line.is_hollow)
            parts.append(_tag("g", title, sign, touch, class_="mark"))
    return _sheet(f"{figure.y.label} against {figure.x.label}, {panel.title}", LINE_HEIGHT, parts)


def _line_x(axis: Axis, value: float) -> float:
    return round(LINE_LEFT + axis.share(value) * (LINE_RIGHT - LINE_LEFT), 1)


def _line_y(axis: Axis, value: float) -> float:
    return round(LINE_BOTTOM - axis.share(value) * (LINE_BOTTOM - LINE_TOP), 1)


def _sign(kind: str, x: float, y: float, hollow: bool = False) -> Markup:
    shape = SHAPES.get(kind, SHAPES["memorization"])
    style = f"sign {_colour(kind)}{' hollow' if hollow else ''}"
    return _tag("path", d=shape, transform=f"translate({x:g} {y:g})", class_=style)


def _colour(kind: str) -> str:
    return f"t-{kind}" if kind in TYPES else "t-other"


def _sheet(name: str, height: float, parts: list[Markup]) -> Markup:
    return _tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=name)


def _text(x: float, y: float, text: str, style: str, longest: int = 0) -> Markup:
    """Text at a place; what is longer than `longest` is shortened, and whole in its title."""
    shown = short_name(text, longest) if longest else text
    whole = _tag("title", text) if shown != text else ""
    return _tag("text", shown, whole, x=x, y=y, class_=style)


def _tag(name: str, *content: str, **attributes: object) -> Markup:
    """An element; content and attributes are escaped unless they are markup already."""
    pairs = [
        Markup(' {}="{}"').format(key.rstrip("_") if key.endswith("_") else key.replace("_", "-"), value)
        for key, value in attributes.items()
    ]
    body = Markup("").join(content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(pairs), body)
