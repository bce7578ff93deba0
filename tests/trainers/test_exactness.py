"""What must be equal: a killed and resumed run, other splits of a step, measuring or not."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerState

import tidy_stlms.trainers.run
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, read_jsonl
from tidy_stlms.configs.load import load_config
from tidy_stlms.eval.checkpoint_mark import read_mark, write_mark
from tidy_stlms.trainers import callbacks
from tidy_stlms.trainers.checkpoints import checkpoint_to_resume
from tidy_stlms.trainers.resume import read_run_id
from tidy_stlms.trainers.run import prepare
from tidy_stlms.trainers.trainer import STLMTrainer

TIMINGS = ("_runtime", "_per_second")
LOGS = ("metrics.jsonl", "recall.jsonl", "generations.jsonl")


class Killed(BaseException):
    """Ends the process's work at once, as far as a test in the same process can."""


def weights(folder):
    return load_file(folder / "model.safetensors")


PACKINGS = pytest.mark.parametrize("packing", ["apart", "joined"])


def logs(folder):
    """All log lines, timings aside."""
    result = {}
    for name in LOGS:
        rows = [json.loads(line) for line in (folder / name).read_text().split("\n") if line]
        result[name] = [{k: v for k, v in row.items() if not k.endswith(TIMINGS)} for row in rows]
    return result


