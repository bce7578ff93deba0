"""Converts matplotlib's SVG to elements that the page can hold.

The page's security policy allows no inline style, its theme may be light or dark, and several drawings share
one document. So styles become attributes, colours become variables of the style sheet, and no ids are left.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from tidy_stlms.eval.report.palette import COLOURS

PANEL = "panel-"
"""The gid of a panel's axes, before its number."""
TITLE = "title: "
"""An artist with a gid that begins like this is a mark. The rest of the gid is its title, shown on touch."""

VARIABLES = {colour.lower(): f"var(--{name})" for name, colour in COLOURS.items()}
HREF = "{http://www.w3.org/1999/xlink}href"
DROPPED = {"metadata", "style", "defs"}
KEPT = {"d", "x", "y", "transform"}
DECIMAL = re.compile(r"\d+\.\d+")


class View(NamedTuple):
    """A part of a drawing."""

    x: float
    y: float
    width: float
    height: float


def panel_svgs(svg: str, views: Sequence[View], names: Sequence[str]) -> list[Markup]:
    """An `<svg>` element for each panel of a drawing, with its name for screen readers.

    Raises KeyError for a colour that the palette does not have: it would be wrong in one of the themes.
    """
    drawing = ElementTree.fromstring(svg)
    groups = {group.get("id"): group for group in drawing.iter() if _tag(group) == "g"}
    markers = _markers(drawing)
    panels = []
    for number, (view, name) in enumerate(zip(views, names, strict=True)):
        box = _rounded(" ".join(map(str, view)))
        panel = Element("svg", {"viewBox": box, "role": "img", "aria-label": name})
        panel.extend(_converted(groups[f"{PANEL}{number}"], markers))
        panels.append(_markup(panel))
    return panels


def sign_svg(svg: str) -> Markup:
    """A whole drawing as an `<svg>` element, hidden from screen readers."""
    drawing = ElementTree.fromstring(svg)
    sign = Element("svg", {"viewBox": drawing.get("viewBox", ""), "aria-hidden": "true"})
    sign.extend(new for child in drawing for new in _converted(child, _markers(drawing)))
    return _markup(sign)


def _markers(drawing: Element) -> dict[str, str]:
    """Paths by their ids, which other elements use."""
    return {path.get("id", ""): path.get("d", "") for path in drawing.iter() if _tag(path) == "path"}


def _markup(element: Element) -> Markup:
    return Markup(ElementTree.tostring(element, encoding="unicode"))


def _converted(element: Element, markers: Mapping[str, str]) -> list[Element]:
    """The element without what the page does not allow. A group that is no mark becomes its content."""
    tag, gid = _tag(element), element.get("id", "")
    if tag in DROPPED:
        return []
    children = [new for child in element for new in _converted(child, markers)]
    if tag == "g":
        if not gid.startswith(TITLE):
            return children
        mark = Element("g", {"class": "mark"})
        ElementTree.SubElement(mark, "title").text = gid.removeprefix(TITLE)
        mark.extend(children)
        return [mark]
    attributes = {name: _rounded(value) for name, value in element.items() if name in KEPT}
    if tag == "use":  # a marker at a point; with its own path it needs no id
        x, y = attributes.pop("x"), attributes.pop("y")
        path = _rounded(markers[element.get(HREF, "").removeprefix("#")])
        tag, attributes = "path", {"d": path, "transform": f"translate({x} {y})"}
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    new = Element(tag, attributes | _styled(element.get("style", "")))
    new.text = element.text
    new.extend(children)
    return [new]


def _styled(style: str) -> dict[str, str]:
    """`fill: #0072b2; stroke-width: 1.5` as attributes. Fonts are the page's."""
    pairs = dict(part.split(": ", 1) for part in style.split("; ") if part)
    pairs.pop("font-family", None)
    pairs.setdefault("fill", "#000000")  # matplotlib leaves black out
    for name in ("fill", "stroke"):
        if pairs.get(name, "none") != "none":
            pairs[name] = VARIABLES[pairs[name]]
    return pairs


def _rounded(text: str) -> str:
    """Round to two digits after the point: a hundredth of a pixel is exact enough."""
    return DECIMAL.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), " ".join(text.split()))


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]
