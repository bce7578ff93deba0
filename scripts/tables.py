"""Tables for the terminal, and lists where it is too narrow for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidy_stlms.eval.recall.groups import ROLES

if TYPE_CHECKING:
    from tidy_stlms.eval.report.run_table import RecallTable


def print_recall_table(console: Console, table: "RecallTable", title: str) -> None:
    """Print as a table, or as a list where the terminal is too narrow for one.

    A table by treatment that is too wide gets a row for each group, or else for each group and metric.
    """
    shapes = [(table.header, table.rows, 2)]
    if not set(table.header[2:]) <= set(ROLES):
        header, rows = _figures_as_columns(table)
        plain = [tuple(cell.partition(" [")[0] for cell in row) for row in rows]  # without intervals
        shapes += [(header, rows, 2), (header, plain, 2), _figures_as_rows(table)]
    for header, rows, n_labels in shapes:
        cells = [tuple(map(Text, row)) for row in rows]
        if fits(console, row_table(title, header, cells, n_labels)):
            break
    print_rows(console, title, header, cells, n_labels)


def _figures_as_columns(table: "RecallTable") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for each probe type and group, a column for each figure."""
    groups = table.header[2:]
    names = sorted(dict.fromkeys(name for _, name, *_ in table.rows), key=lambda name: name == "n")
    kind = ""
    found: dict[str, dict[str, Sequence[str]]] = {}
    for label, name, *cells in table.rows:
        kind = label or kind  # named once
        found.setdefault(kind, {})[name] = cells
    rows = [
        (
            kind if not place else "",
            group,
            *(figures[name][place] if name in figures else "" for name in names),
        )
        for kind, figures in found.items()
        for place, group in enumerate(groups)
    ]
    return ("probe", "facts", *names), rows


def _figures_as_rows(table: "RecallTable") -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
    rows: list[tuple[str, ...]] = [
        (label if not place else "", name, group, cell)
        for label, name, *cells in table.rows
        for place, (group, cell) in enumerate(zip(table.header[2:], cells, strict=True))
    ]
    return (*table.header[:2], "facts", ""), rows, 3


def print_rows(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[Text]], n_labels: int
) -> None:
    """The same for any rows, of which the first `n_labels` cells are labels; a first one that is empty is
    that of the row before."""
    table = row_table(title, header, rows, n_labels)
    if fits(console, table):
        console.print(table, highlight=False)
        return
    console.print(Text(title))
    group = ""
    for row in rows:
        if row[0].plain and row[0].plain != group:
            group = row[0].plain
            console.print(row[0])
        labels = ", ".join(cell.plain for cell in row[1:n_labels] if cell.plain)
        named = zip(header[n_labels:], row[n_labels:], strict=True)
        figures = [Text.assemble(f"{name} " if name else "", value) for name, value in named if value.plain]
        line = Text(", ").join(figures)
        console.print(Text.assemble("  ", f"{labels}: " if labels else "", line), highlight=False)


def row_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Text]], n_labels: int) -> Table:
    """A table without lines but that below its header; labels stand left, figures right."""
    table = Table(
        title=Text(title) if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="left" if number < n_labels else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def fits(console: Console, table: Table) -> bool:
    """Whether the terminal is wide enough for a table."""
    wide = Console(width=1_000)  # a console measures within its own width only
    return wide.measure(table).maximum <= console.width
