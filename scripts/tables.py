"""Tables for the terminal, and lists where it is too narrow for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidy_stlms.eval.recall.groups import ROLES
from tidy_stlms.scripts.terminal import Terminal, literal

if TYPE_CHECKING:
    from tidy_stlms.eval.report.run_table import RecallTable


def print_recall_table(console: Terminal, table: "RecallTable", title: str) -> None:
    """Print as a table, or as a list where the terminal is too narrow for one.

    A table by treatment that is too wide gets a row for each group, or else for each group and metric.
    """
    shapes: list[tuple[Sequence[str], list[tuple[str, ...]], int]] = [(table.header, table.texts(), 2)]
    if not set(table.groups) <= set(ROLES):
        shapes += [
            (*_metrics_as_columns(table, with_intervals=True), 2),
            (*_metrics_as_columns(table, with_intervals=False), 2),
            (*_metrics_as_rows(table), 3),
        ]
    for header, rows, n_labels in shapes:
        cells = [tuple(map(literal, row)) for row in rows]
        if fits(console, row_table(title, header, cells, n_labels)):
            break
    print_rows(console, title, header, cells, n_labels)


def _metrics_as_columns(
    table: "RecallTable", with_intervals: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for each probe type and group, a column for each metric; numbers of probes last."""
    ordered = sorted(table.rows, key=lambda row: row.is_count)
    names = list(dict.fromkeys(row.name for row in ordered))
    row_of = {(row.probe_type, row.name): row for row in table.rows}
    lines = []
    for probe_type in dict.fromkeys(row.probe_type for row in table.rows):
        for at, group in enumerate(table.groups):
            cells = [
                row_of[probe_type, name].cells[at] if (probe_type, name) in row_of else None for name in names
            ]
            texts = ["" if cell is None else cell.text if with_intervals else cell.figure for cell in cells]
            lines.append(("" if at else probe_type, group, *texts))
    return ("probe", "facts", *names), lines


def _metrics_as_rows(table: "RecallTable") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for each probe type, metric and group."""
    lines: list[tuple[str, ...]] = [
        ("" if at else probe_type, name, group, text)
        for probe_type, name, *texts in table.texts()
        for at, (group, text) in enumerate(zip(table.groups, texts, strict=True))
    ]
    return (*table.header[:2], "facts", ""), lines


def print_rows(
    console: Terminal, title: str, header: Sequence[str], rows: Sequence[Sequence[Text]], n_labels: int
) -> None:
    """Print rows as a table, or as a list where the terminal is too narrow for one.

    The first `n_labels` cells of a row are labels. An empty first label stands for the one above it.
    """
    table = row_table(title, header, rows, n_labels)
    if fits(console, table):
        console.print(table)
        return
    console.print(title)
    group = ""
    for row in rows:
        if row[0].plain and row[0].plain != group:
            group = row[0].plain
            console.print(row[0])
        labels = ", ".join(cell.plain for cell in row[1:n_labels] if cell.plain)
        named = zip(header[n_labels:], row[n_labels:], strict=True)
        figures = [Text.assemble(f"{name} " if name else "", value) for name, value in named if value.plain]
        line = Text(", ").join(figures)
        console.print(Text.assemble("  ", f"{labels}: " if labels else "", line))


def row_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Text]], n_labels: int) -> Table:
    """A table whose only line is below its header, with labels at the left and figures at the right."""
    table = Table(
        title=literal(title) if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, name in enumerate(header):
        table.add_column(literal(name), justify="left" if number < n_labels else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(literal, row))
    return table


def fits(console: Terminal, table: Table) -> bool:
    """Whether the terminal is wide enough for a table."""
    wide = Console(width=1_000)  # a console measures within its own width only
    return wide.measure(table).maximum <= console.width
