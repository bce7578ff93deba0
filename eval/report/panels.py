"""The parts of a study's figure: axes, and panels of bars or lines with the values that they show.

A figure is data only. `study_figures.py` makes figures from a study, `draw.py` draws them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.groups import CONTROL, INJECTED, facts_in_words, is_injected
from tidy_stlms.eval.report.order import (
    ordered,
)

LONGEST_NAME = 34  # letters above a panel
NOT_IN_XML = re.compile("[\ufffe\uffff]")  # of the characters that `printable` leaves

Ticks = tuple[tuple[float, str], ...]
"""(position, text) of each."""


@dataclass(frozen=True)
class Axis:
    label: str
    low: float
    high: float
    ticks: Ticks


@dataclass(frozen=True)
class Mark:
    """A mean with its interval, and its position on the x axis of a panel of lines."""

    mean: float
    low: float
    high: float
    title: str
    x: float = 0.0


@dataclass(frozen=True)
class Bar:
    """A model's mean on injected facts, and on control facts where it is known."""

    model: str
    mark: Mark
    control: Mark | None


@dataclass(frozen=True)
class BarPanel:
    """The models on one probe type of one group of facts."""

    probe_type: str
    role: str
    bars: list[Bar]

    @property
    def title(self) -> str:
        if self.role == INJECTED:
            return self.probe_type
        return f"{self.probe_type}, {self.role if is_injected(self.role) else facts_in_words(self.role)}"


@dataclass(frozen=True)
class Line:
    """A probe type of one group of facts. Marks that are not `joined` have different facts: no curve."""

    probe_type: str
    role: str
    marks: list[Mark]
    joined: bool = True

    @property
    def is_hollow(self) -> bool:
        """Control facts beside a curve of injected ones."""
        return self.role == CONTROL and not self.joined


@dataclass(frozen=True)
class LinePanel:
    title: str
    lines: list[Line]


@dataclass(frozen=True)
class StudyFigure:
    """Panels of one kind with the same axes. Panels of bars have no y axis: their rows are models."""

    key: str
    section: str
    caption: str
    x: Axis
    y: Axis | None
    panels: Sequence[BarPanel | LinePanel]
    chance: float | None

    @property
    def label(self) -> str:
        return self.x.label if self.y is None else f"{self.y.label} against {self.x.label}"

    @property
    def legend(self) -> list[str]:
        """The probe types that lines stand for. Bars have none: their panels' titles name the type."""
        lines = [line for panel in self.panels if isinstance(panel, LinePanel) for line in panel.lines]
        return ordered((line.probe_type for line in lines), PROBE_TYPES)


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a name by leaving out its middle: models differ in the beginning or the end of their names."""
    name = in_a_figure(" ".join(name.split()))
    if len(name) <= longest:
        return name
    tail = (longest - 1) * 3 // 5
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def in_a_figure(text: str) -> str:
    """The text, `printable`, without characters that XML cannot hold."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text))
