"""Tables for the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

from eval.report.tables import RecallTable


def print_recall_table(console: Console, table: RecallTable, title: str) -> None:
    """Print as a table, or as a list where the terminal is too narrow for one."""
    shown = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, name in enumerate(table.header):
        shown.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    if _width(shown) <= console.width:
        console.print(shown, highlight=False)
        return
    console.print(title)
    for row in table.rows:
        if row[0]:
            console.print(row[0])
        for name, value in zip(table.header[2:], row[2:], strict=True):
            if value:
                console.print(f"  {row[1]}, {name}: {value}", highlight=False, markup=False)


def _width(table: Table) -> int:
    wide = Console(width=1_000)  # a console measures within its own width only
    return wide.measure(table).maximum
