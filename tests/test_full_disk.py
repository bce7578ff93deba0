"""A full disk, whatever is being written: one line, exit code 1, and everything from before is whole.

Training meets it on a small file system of its own, filled up right before a chosen call until a given
number of bytes are left; then there is room again, and the run goes on. All other commands meet a limit of
file sizes, which needs no rights: zero, and one byte less than the largest file that they write.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
import torch
from omegaconf import OmegaConf

from tests.configs.test_tidy import FULL
from tests.conftest import TINY
from tests.full_disk import Commands, Moment, can_mount
from tests.modeling_stlm.tidy_reference import TidyModel, tidy_config
from tests.trainers.test_exactness import LOGS, assert_bit_equal, logs, weights
from tidy_stlms.configs.errors import DiskFull
from tidy_stlms.configs.files import read_jsonl
from tidy_stlms.configs.temporary import TEMPORARY
from tidy_stlms.eval.run_folder import SAVING, WAITING, checkpoints_of, is_run
from tidy_stlms.trainers.checkpoints import check_checkpoint
from tidy_stlms.trainers.resume import read_run_id
from tidy_stlms.trainers.synthetic import synthetic_documents

REASON = "(No space left on device|File too large|not all of it could be written)"
THEN = "everything saved before is complete: make room, then"
ONE_LINE = re.compile(
    rf"stlm: error: (?P<file>\S+): {REASON} \([\d.,]+ [GM]B free in \S+\); {THEN} "
    r"(run the command again|go on with\n  stlm train [^\n]+ training.resume_from_checkpoint=true)\n"
)
SHORT = (
    "data.name=files",
    "data.max_documents=null",
    "training.max_steps=8",
    "injection.exposures=3",
    "training.logging_steps=3",
    "training.eval_steps=4",
    "evaluation.recall_steps=8",
    "evaluation.generate=false",
)
RESUME = "training.resume_from_checkpoint=true"
SAVE, APPEND = (
    "tidy_stlms.trainers.trainer:STLMTrainer._save_checkpoint",
    "tidy_stlms.trainers.callbacks:append_jsonl",
)
# What is being written when a given number of bytes is left, and what the line names.
MOMENTS = {
    "copying the documents": (
        Moment("tidy_stlms.trainers.run:load_documents", left=8192),
        "cache/documents/.*",
    ),
    "saving the tokenizer": (
        Moment("tidy_stlms.trainers.tokenizer:train_bpe_tokenizer", left=8192),
        "cache/tokenizers/.*",
    ),
    "tokenising": (Moment("tidy_stlms.trainers.run:prepare_corpus", left=8192), "cache/corpora/.*"),
    "laying the run out": (Moment("tidy_stlms.trainers.run:lay_out", left=20_000), "run/facts(/.*)?"),
    "the last file of the layout": (Moment("tidy_stlms.trainers.layout:save_config"), "run/config.yaml"),
    "the first checkpoint, its weights": (Moment(SAVE, left=100_000), "run/checkpoint-4"),
    "log lines": (Moment(APPEND, call=7, left=8192), "run/recall.jsonl"),
    "a later checkpoint, its optimizer": (Moment(SAVE, call=2, left=400_000), "run/checkpoint-8"),
    "the mark of a checkpoint": (
        Moment("tidy_stlms.trainers.trainer:mark_whole", call=2),
        "run/.saving/checkpoint-8/.*",
    ),
    "the final model": (
        Moment("tidy_stlms.trainers.trainer:STLMTrainer.save_final_model", left=99_000),
        "run",
    ),
    "the figures": (Moment("tidy_stlms.trainers.run:write_run_report", left=50_000), "run/figures/.*.png"),
    "the summary": (Moment("tidy_stlms.eval.report.run_report:write_json", left=4096), "run/summary.json"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands' files are; `small` in it is the place of the small disk."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "small").mkdir()
    (folder / "tiny.yaml").write_text(TINY)
    documents = ({"text": text} for text in synthetic_documents(200, 42))
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    return folder


@pytest.fixture(scope="module")
def commands(folder):
    with Commands(folder / "small" if can_mount() else None) as commands:
        yield commands


@pytest.fixture(scope="module")
def train(folder, commands):
    """`train(run, cache, "section.key=value", ...)`"""

    def run(out, cache, *overrides, **options):
        fixed = [f"training.output_dir={out}", f"data.cache_dir={cache}"]
        fixed.append(f"data.train_files={folder / 'documents.jsonl'}")
        return commands.run("train", str(folder / "tiny.yaml"), *SHORT, *fixed, *overrides, **options)

    return run


@pytest.fixture(scope="module")
def whole(folder, train):
    """A run that always had room."""
    assert train(folder / "run", folder / "cache").code == 0
    return folder / "run"


def named_file(result):
    """The file in the one line at the end of stderr; before it, there is no other error."""
    before, start, line = result.err.partition("stlm: error: ")
    assert not re.search(r"Traceback|ignored|Error", before), result.err
    match = ONE_LINE.fullmatch(start + line)
    assert match, result.err
    assert result.code == 1
    return match["file"]


def left_behind(folder):
    names = {SAVING, WAITING}
    return [
        path
        for path in folder.rglob("*")
        if path.name in names or TEMPORARY.fullmatch(path.name) or path.name.endswith(".incomplete")
    ]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("moment", "file"), MOMENTS.values(), ids=MOMENTS)
def test_a_run_goes_on_when_there_is_room_again(folder, commands, train, whole, moment, file):
    if commands.mount is None:
        pytest.skip("file systems cannot be mounted here")
    commands.new_disk("16m")
    small = folder / "small"
    cache = small / "cache" if file.startswith("cache") else folder / "cache"
    result = train(small / "run", cache, moment=moment)
    assert re.fullmatch(rf"{small}/{file}", named_file(result))
    assert left_behind(commands.seen(small)) == []
    run = commands.seen(small / "run")
    if is_run(run):
        for checkpoint in checkpoints_of(run):
            check_checkpoint(checkpoint, read_run_id(run))
        for log in (run / name for name in LOGS if (run / name).exists()):
            assert log.read_bytes()[-1:] in (b"", b"\n")

    commands.resize("64m")
    result = train(small / "run", cache, RESUME)
    assert result.code == 0, result.err
    assert_bit_equal(weights(run), weights(whole))
    assert logs(run) == logs(whole)


def test_a_run_goes_on_when_files_may_be_larger(train, whole, tmp_path):
    """The same by a limit of file sizes, also where nothing can be mounted."""
    result = train(tmp_path / "run", tmp_path / "cache", limit=200_000, to_the_end=True)
    assert named_file(result) == f"{tmp_path}/run/checkpoint-4"
    assert left_behind(tmp_path) == []
    assert train(tmp_path / "run", tmp_path / "cache", RESUME).code == 0
    assert_bit_equal(weights(tmp_path / "run"), weights(whole))
    assert logs(tmp_path / "run") == logs(whole)


@pytest.fixture(scope="module")
def inputs(folder, whole):
    """What commands read."""
    config = tidy_config(model__vocab_size=260)
    content = {"model": TidyModel(config["model"]).state_dict(), "config": OmegaConf.create(config)}
    torch.save({**content, "iter_num": 5}, folder / "tidy.pt")
    (folder / "full.yaml").write_text(FULL)
    (folder / "table.csv").write_text(
        "subject,relation,object,statement,prompt\nAda,city,Bern,Ada lives in Bern.,Ada lives in\n"
        "Bob,city,Rome,Bob lives in Rome.,Bob lives in\n"
    )
    return folder


COMMANDS = {
    "recall": "recall {run} --facts {run}/facts --no-generate --out {out}",
    "facts generate": "facts generate configs/facts/people.yaml --out {out} people=12",
    "facts import": "facts import csv {folder}/table.csv --out {out}",
    "facts validate --out": "facts validate {run}/facts --out {out}",
    "facts export lm-eval": "facts export lm-eval {run}/facts {out}",
    "convert tidy": "convert tidy {folder}/tidy.pt {out}",
    "convert tidy-config": "convert tidy-config {folder}/full.yaml {out}",
    "export llama": "export llama {run} {out}",
}


@pytest.fixture
def stlm(commands, inputs, whole, tmp_path):
    """`stlm(words, out=...)`, with `{run}`, `{folder}` and `{out}` filled in."""

    def run(words, out=tmp_path / "out", **options):
        return commands.run(*words.format(run=whole, folder=inputs, out=out).split(), **options)

    return run


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_other_commands_write_all_or_nothing(stlm, tmp_path, words):
    free = tmp_path / "free"
    assert stlm(words, out=free).code == 0
    largest = max(path.stat().st_size for path in (free, *free.rglob("*")) if path.is_file())
    before = contents(tmp_path)
    for limit in (0, largest - 1):
        file = named_file(stlm(words, limit=limit, to_the_end=limit > 0))
        assert re.match(rf"({tmp_path}|{tempfile.gettempdir()}/tmp\w+)/out", file)
        assert contents(tmp_path) == before
        assert os.listdir(tmp_path) == ["free"]


def test_old_results_stay_where_there_is_no_room_for_new_ones(stlm, tmp_path):
    words = COMMANDS["recall"]
    assert stlm(words).code == 0
    before = contents(tmp_path)
    largest = max(map(len, before.values()))
    for limit in (0, largest - 100):
        assert named_file(stlm(f"{words} --overwrite", limit=limit)).startswith(f"{tmp_path}/out")
        assert contents(tmp_path) == before


def test_a_bank_that_cannot_be_mended_in_place_stays_as_it_is(stlm, tmp_path):
    bank = tmp_path / "out"
    assert stlm(COMMANDS["facts generate"]).code == 0
    rows = read_jsonl(bank / "probes.jsonl")
    rows[0]["prompt"] += " "
    (bank / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = contents(bank)
    for file in ("probes.jsonl", "bank.json"):
        limit = len(before[bank / file]) - 200
        assert named_file(stlm("facts validate {out} --fix", limit=limit)).startswith(str(bank))
        assert contents(bank) == before
    assert stlm("facts validate {out} --fix").code == 0
    assert contents(bank) != before


def test_a_full_cache_does_not_cost_what_is_measured(stlm, tmp_path):
    """What recall keeps is only there to save time."""
    words = "recall {run} --facts {run}/facts --no-generate"
    result = stlm(words, limit=0, env={"STLM_CACHE": str(tmp_path / "cache")})
    assert result.code == 0
    assert "going on without keeping what is measured" in result.err
    assert "Traceback" not in result.err
    assert contents(tmp_path) == {}
    assert result.out == stlm(words, env={"STLM_CACHE": str(tmp_path / "other")}).out
    assert contents(tmp_path / "other")


PRINTING = (
    "--version",
    "recall --help",
    "train {folder}/tiny.yaml --dry-run",
    "facts show {run}/facts",
    "facts validate {run}/facts",
    "facts generate configs/facts/people.yaml --out {out} people=12",
    "info {run}",
    "recall {run} --facts {run}/facts --no-generate",
)


@pytest.mark.parametrize("words", PRINTING)
def test_standard_output_without_room_is_one_line(stlm, words):
    result = stlm(words, stdout="/dev/full", to_the_end=True)
    assert result.err == (
        "stlm: error: standard output: No space left on device; everything saved before is complete\n"
    )
    assert result.code == 1


def in_a_process(code, *, environment=None, **streams):
    """What `run` makes of code; returns exit code and stderr."""
    start = (
        f"import errno, sys, threading; from tidy_stlms.scripts.cli import run\n{code}\nsys.exit(run(main))"
    )
    command, env = [sys.executable, "-c", start], {**os.environ, **(environment or {})}
    result = subprocess.run(command, env=env, check=False, **{"stderr": subprocess.PIPE, **streams})
    return result.returncode, (result.stderr or b"").decode()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_without_room_ends_in_one_line_and_exit_code_1(unbuffered):
    environment = {"PYTHONUNBUFFERED": unbuffered}
    line = "stlm: error: standard output: No space left on device; everything saved before is complete\n"
    printing = "def main(): print('x' * {})"
    failing = "def main(): raise RuntimeError from OSError(errno.ENOSPC, 'full')"
    with open("/dev/full", "wb") as full:
        for size in (1, 100_000):
            assert in_a_process(printing.format(size), stdout=full, environment=environment) == (1, line)
        for code in ("def main(): print('x', file=sys.stderr)", failing):
            assert in_a_process(code, stderr=full, environment=environment)[0] == 1


def test_threads_and_finalizers_print_no_traceback():
    failing = "def fail(*args): raise OSError(errno.ENOSPC, 'No space left on device')"
    thread = "threading.Thread(target=fail, name='upload')"
    code = f"{failing}\ndef main(): t = {thread}; t.start(); t.join()"
    assert in_a_process(code) == (0, "stlm: warning: upload: No space left on device\n")
    code = f"{failing}\nclass Open: __del__ = fail\ndef main(): Open()\nleft = Open()"
    assert in_a_process(code) == (0, "")
    other = "def fail(*args): raise OSError(errno.EIO, 'broken')"
    for body in (f"t = {thread}; t.start(); t.join()", "Open()"):
        code = f"{other}\nclass Open: __del__ = fail\ndef main(): {body}"
        assert "Traceback" in in_a_process(code)[1]


def raise_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_hub_cache_is_not_taken_for_a_wrong_name(whole, monkeypatch):
    from huggingface_hub.constants import HF_HOME
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tidy_stlms.eval.facts.validate import load_bank
    from tidy_stlms.eval.models.load import load_model
    from tidy_stlms.eval.models.names import ModelName
    from tidy_stlms.eval.study.measure import measure_model
    from tidy_stlms.eval.study.request import StudyRequest

    for loaded in (AutoModelForCausalLM, AutoTokenizer):
        with monkeypatch.context() as patch:
            patch.setattr(loaded, "from_pretrained", raise_full)
            with pytest.raises(DiskFull, match=f"^{HF_HOME}: No space left"):
                load_model(whole, device="cpu")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", raise_full)
    request = StudyRequest(bank=load_bank(whole / "facts"))
    with pytest.raises(DiskFull, match=f"^{HF_HOME}: No space left"):
        measure_model(ModelName(str(whole), str(whole)), request)


def test_a_push_without_room_for_its_copy_does_not_end_the_run(whole, tmp_path, monkeypatch, caplog):
    from types import SimpleNamespace

    import tidy_stlms.trainers.hub

    made = SimpleNamespace(create_repo=lambda *args, **kwargs: SimpleNamespace(repo_id="owner/run"))
    monkeypatch.setattr(tidy_stlms.trainers.hub, "HfApi", lambda: made)
    arguments = SimpleNamespace(hub_model_id=None, hub_private_repo=True, hub_always_push=True)
    pusher = tidy_stlms.trainers.hub.CheckpointPusher(arguments, tmp_path)
    monkeypatch.setattr(os, "link", raise_full)  # what a checkpoint is copied by, one way or the other
    monkeypatch.setattr(shutil, "copy2", raise_full)
    pusher.push_checkpoint(whole / "checkpoint-8", 8)
    pusher.wait()
    assert "step 8: is not pushed (No space left on device); training goes on" in caplog.text
    assert left_behind(tmp_path) == []
