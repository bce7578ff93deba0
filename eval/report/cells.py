"""Tables of a study, made of cells that keep figure, interval and meaning apart.

The terminal, report.md and the page show the same tables. Each decides how a best or an uncertain figure
looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.eval.recall.control import CorrectedEstimate
from tidy_stlms.eval.recall.exposures import DosePoint
from tidy_stlms.eval.recall.results import Estimate

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Cell:
    """A label or a figure.

    `best`: the best of its group. `significant`: False where a test or interval cannot distinguish the figure
    from zero, or the best one from the next; None where nothing was tested.
    """

    figure: str
    interval: str = ""
    value: float | str | None = None  # what columns are sorted by
    low: float | None = None
    high: float | None = None
    best: bool = False
    significant: bool | None = None
    note: str = ""

    @property
    def text(self) -> str:
        return f"{self.figure} {self.interval}".rstrip()


@dataclass(frozen=True)
class Column:
    """`metric`: what its figures are means of; None for labels, counts and tests."""

    name: str
    numeric: bool = True
    note: str = ""
    metric: str | None = None


@dataclass(frozen=True)
class StudyTable:
    """Rows of cells, of which the first `n_labels` name the row; every label is repeated in every row.

    The first `n_groups` labels (None: all) put rows into groups, and may be left out where they repeat.
    Where `comparable` is False the figures hold within one tokenizer only. All models of the table share it,
    or in a table of pairs the two models of each row.
    """

    key: str
    section: str
    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""
    comparable: bool = True
    n_labels: int = 1
    n_groups: int | None = None
    facts: str | None = None  # the group of facts that all figures are of

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def repeats(self) -> list[tuple[bool, ...]]:
        """For each cell of each row, whether it and all labels to its left equal those of the row above."""
        repeats: list[tuple[bool, ...]] = []
        labels_above: list[str] | None = None
        size = self.n_labels if self.n_groups is None else self.n_groups
        for row in self.rows:
            labels = [cell.figure for cell in row[:size]]
            same = [labels_above is not None and labels[:n] == labels_above[:n] for n in range(1, size + 1)]
            repeats.append((*same, *(False for _ in row[size:])))
            labels_above = labels
        return repeats

    def markdown(self, limit: int | None = None) -> str:
        """The table without title and note.

        The best figures are bold, or in italics if another one is not significantly worse. Other figures that
        are not significant have a `°`, as Markdown has no grey.
        """
        lines = [
            [markdown_text(name) for name in self.header],
            ["---:" if column.numeric else "---" for column in self.columns],
        ]
        for row, repeats in zip(self.rows[:limit], self.repeats(), strict=False):
            lines.append(
                [
                    "" if is_repeat else _markdown_cell(cell)
                    for cell, is_repeat in zip(row, repeats, strict=True)
                ]
            )
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text) if isinstance(cell.value, str | None) else cell.text
    if not (cell.best and text):
        return f"{text}°" if text and cell.significant is False else text
    return f"*{text}*" if cell.significant is False else f"**{text}**"


def label(text: str | None, note: str = "") -> Cell:
    return Cell(text or "", value=text or "", note=note)


def count(value: int | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:,}", value=value)


def number(value: float, digits: int = 2, signed: bool = False) -> str:
    """Fixed digits, a true minus sign, and no minus before a zero."""
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("-+")
    return text.replace("-", MINUS)


def measured(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    digits: int = 2,
    signed: bool = False,
    note: str = "",
) -> Cell:
    """A figure with its interval; empty if the figure is None."""
    if value is None:
        return Cell("")
    interval = ""
    if low is not None and high is not None:
        interval = f"[{number(low, digits, signed)}, {number(high, digits, signed)}]"
    return Cell(number(value, digits, signed), interval, value=value, low=low, high=high, note=note)


def estimated(
    estimate: Estimate | CorrectedEstimate | DosePoint | None, *, digits: int = 2, signed: bool = False
) -> Cell:
    """A mean with its interval, and the numbers of probes and facts as a note; empty without an estimate."""
    if estimate is None:
        return Cell("")
    note = sample_size(estimate.n, estimate.n_facts if isinstance(estimate, Estimate) else None)
    return measured(estimate.mean, estimate.low, estimate.high, digits=digits, signed=signed, note=note)


def sample_size(n: int, n_facts: int | None = None) -> str:
    """`8 probes of 4 facts`, or `n = 8` where the number of facts is not known."""
    return f"{n:,} probes of {n_facts:,} facts" if n_facts is not None else f"n = {n:,}"


def p_value(p: float) -> Cell:
    return Cell("<0.001" if p < 0.001 else f"{p:.3f}", value=p)


def mark_best(rows: Sequence[tuple[Cell, ...]], column: int, lower_is_better: bool) -> list[tuple[Cell, ...]]:
    """The rows of one group with the best figure of a column marked; none where all are equal."""
    values = [row[column].value for row in rows]
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < 2 or min(numbers) == max(numbers):
        return list(rows)
    best = min(numbers) if lower_is_better else max(numbers)
    return [
        (*row[:column], replace(row[column], best=True), *row[column + 1 :]) if value == best else row
        for row, value in zip(rows, values, strict=True)
    ]
