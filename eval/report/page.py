"""report.html of a study: one page that holds all it needs and asks the network for nothing.

Jinja escapes whatever comes from models and banks; the probes travel as JSON in a script element that
is data, and the page's own script shows them as text. A Content-Security-Policy allows the page's own
style and script, by their hashes, and nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tidy_stlms.eval.report.cells import Cell, StudyTable, number
from tidy_stlms.eval.report.figures import BarFigure, figures_of, legend_of, section_of
from tidy_stlms.eval.report.order import Study, models_of
from tidy_stlms.eval.report.page_probes import probes_as_json
from tidy_stlms.eval.report.tables import study_tables

NAME_ENDS = re.compile(r"(?<=/)(?=.)|(?=@)")
TEMPLATES = Path(__file__).parent / "html"
MAX_ROWS = 400  # of one table; more are a matter for summary.json

SECTIONS = {
    "recall": "Recall",
    "corrected": "Beyond what control facts do",
    "steps": "Over training",
    "doses": "Against exposures",
    "relations": "By relation",
    "heldout": "Held-out text",
    "benchmarks": "Benchmarks",
    "comparisons": "Differences between models",
    "tokens": "Figures by the token",
    "prompts": "Prompts",
    "probes": "All probes",
    "models": "Reproducibility",
}


def study_page(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole page. `rows` are those of results.jsonl; without any the browser of probes is left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from tidy_stlms.eval.report.study_svg import legend_key, panels_as_svg

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # of all that is not markup of our own making
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
    }
    style, script = _asset("report.css"), _asset("report.js")
    tables = study_tables(study)
    figures = [
        {
            "key": figure.key,
            "section": section_of(figure),
            "caption": figure.caption,
            "panels": panels_as_svg(figure),
            "bars": isinstance(figure, BarFigure),
            "legend": [(kind, legend_key(kind)) for kind in legend_of(figure)],
            "chance": figure.chance,
        }
        for figure in figures_of(study)
    ]
    prompts = prompts_of(study)
    full = {table.section for table in tables} | {figure["section"] for figure in figures}
    full |= {name for name, present in (("prompts", prompts), ("probes", rows)) if present}
    return environment.get_template("report.html.j2").render(
        study=study,
        made=study.get("created"),
        created=_day(study.get("created")),
        bank={"chance": None, "flags": {}, **study["bank"]} if "bank" in study else None,
        title=title_of(study),
        n_measured=sum(not model.get("error") for model in study["models"]),
        failed=[model for model in study["models"] if model.get("error")],
        sections={name: title for name, title in SECTIONS.items() if name in full},
        tables=tables,
        figures=figures,
        prompts=prompts,
        max_rows=MAX_ROWS,
        probes=Markup(probes_as_json(study, rows)) if rows else None,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
    )


def title_of(study: Study) -> str:
    name = study.get("bank", {}).get("name")
    return f"Recall of {name}" if name else "What models recall"


def prompts_of(study: Study) -> list[dict[str, Any]]:
    """`[{"sentence", "answer", "joint", "said": [(model, entry), ...]}]`: every prompt, what models say."""
    found: dict[tuple, dict[str, Any]] = {}
    prompts = study.get("prompts", {})
    for model in models_of(study):
        for entry in prompts.get(model, []):
            key = (entry["sentence"], entry.get("answer"), entry.get("joint", " "))
            asked = found.setdefault(key, dict(zip(("sentence", "answer", "joint"), key, strict=True)))
            asked.setdefault("said", []).append((model, entry))
    return list(found.values())


def show_token(text: str) -> str:
    """A token with its blanks to be seen."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥") or "∅"


def _breakable(text: str) -> Markup:
    """Escaped, with leave to break the name of a model behind its slashes and before its revision."""
    return Markup("<wbr>").join(NAME_ENDS.split(text))


def _cell_class(cell: Cell, table: StudyTable, place: int) -> str:
    names = ["num" if table.columns[place].numeric else "text"]
    names += ["best"] if cell.best else []
    names += ["unsure"] if cell.significant is False else []
    return " ".join(names)


def _sort_key(cell: Cell) -> str:
    return "" if cell.value is None else str(cell.value)


def _day(created: str | None) -> str | None:
    if created is None:
        return None
    try:
        day = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{day.day} {day:%B %Y}"


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline element by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
