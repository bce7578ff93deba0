r"""Any text as Markdown that shows it literally: no markup, no link, no HTML, no character that is not shown.

    markdown_text("a|b *c*")  # a\|b \*c\*
    markdown_code("a`b")      # ``a`b``

Names of models and texts of banks come from anyone. As Markdown they could load pictures from elsewhere, hide
text or break tables.
"""

import re

from tidy_stlms.configs.printable import printable

# A pipe would end the cell of a table; an underscore inside a word means nothing to Markdown.
MARKUP = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<!\w)_|_(?!\w))")
# Where a line would begin a list, a heading or a rule: behind the number, or before the sign.
LINE_START = re.compile(r"^( ?\d+(?=[.)](?:\s|$))| ?(?=[-+=](?:[-+=\s]|$)))")
LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")


def markdown_text(text: str) -> str:
    """The text on one line, `printable`, with all markup escaped."""
    line = printable(LINE_BREAKS.sub(" ", text))
    line = re.sub(r"^\s+", " ", line)  # four spaces would begin a block of code
    return LINE_START.sub(r"\1\\", MARKUP.sub(r"\\\1", line))


def markdown_code(text: str) -> str:
    """The text on one line, `printable`, as a code span. It must not stand in a table: a pipe would end the
    cell."""
    shown = printable(LINE_BREAKS.sub(" ", text))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
