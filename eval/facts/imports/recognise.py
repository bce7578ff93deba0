"""Refuses files that hold no facts: documents, web pages, source code, archives, pictures.

    refuse_document(path, "tofu")                # UserError: paper.json: is a PDF document, and ...
    odd_line("# Capitals")                       # "Markdown"; None for a sentence

For files of records the first bytes are enough: the importers leave out records with other fields, and refuse
a source without any record. Any text could be a list of sentences, so there `refuse_other_text` checks the
lines.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.formats import FORMATS
from tidy_stlms.eval.facts.text_match import holds_terminal
from tidy_stlms.eval.file_kinds import SIGNATURES, misnamed, remedy_for

HEAD = 65536  # bytes of a file that are checked
LONGEST_LOOK = 1000  # characters of a line: the time of some patterns grows with the square of its length
PAGE = "an HTML page"
TEXT_STARTS = {
    PAGE: re.compile(r"<!doctype html|<(html|head|body)\b", re.IGNORECASE),
    "an XML file": re.compile(r"<\?xml\b|<svg\b", re.IGNORECASE),
    "a LaTeX document": re.compile(r"\\(documentclass|begin\{)"),
    "a script": re.compile(r"#!\s*/"),
}
ODD_LINES = {
    "Markdown": re.compile(
        r"\s*(#{1,6}(\s|$)|```|~~~|>\s|!\[|[-*+]\s|\d{1,3}[.)]\s|\|.*\||([-=*_]\s*){3,}$|\[[^\]]+\]:\s)"
        r"|.*\[[^\]]+\]\([^)\s]+\)"
    ),
    "HTML": re.compile(r"\s*<(!--|!doctype|/?[a-z][a-z0-9]*(\s[^>]*)?/?>)", re.IGNORECASE),
    "JSON": re.compile(r"""\s*([\[{].*[\]}],?\s*$|[\[{\]}],?\s*$|(["'])[\w ]+\2\s*:)"""),
    "source code": re.compile(
        r"\s*(import [\w.]+( as \w+)?;?\s*$|from [\w.]+ import |(async )?def \w+\(|class \w+.*[:{]\s*$"
        r"|(if|elif|for|while|with|try|else|except|switch)\b.*[:{]\s*$|return\b[^.]*$|#include|//|/\*|@\w+(\(|$)"
        r"|(const|let|var|public|private|static|function|func|fn)\s\w+.*[;{(]|[\w.\[\]'\"]+ ?[-+*/]?= ?\S)"
        r"|.*[;{}]\s*$|(\t| {2,})[\w.]+\(.*\)\s*$"
    ),
}
MOST_ODD = 0.25  # up to this share odd lines are left out; above it the file is refused
# What ends a cell of a table: a tab, or a comma, semicolon or bar without a space after it.
CELL_END = re.compile(r"""\t|[,;|](?=["']?[^\W\d])|(?<!\d)[,;|](?=\d)""")


def refuse_document(path: Path, format: str) -> None:
    """Raise UserError if the first bytes show a document, a web page, an archive or the like."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if (kind := misnamed(path, head)) is not None:
        raise _refusal(path, f"is {kind}", format, remedy_for(kind, path))
    if not head.startswith(tuple(SIGNATURES)) and (kind := _other_kind(head)) is not None:
        remedy = "download the file itself, not the page that shows it" if kind == PAGE else None
        raise _refusal(path, f"is {kind}", format, remedy)


def refuse_other_text(path: Path, lines: Sequence[str], format: str) -> None:
    """Raise UserError if these lines, none empty, are a table, or if too many are not sentences."""
    cells = [len(CELL_END.findall(line)) for line in lines]
    if (
        len(lines) > 1
        and cells[0]
        and 2 * cells.count(cells[0]) > len(lines)
        and not holds_terminal(lines[0])
    ):
        remedy = "give a table to the format csv, by a name that ends in .csv or .tsv"
        raise _refusal(path, "looks like a table, not like sentences", format, remedy)
    odd = Counter(kind for line in lines if (kind := odd_line(line)) is not None)
    if odd.total() > MOST_ODD * len(lines):
        kind, count = odd.most_common(1)[0]
        raise _refusal(
            path, f"looks like {kind}, not like sentences ({count:,} of {len(lines):,} lines)", format
        )


def odd_line(line: str) -> str | None:
    """What a line is, if it is not a sentence; else None."""
    if not any(map(str.isalnum, line)):
        return "a line without words"
    start = line[:LONGEST_LOOK]
    return next((kind for kind, pattern in ODD_LINES.items() if pattern.match(start)), None)


def _other_kind(head: bytes) -> str | None:
    if b"\x00" in head:
        return "a binary file"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    return next((kind for kind, start in TEXT_STARTS.items() if start.match(text)), None)


def _refusal(path: Path, problem: str, format: str, remedy: str | None = None) -> UserError:
    return UserError(
        f"{path}: {problem}; `{format}` needs {FORMATS[format]}" + (f"; {remedy}" if remedy else "")
    )
