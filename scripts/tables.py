"""Tables for the terminal, and lists where it is too narrow for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from eval.report.tables import RecallTable


def print_recall_table(console: Console, table: "RecallTable", title: str) -> None:
    """Print as a table, or as a list where the terminal is too narrow for one."""
    print_rows(console, title, table.header, [tuple(map(Text, row)) for row in table.rows], 2)


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
        figures = [Text.assemble(f"{name} ", value) for name, value in named if value.plain]
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
