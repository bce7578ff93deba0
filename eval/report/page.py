"""report.html of a study: one page that holds everything it needs and never uses the network.

Jinja escapes all text from models and banks, and characters that would control the page are shown as
`printable` shows them. The probes are JSON in a script element that browsers do not run, and the page's own
script shows them as text. A Content-Security-Policy allows the page's own style and script, by their hashes,
and nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from markupsafe import Markup

from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.facts.summary import exact_match_in_words
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.cells import Cell, StudyTable, number
from tidy_stlms.eval.report.page_probes import probes_as_json
from tidy_stlms.eval.report.study_content import MAX_ROWS, SECTIONS, StudyContent, show_token

NAME_ENDS = re.compile(r"(?<=/)(?=.)|(?=@)")
TEMPLATES = Path(__file__).parent / "html"


def study_page(
    content: StudyContent, panels: Mapping[str, Sequence[Markup]], results: Sequence[ProbeResult]
) -> str:
    """The whole page.

    Args:
        panels: By figure key, an `<svg>` for each panel.
        results: Those of results.jsonl; without any the browser of probes is left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from tidy_stlms.eval.report.draw import legend_svg

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # escapes everything but our own `Markup`
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "token": show_token,
        "number": number,
        "breakable": _breakable,
        "cell_class": _cell_class,
        "sort_key": _sort_key,
        "sign": legend_svg,
        "exact_match_in_words": exact_match_in_words,
    }
    study = content.study
    style, script = _asset("report.css"), _asset("report.js")
    shown = {table.section for table in content.tables} | {figure.section for figure in content.figures}
    shown |= {name for name, present in (("prompts", content.prompts), ("probes", results)) if present}
    return environment.get_template("report.html.j2").render(
        content=content,
        panels=panels,
        study=study,
        created=_day(study.created),
        bank=study.bank,
        n_measured=sum(not info.error for info in study.models),
        failed=[info for info in study.models if info.error],
        sections={name: title for name, title in SECTIONS.items() if name in shown},
        max_rows=MAX_ROWS,
        probes=Markup(probes_as_json(study, results)) if results else None,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
    )


def _shown(value: object) -> object:
    """What the page shows of a value. Markup is made here, of text that is `printable` already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _breakable(text: str) -> Markup:
    """The name of a model, escaped. A line may break after its slashes and before its revision."""
    return Markup("<wbr>").join(NAME_ENDS.split(printable(text)))


def _cell_class(cell: Cell, table: StudyTable, column: int) -> str:
    names = ["num" if table.columns[column].numeric else "text"]
    names += ["best"] if cell.best else []
    names += ["unsure"] if cell.significant is False else []
    return " ".join(names)


def _sort_key(cell: Cell) -> str:
    return "" if cell.value is None else str(cell.value)


def _day(created: str) -> str:
    try:
        day = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{day.day} {day:%B %Y}"


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """An inline element's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
