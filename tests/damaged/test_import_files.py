"""Files of other projects, damaged in any place."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json
from tests.eval.facts.imports.test_public_formats import IMITATIONS
from tidy_stlms.eval.facts.validate import load_bank

FILES = [(name, file) for name, (_, files, _) in IMITATIONS.items() for file in files]


def values_of(file: str, text: str):
    """The value of a JSON file, or the list of those of JSON Lines; None for any other file."""
    try:
        return [*map(json.loads, text.splitlines())] if file.endswith(".jsonl") else json.loads(text)
    except ValueError:
        return None


VALUES = {(name, file): values_of(file, IMITATIONS[name][1][file]) for name, file in FILES}
PARSED = [file for file in FILES if VALUES[file] is not None]


def take(new_case, name, damaged, content, alone):
    """Import the folder with a damaged file, or this file alone."""
    case = new_case()
    folder = case.folder / "source"
    folder.mkdir()
    format, files, _ = IMITATIONS[name]
    for file, text in files.items():
        if file == damaged or not alone:
            (folder / file).write_bytes(content if file == damaged else text.encode())
    source = folder / damaged if alone and format != "bear" else folder
    outcome = case.run("facts", "import", format, source, "--out", case.out)
    if outcome.code == 0:
        load_bank(case.out)  # what is accepted is a whole and right bank


@cases(40, 2000)
@given(data=st.data(), file=st.sampled_from(PARSED), alone=st.booleans())
def test_any_value(new_case, data, file, alone):
    name, damaged = file
    value = data.draw(damaged_value(VALUES[file]))
    by_line = damaged.endswith(".jsonl") and isinstance(value, list)
    take(new_case, name, damaged, b"\n".join(map(to_json, value)) if by_line else to_json(value), alone)


@cases(30, 1500)
@given(data=st.data(), file=st.sampled_from(FILES), alone=st.booleans())
def test_any_bytes(new_case, data, file, alone):
    name, damaged = file
    take(new_case, name, damaged, data.draw(damaged_bytes(IMITATIONS[name][1][damaged].encode())), alone)
