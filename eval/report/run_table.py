"""Recall before and after as a table, for the terminal, the report and the model card."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.groups import in_order, is_injected
from tidy_stlms.eval.recall.results import Estimate, Summary
from tidy_stlms.eval.report.cells import Cell
from tidy_stlms.eval.report.order import SHOWN

COUNT = "n"


@dataclass(frozen=True)
class RecallRow:
    """A metric of a probe type, or the number of its probes, with a cell for each group of the table."""

    probe_type: str
    name: str
    cells: tuple[Cell, ...]

    @property
    def is_count(self) -> bool:
        return self.name == COUNT


@dataclass(frozen=True)
class RecallTable:
    groups: tuple[str, ...]
    rows: list[RecallRow]

    @property
    def header(self) -> tuple[str, ...]:
        return ("probe", "metric", *self.groups)

    def texts(self) -> list[tuple[str, ...]]:
        """The rows as text, with each probe type named once."""
        probe_types = [row.probe_type for row in self.rows]
        return [
            ("" if probe_type == before else probe_type, row.name, *(cell.text for cell in row.cells))
            for row, probe_type, before in zip(self.rows, probe_types, ["", *probe_types], strict=False)
        ]

    def markdown(self) -> str:
        header = [markdown_text(name) for name in self.header]
        rows = [(markdown_text(probe_type), *cells) for probe_type, *cells in self.texts()]
        lines = [header, ("---", "---", *["---:"] * len(self.groups)), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def recall_table(after: Summary, before: Summary | None = None) -> RecallTable:
    """Rows by probe type and metric; a column for each group.

    A cell is `before → after [low, high]`, without the arrow where nothing was measured before. Where
    injected facts are shown by treatment, a last row of each type has the numbers of probes.
    """
    before = before or {}
    groups = in_order(after)
    is_split = sum(map(is_injected, groups)) > 1
    rows = []
    for probe_type in PROBE_TYPES:
        if not any(probe_type in after[group] for group in groups):
            continue
        for metric, name in SHOWN.items():
            cells = tuple(
                _cell(
                    before.get(group, {}).get(probe_type, {}).get(metric),
                    after[group].get(probe_type, {}).get(metric),
                )
                for group in groups
            )
            if any(cell.figure for cell in cells):
                rows.append(RecallRow(probe_type, name, cells))
        if is_split:
            counts = tuple(_most_probes(after[group].get(probe_type, {})) for group in groups)
            rows.append(RecallRow(probe_type, COUNT, counts))
    return RecallTable(tuple(groups), rows)


def _most_probes(estimates: Mapping[str, Estimate]) -> Cell:
    """How many probes there are. Some metrics may lack a few."""
    return Cell(f"{max(estimate.n for estimate in estimates.values()):,}" if estimates else "")


def _cell(before: Estimate | None, after: Estimate | None) -> Cell:
    if after is None:
        return Cell("")
    start = f"{before.mean:.2f} → " if before is not None else ""
    return Cell(f"{start}{after.mean:.2f}", f"[{after.low:.2f}, {after.high:.2f}]")
