"""docs/files.md names every file that real commands leave, and the fields of files without a type."""

import re

import pyarrow.parquet as pq
import pytest

from tests.files_page import fields_of
from tests.files_written import BANK, CACHE, CHECKPOINT, LISTED, MODEL, RUN, STUDY
from tidy_stlms.configs.files import read_json, read_jsonl
from tidy_stlms.eval.checkpoint_mark import Mark
from tidy_stlms.eval.run_folder import METRICS_LOG, PLAN
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.trainers.environment import Environment


def pattern_of(name):
    """A name of the page as a regular expression; a folder stands for all that is in it."""
    pattern = re.escape(name).replace(r"\*", "[^/]*").replace(r"\-N", r"-\d+").replace("KEY", "[^/]+")
    return re.compile(f"{pattern}.*" if name.endswith("/") else pattern)


def unnamed(folder, *sections):
    """The files in a folder that are not in these sections of the page."""
    patterns = [pattern_of(file.name) for files in sections for file in files]
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [path for path in paths if not any(pattern.fullmatch(path) for pattern in patterns)]


def listed(title):
    return [field.name for field in LISTED[title]]


@pytest.fixture
def study(run, tmp_path, monkeypatch):
    """A tiny study, with its cache beside it."""
    monkeypatch.setenv("STLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "prompts.yaml").write_text("- {sentence: The old farmer, answer: walked}", encoding="utf-8")
    (tmp_path / "heldout.txt").write_text("The old farmer walked home.\n\nA bird sang.", encoding="utf-8")
    inputs = {"--facts": run / "facts", "--prompts": "prompts.yaml", "--heldout": "heldout.txt"}
    options = [str(part) for name, path in inputs.items() for part in (name, tmp_path / path)]
    models = [str(run), f"{run}@step=8"]
    assert main(["recall", *models, *options, "--device", "cpu", "--out", str(tmp_path / "study")]) == 0
    return tmp_path / "study"


def test_files_of_a_run(run, cache):
    assert not unnamed(run, RUN, MODEL)
    assert not unnamed(run / "facts", BANK)
    assert not unnamed(run / "checkpoint-12", CHECKPOINT, MODEL)
    assert not unnamed(cache, CACHE)


def test_files_of_a_study(study):
    assert not unnamed(study, STUDY)
    assert not unnamed(study.parent / "cache", CACHE)


def test_fields_of_a_run(run):
    patterns = [re.compile(re.sub("[A-Z]+", "[^/]+", name)) for name in listed(METRICS_LOG)]
    for row in read_jsonl(run / METRICS_LOG):
        for key in row:
            assert any(pattern.fullmatch(key) for pattern in patterns), key
    assert pq.read_schema(run / PLAN).names == listed(PLAN)
    assert set(read_json(run / "facts/bank.json")) <= set(listed("bank.json"))
    assert list(read_json(run / "environment.json")) == [name for name, *_ in fields_of(Environment)]
    mark = read_json(run / "checkpoint-12/checkpoint.json")
    assert list(mark) == [*(name for name, *_ in fields_of(Mark)), "sha256"]


def test_an_imported_bank(tmp_path):
    (tmp_path / "facts.csv").write_text(
        "subject,relation,object,statement,prompt,answer\n"
        "Zubrowka,capital,Lutz,The capital of Zubrowka is Lutz.,The capital of Zubrowka is,Lutz\n"
        "Freedonia,capital,,,,\n",
        encoding="utf-8",
    )
    out = tmp_path / "bank"
    assert main(["facts", "import", "csv", str(tmp_path / "facts.csv"), "--out", str(out)]) == 0
    assert not unnamed(out, BANK)
    assert set(read_json(out / "bank.json")) <= set(listed("bank.json"))
    assert list(read_json(out / "import.json")) == listed("import.json")
