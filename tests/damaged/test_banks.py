"""Banks, damaged in any line of any file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json
from tests.eval.tiny import byte_level, llama
from tidy_stlms.eval.facts.generate.generate import generate_from_spec

FILES = ("bank.json", "facts.jsonl", "statements.jsonl", "probes.jsonl", "relations.jsonl")
COMMANDS = ("show", "validate", "fix", "export", "recall")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks") / "bank"
    sizes = ["people=4", "control=4", "distractors=3", "use=[birth_city,profession]"]
    generate_from_spec("configs/facts/people.yaml", sizes).save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    tokenizer = byte_level()
    llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def use(case, files, command, model):
    folder = case.folder / "bank"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    commands = {
        "show": ["facts", "show", folder],
        "validate": ["facts", "validate", folder],
        "fix": ["facts", "validate", folder, "--fix", "--out", case.out],
        "export": ["facts", "export", "lm-eval", folder, case.out],
        "recall": ["recall", model, "--facts", folder, "--out", case.out],
    }
    case.run(*commands[command])


@cases(40, 1500)
@given(data=st.data(), name=st.sampled_from(FILES), command=st.sampled_from(COMMANDS))
def test_any_value(new_case, bank, model, data, name, command):
    files = dict(bank)
    if name.endswith(".json"):
        files[name] = to_json(data.draw(damaged_value(json.loads(files[name]))))
    else:
        rows = [json.loads(line) for line in files[name].splitlines()]
        damaged = data.draw(damaged_value(rows))
        files[name] = b"\n".join(map(to_json, damaged)) if isinstance(damaged, list) else to_json(damaged)
    use(new_case(), files, command, model)


@cases(20, 600)
@given(data=st.data(), name=st.sampled_from(FILES), command=st.sampled_from(COMMANDS))
def test_any_bytes(new_case, bank, model, data, name, command):
    files = dict(bank)
    files[name] = data.draw(damaged_bytes(files[name]))
    use(new_case(), files, command, model)
