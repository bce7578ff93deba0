"""Damaged banks and sources: each command ends well, or in one line that names the file, and leaves nothing.

A few cases in the suite; more by `STLM_DAMAGED=5000 pytest tests/eval/facts/test_damaged.py`.
"""

import os
import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.eval.facts.bank_files import small_bank
from tests.eval.facts.damage import damage
from tests.eval.facts.imports.test_public_formats import IMITATIONS
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.scripts.__main__ import main

campaign = settings(
    max_examples=int(os.environ.get("STLM_DAMAGED", "25")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
COMMANDS = {
    "show": ["--examples", "9"],
    "validate": [],
    "validate --fix": ["--fix"],
    "validate --out": ["--fix", "--out", "{out}"],
    "export": ["lm-eval", "{bank}", "{out}"],
}


def ends_well(arguments: list[str], folder, out, capsys) -> int:
    """The exit code of a command: 0, or 2 with one line and nothing written. Any other error is raised."""
    capsys.readouterr()
    code = main(["facts", *arguments])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("stlm: error: ")]
    assert code in (0, 2)
    assert len(errors) == code // 2
    assert code == 0 or not out.exists()
    assert not list(folder.rglob("*ran*")), "code of the file was run"
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], "half-written files"
    return code


@pytest.fixture
def work(tmp_path):
    """`work(copy)` gives an empty folder with a copy of the files, and a path for results."""

    def empty(make):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        (tmp_path / "work").mkdir()
        make(tmp_path / "work" / "source")
        return tmp_path / "work", tmp_path / "work" / "out"

    return empty


@campaign
@given(seed=st.integers(0, 2**32), command=st.sampled_from(sorted(COMMANDS)))
def test_damaged_banks(seed, command, work, capsys):
    folder, out = work(small_bank().save)
    rng, bank = random.Random(seed), folder / "source"
    damage(rng, bank)
    options = [option.format(bank=bank, out=out) for option in COMMANDS[command]]
    name = command.split()[0]
    arguments = [name, *options] if name == "export" else [name, str(bank), *options]
    code = ends_well(arguments, folder, out, capsys)
    if code == 0 and command == "validate --out":
        load_bank(out)


@campaign
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(IMITATIONS)))
def test_damaged_sources(seed, name, work, capsys):
    format, files, _ = IMITATIONS[name]

    def write(source):
        source.mkdir()
        for file, content in files.items():
            (source / file).write_text(content)

    folder, out = work(write)
    damage(random.Random(seed), folder / "source")
    if ends_well(["import", format, str(folder / "source"), "--out", str(out)], folder, out, capsys) == 0:
        load_bank(out)
