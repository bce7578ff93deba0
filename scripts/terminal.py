"""Prints to the terminal with rich. Text from models and banks never controls the terminal.

`Terminal` prints text as it is, `literal` makes text for the cells of tables. Both show control characters,
and widths are those of what is shown. rich's own colours stay.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from tidy_stlms.configs.printable import printable


class Terminal(Console):
    """A console that shows markup (`[bold]`) and emoji codes (`:heart:`) in a text as they are."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(literal(each) if isinstance(each, str | Text) else each for each in objects), **options
        )


def literal(text: str | Text, style: str = "") -> Text:
    """Text in one style that is shown as it is, `printable`."""
    if isinstance(text, Text):
        return text if printable(text.plain) == text.plain else Text(printable(text.plain), style=text.style)
    return Text(printable(text), style=style)