def assert_bit_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def largest_difference(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run that nothing interrupted."""
    from tests.conftest import TINY
    from tidy_stlms.configs.load import load_config

    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(TINY)
    overrides = [f"training.output_dir={folder / 'run'}", f"data.cache_dir={cache}"]
    tidy_stlms.trainers.run.train(*load_config([folder / "tiny.yaml"], overrides))
    return folder / "run"


def test_a_killed_and_resumed_run_equals_one_that_was_not_with_joined_documents(run_tiny, monkeypatch):
    expected = run_tiny("whole", "data.packing=joined")
    with monkeypatch.context() as patch:
        in_step(patch, 7)
        with pytest.raises(Killed):
            run_tiny("run", "data.packing=joined")
    folder = run_tiny("run", "data.packing=joined", "training.resume_from_checkpoint=true")
    assert_bit_equal(weights(folder), weights(expected))
    assert logs(folder) == logs(expected)


def in_step(patch, at_step):
    def step(self, *args, original=STLMTrainer.training_step, **kwargs):
        if self.state.global_step == at_step:
            raise Killed
        return original(self, *args, **kwargs)

    patch.setattr(STLMTrainer, "training_step", step)


def in_save(patch, method, at_step=8):
    original = getattr(STLMTrainer, method)

    def save(self, *args, **kwargs):
        if self.state.global_step == at_step:
            raise Killed
        return original(self, *args, **kwargs)

    patch.setattr(STLMTrainer, method, save)


def in_trainer_state(patch):
    def save(self, path, original=TrainerState.save_to_json):
        original(self, path)
        if self.global_step == 8:
            with open(path, "r+") as file:
                file.truncate(os.path.getsize(path) // 2)
            raise Killed

    patch.setattr(TrainerState, "save_to_json", save)


def in_log_line(patch):
    def append(path, rows, original=callbacks.append_jsonl):
        rows = list(rows)
        original(path, rows)
        if path.name == "recall.jsonl" and rows[0]["step"] == 8:
            with path.open("r+") as file:
                file.truncate(path.stat().st_size - 100)
            raise Killed

    patch.setattr(callbacks, "append_jsonl", append)


def in_function(patch, name):
    def killed(*args, **kwargs):
        raise Killed

    patch.setattr(tidy_stlms.trainers.run, name, killed)


KILLS = {
    "before the first checkpoint": lambda patch: in_step(patch, 2),
    "between checkpoints": lambda patch: in_step(patch, 7),
    "writing the first log lines": lambda patch: patch.setattr(
        callbacks.RecallCallback,
        "measure",
        lambda self, step: (_ for _ in ()).throw(Killed),
    ),
    "writing a log line": in_log_line,
    "saving, weights written": lambda patch: in_save(patch, "_save_optimizer_and_scheduler"),
    "saving, optimizer written": lambda patch: in_save(patch, "_save_rng_state"),
    "saving, state half written": in_trainer_state,
    "at the last save": lambda patch: in_save(patch, "_save_rng_state", at_step=12),
    "writing the report": lambda patch: in_function(patch, "write_run_report"),
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_killed_and_resumed_run_equals_one_that_was_not(run_tiny, tmp_path, whole, monkeypatch, kill):
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            run_tiny("run")
    torch.manual_seed(99)  # whatever state the new process starts with
    folder = run_tiny("run", "training.resume_from_checkpoint=true")
    assert_bit_equal(weights(folder), weights(whole))
    assert logs(folder) == logs(whole)
    summaries = [json.loads((f / "summary.json").read_text()) for f in (folder, whole)]
    for summary in summaries:
        summary.pop("tokens_per_second")
    assert summaries[0] == summaries[1]


def test_sigkill_while_the_run_goes_on(tiny, run_tiny, tmp_path, whole):
    process = subprocess.Popen(
        [sys.executable, "-m", "tidy_stlms.scripts", "train", *tiny("run")],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not (tmp_path / "run/checkpoint-4").exists() and time.time() < deadline:
        time.sleep(0.01)  # somewhere in the middle of writing checkpoint-4
    assert (tmp_path / "run/checkpoint-4").exists()
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    folder = run_tiny("run", "training.resume_from_checkpoint=true")
    assert_bit_equal(weights(folder), weights(whole))
    assert logs(folder) == logs(whole)


def test_ctrl_c_saves_and_the_run_goes_on(run_tiny, tmp_path, whole, monkeypatch):
    def step(self, *args, original=STLMTrainer.training_step, **kwargs):
        if self.state.global_step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(STLMTrainer, "training_step", step)
        with pytest.raises(tidy_stlms.trainers.run.Interrupted) as stopped:
            run_tiny("run")
    assert stopped.value.checkpoint == tmp_path / "run/checkpoint-7"
    run = tmp_path / "run"
    assert checkpoint_to_resume(run, read_run_id(run)) == run / "checkpoint-7"
    assert not (tmp_path / "run/summary.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    folder = run_tiny("run", "training.resume_from_checkpoint=true")
    assert_bit_equal(weights(folder), weights(whole))
    assert logs(folder) == logs(whole)


def test_measuring_often_or_never_gives_the_same_weights(run_tiny):
    often = run_tiny("often", "evaluation.recall_steps=3", "training.eval_steps=3")
    never = run_tiny(
        "never",
        "evaluation.prompts=[]",
        "training.eval_strategy='no'",
        "training.logging_steps=12",
        "training.save_strategy='no'",
        "evaluation.recall_steps=0",
    )
    assert_bit_equal(weights(often), weights(never))


EXACT = (
    "model.config.embd_dropout=0",
    "model.config.resid_dropout=0",
    "model.config.attention_dropout=0",
    "training.max_steps=20",
    "training.save_steps=20",
    "evaluation.recall_steps=0",
    "evaluation.prompts=[]",
    "training.eval_steps=10",
    # neither a multiple of two processes' batches nor of one's
    "evaluation.validation_rows=9",
    "training.per_device_eval_batch_size=2",
)


@pytest.fixture(params=["apart", "joined"])
def exact(request):
    return (*EXACT, f"data.packing={request.param}")


@pytest.fixture
def one_process(run_tiny, exact):
    return run_tiny("one", *exact, "training.per_device_train_batch_size=8")


def test_accumulation_does_not_matter(run_tiny, one_process, exact):
    split = run_tiny(
        "split", *exact, "training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=8"
    )
    assert largest_difference(weights(one_process), weights(split)) < 1e-5
    assert (split / "plan.parquet").read_bytes() == (one_process / "plan.parquet").read_bytes()


def test_two_processes_equal_one(tiny, run_tiny, one_process, exact, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "tests.trainers.record_batches"]
    arguments = tiny("two", *exact, "training.per_device_train_batch_size=4")  # as the README writes it
    result = subprocess.run(
        [*command, str(tmp_path), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert largest_difference(weights(one_process), weights(tmp_path / "two")) < 1e-5
    accumulated = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
    same_sums = run_tiny("accumulated", *exact, *accumulated)
    assert_bit_equal(weights(same_sums), weights(tmp_path / "two"))
    assert (tmp_path / "two/plan.parquet").read_bytes() == (one_process / "plan.parquet").read_bytes()
    # together the two processes saw every row of the stream once, hence the same exposures
    seen = [torch.load(tmp_path / f"batches-{rank}.pt") for rank in (0, 1)]
    assert sorted(seen[0]["positions"] + seen[1]["positions"]) == list(range(20 * 8))
    assert all(len(s["positions"]) == 20 * 4 for s in seen)
    planned = Counter(pq.read_table(one_process / "plan.parquet")["statement_id"].to_pylist())
    assert Counter(seen[0]["exposures"]) + Counter(seen[1]["exposures"]) == planned
    # not two runs in one folder that happen to agree
    assert [s["joined"] for s in seen] == [2, 2]
    assert read_json(tmp_path / "two/environment.json")["processes"] == 2
    recalled = [read_jsonl(folder / "recall.jsonl") for folder in (one_process, tmp_path / "two")]
    assert [(row["step"], row["probe_id"]) for row in recalled[1]] == [
        (row["step"], row["probe_id"]) for row in recalled[0]
    ]
    for ours, theirs in zip(*recalled, strict=True):
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)
    losses = [
        {row["step"]: row["eval_loss"] for row in read_jsonl(folder / "metrics.jsonl") if "eval_loss" in row}
        for folder in (one_process, tmp_path / "two")
    ]
    assert list(losses[0]) == [10, 20]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@PACKINGS
def test_the_validation_loss_is_the_mean_over_all_tokens(run_tiny, packing):
    folder = run_tiny(
        "run",
        f"data.packing={packing}",
        "evaluation.validation_rows=9",
        "training.per_device_eval_batch_size=2",
    )
    run = prepare(load_config([folder / "config.yaml"])[0])
    rows = torch.stack([torch.from_numpy(row["input_ids"]) for row in run.validation])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        if packing == "joined":
            logits = model(rows).logits
        else:  # each document by itself, as nothing else than a forward pass reads it
            logits = torch.stack([_document_by_document(model, row, run.collator.eos) for row in rows])
    logits = logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    assert read_json(folder / "summary.json")["eval_loss"] == pytest.approx(expected.item(), abs=1e-6)


def _document_by_document(model, row, eos):
    """Logits of a row (seq,) whose documents the model reads one by one, (seq, vocab)."""
    starts = [0, *(row == eos).nonzero().flatten().tolist(), len(row)]
    pieces = [row[start:end] for start, end in itertools.pairwise(starts) if end > start]
    return torch.cat([model(piece[None]).logits[0] for piece in pieces])


def test_the_choice_of_packing_is_recorded_and_not_changed_by_a_resume(run_tiny, tmp_path):
    short = ("training.max_steps=4", "injection.exposures=2")
    folder = run_tiny("run", *short)
    assert read_json(folder / "environment.json")["stream"]["packing"] == "apart"
    assert "each document is read by itself" in (folder / "report.md").read_text()
    run_tiny("run", *short, "data.packing=apart", "training.resume_from_checkpoint=true")
    with pytest.raises(
        UserError, match=r"packing=apart, this run has joined .*: set data\.packing=apart, or"
    ):
        run_tiny("run", *short, "data.packing=joined", "training.resume_from_checkpoint=true")
    # an earlier version joined all documents, and its checkpoints do not say so
    old = run_tiny("old", *short, "data.packing=joined")
    mark = read_mark(old / "checkpoint-4")
    del mark.geometry["packing"]
    write_mark(old / "checkpoint-4", mark)
    with pytest.raises(UserError, match=r"packing=joined, this run has apart .*: set data\.packing=joined"):
        run_tiny("old", *short, "training.resume_from_checkpoint=true")
    run_tiny("old", *short, "data.packing=joined", "training.resume_from_checkpoint=true")


def test_a_resume_with_another_geometry_is_refused(run_tiny, tmp_path):
    short = ("training.max_steps=4", "injection.exposures=2")
    run_tiny("run", *short)
    for change, named in (
        ("training.per_device_train_batch_size=2", "rows_per_step=4, this run has 2"),
        ("data.context_window=48", "context_window=64, this run has 48"),
        ("training.seed=7", "seed=42, this run has 7"),
        ("injection.exposures=3", "another injection .set by training.max_steps, injection or facts"),
        ("injection.placement=row", "another injection "),
        ("model.config.hidden_size=48", "another model .set by model or tokenizer"),
    ):
        with pytest.raises(UserError, match=named):
            run_tiny("run", *short, "training.resume_from_checkpoint=true", change)
    assert (tmp_path / "run/summary.json").exists()


def test_a_resume_with_settings_that_its_checkpoint_would_override_is_refused(run_tiny, tmp_path):
    """The optimizer goes on with what it was saved with, and config.yaml would say otherwise."""
    short = ("training.max_steps=4", "injection.exposures=2")
    run_tiny("run", *short)
    config = (tmp_path / "run/config.yaml").read_text()
    for change, named in (
        (
            "training.learning_rate=1.0e-4",
            r"learning_rate=0.0001: this run has 0.001, which its checkpoints keep",
        ),
        ("training.lr_scheduler_type=linear", "lr_scheduler_type=linear: this run has cosine_with_min_lr"),
        ("training.lr_scheduler_kwargs={min_lr: 1.0e-5}", "lr_scheduler_kwargs"),
        ("training.weight_decay=0", "weight_decay=0.0: this run has 0.1"),
        ("training.warmup_steps=2", "warmup_steps"),
    ):
        with pytest.raises(UserError, match=named):
            run_tiny("run", *short, "training.resume_from_checkpoint=true", change)
    assert (tmp_path / "run/config.yaml").read_text() == config
    # what is written as the default, and what the run's own config says, is no change
    run_tiny(
        "run",
        *short,
        "training.resume_from_checkpoint=true",
        "training.lr_scheduler_kwargs={min_lr_rate: 0.1}",
    )
