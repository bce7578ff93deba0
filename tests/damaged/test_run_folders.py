"""Run folders with a damaged file: resumed, measured, read again."""

import json
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TINY
from tests.damaged.command import run_command
from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json, to_yaml


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run of six steps with a checkpoint at the fourth, and its config file."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(
        TINY.replace("max_steps: 12", "max_steps: 6").replace("exposures: 6", "exposures: 2")
    )
    outcome = run_command(
        [
            "train",
            str(folder / "tiny.yaml"),
            f"training.output_dir={folder / 'run'}",
            f"data.cache_dir={cache}",
        ]
    )
    assert outcome.code == 0, outcome.errors
    return folder


COMMANDS = ("resume", "ask", "info", "recall", "show")


def use(new_case, whole, cache, name, content, command):
    case = new_case()
    run = case.folder / "run"
    shutil.copytree(whole / "run", run)
    (run / name).write_bytes(content(case) if callable(content) else content)
    commands = {
        "ask": ["ask", f"{run}@step=4", "--steps", 2],
        "info": ["info", run],
        "recall": ["recall", run, "--facts", run / "facts", "--out", case.out],
        "show": ["facts", "show", run],
    }
    if command in commands:
        case.run(*commands[command], typed="The old farmer\n")
    else:
        keys = [f"training.output_dir={run}", f"data.cache_dir={cache}"]
        resume = "training.resume_from_checkpoint=true"
        case.run("train", whole / "tiny.yaml", *keys, resume, works_in="run")


def files_below(whole, *endings):
    run = whole / "run"
    files = (path for path in run.rglob("*") if path.is_file() and path.name.endswith(endings))
    return sorted(str(path.relative_to(run)) for path in files)


@cases(6, 700)
@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_any_value(new_case, whole, cache, data, command):
    name = data.draw(st.sampled_from(files_below(whole, ".json", ".jsonl", ".yaml")))
    text = (whole / "run" / name).read_text()
    if name.endswith(".yaml"):
        damaged = data.draw(damaged_value(yaml.safe_load(text)))
        use(new_case, whole, cache, name, lambda case: to_yaml(damaged, case.canary), command)
    elif name.endswith(".jsonl"):
        damaged = data.draw(damaged_value([json.loads(line) for line in text.splitlines()]))
        content = b"\n".join(map(to_json, damaged)) if isinstance(damaged, list) else to_json(damaged)
        use(new_case, whole, cache, name, content, command)
    else:
        use(new_case, whole, cache, name, to_json(data.draw(damaged_value(json.loads(text)))), command)


@cases(6, 700)
@given(data=st.data(), command=st.sampled_from(COMMANDS))
def test_any_bytes(new_case, whole, cache, data, command):
    name = data.draw(st.sampled_from(files_below(whole, "")))
    use(new_case, whole, cache, name, data.draw(damaged_bytes((whole / "run" / name).read_bytes())), command)
