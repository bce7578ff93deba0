"""Files of other projects, damaged in any place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json
from tests.eval.facts.imports.test_bear import METADATA, P36
from tests.eval.facts.imports.test_records import TOFU, edit, passage
from tests.eval.facts.imports.test_tidy import CASES, CONFIG, SENTENCES
from tidy_stlms.eval.facts.validate import load_bank

TABLE = [
    {
        "subject": person,
        "relation": "born",
        "object": city,
        "statement": f"{person} was born in {city}.",
        "prompt": f"{person} was born in",
    }
    for person, city in (("Ada", "Oslo"), ("Bo", "Rome"))
]
CSV = "\n".join(",".join(row) for row in (TABLE[0], *(row.values() for row in TABLE)))


def lines(rows) -> bytes:
    return b"\n".join(map(to_json, rows)) if isinstance(rows, list) else to_json(rows)


# Of each format its files, and what they hold: values of JSON, or of JSON Lines, or the text itself.
SOURCES = {
    "fictional-knowledge": {"source.json": [passage()]},
    "counterfact": {"source.json": [edit(), edit()]},
    "tofu": {"source.jsonl": TOFU},
    "jsonl": {"source.jsonl": TABLE},
    "csv": {"source.csv": CSV},
    "bear": {"metadata_relations.json": METADATA, "P36.jsonl": P36},
    "tidy": {
        "inject_config.json": CONFIG,
        "inject_data.txt": SENTENCES,
        "test_cases_answers_by_type.json": CASES,
    },
}
FOLDERS = ("bear", "tidy")
FILES = [(format, name) for format, files in SOURCES.items() for name in files]


def content_of(name: str, value) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return lines(value) if name.endswith(".jsonl") else to_json(value)


def take(new_case, format, name, content, alone):
    """Import the folder, or the damaged file alone."""
    case = new_case()
    folder = case.folder / "source"
    folder.mkdir()
    for other, value in SOURCES[format].items():
        if other == name or not alone:
            (folder / other).write_bytes(content if other == name else content_of(other, value))
    source = folder / name if alone and format != "bear" else folder
    outcome = case.run("facts", "import", format, source, "--out", case.out)
    if outcome.code == 0:
        load_bank(case.out)


@cases(40, 2000)
@given(data=st.data(), file=st.sampled_from(FILES), alone=st.booleans())
def test_any_value(new_case, data, file, alone):
    format, name = file
    value = SOURCES[format][name]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return
    take(new_case, format, name, content_of(name, data.draw(damaged_value(value))), alone)


@cases(30, 1500)
@given(data=st.data(), file=st.sampled_from(FILES), alone=st.booleans())
def test_any_bytes(new_case, data, file, alone):
    format, name = file
    take(new_case, format, name, data.draw(damaged_bytes(content_of(name, SOURCES[format][name]))), alone)


@pytest.mark.parametrize("format", SOURCES)
def test_whole_files_are_taken(new_case, format):
    """Otherwise the damaged ones would be refused for other reasons than their damage."""
    case = new_case()
    for name, value in SOURCES[format].items():
        (case.folder / name).write_bytes(content_of(name, value))
    source = case.folder if format in FOLDERS else case.folder / name
    outcome = case.run("facts", "import", format, source, "--out", case.out)
    assert outcome.code == 0, outcome.errors
