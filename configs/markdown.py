r"""Escapes text so that Markdown shows it literally: no markup, links, HTML or invisible characters.

    markdown_text("a|b *c*")  # a\|b \*c\*
    markdown_code("a`b")      # ``a`b``

Anyone can write the names of models and the texts of banks. As Markdown they could load remote pictures, hide
text or break tables.
"""

import re

from tidy_stlms.configs.printable import printable

# A pipe would end the cell of a table; an underscore inside a word means nothing to Markdown.
MARKUP = re.compile(r"([\\`*{}\[\]<>#|~&$!]|(?<!\w)_|_(?!\w))")
# Places for a backslash in lines that would begin a list, heading or rule: after the number, before the sign.
LINE_START = re.compile(r"^( ?\d+(?=[.)](?:\s|$))| ?(?=[-+=](?:[-+=\s]|$)))")
LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")


def markdown_text(text: str) -> str:
    """The text on one line, `printable`, with all markup escaped."""
    line = printable(LINE_BREAKS.sub(" ", text))
    line = re.sub(r"^\s+", " ", line)  # four spaces would begin a block of code
    return LINE_START.sub(r"\1\\", MARKUP.sub(r"\\\1", line))


def markdown_code(text: str) -> str:
    """The text on one line, `printable`, as a code span. Not for tables: a pipe would end the cell."""
    shown = printable(LINE_BREAKS.sub(" ", text))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
