"""Who may write to a run folder, and what state every step of its layout leaves it in."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tidy_stlms.configs.errors import RunFailed, UserError
from tidy_stlms.configs.files import read_json
from tidy_stlms.eval.run_folder import LOCK, REPLACED, is_run
from tidy_stlms.trainers.layout import check_folder, check_place, locked
from tidy_stlms.trainers.trainer import STLMTrainer

START = (
    "training.max_steps=4",
    "injection.exposures=2",
    "training.save_strategy='no'",
    "evaluation.recall_steps=0",
)


def test_a_folder_that_another_process_writes_to_is_refused(tmp_path, run_tiny):
    holder = (
        "import sys, time; from pathlib import Path; from tidy_stlms.trainers.layout import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    for flag in ("training.resume_from_checkpoint=true", "training.resume_from_checkpoint=null"):
        with pytest.raises(UserError, match="another `stlm train` is writing there"):
            run_tiny("run", flag)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(tmp_path / "run") == [LOCK]
    run_tiny("run", *START)


def test_links_are_followed_and_those_that_lead_nowhere_are_refused(tmp_path, run_tiny):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    run_tiny("link", *START)
    assert is_run(tmp_path / "elsewhere")
    run_tiny("link", *START, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert is_run(tmp_path / "elsewhere")
    (tmp_path / "inside").symlink_to(tmp_path / "elsewhere/deeper")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").symlink_to(tmp_path / "tiny.yaml")
    for name, message in {
        "inside": "is a link to",
        "dangling": "which does not exist",
        "circle": "symbolic links",
        "file": "is a file",
        "x" * 300: "too long",
    }.items():
        for overwrite in (False, True):
            with pytest.raises(UserError, match=message) as error:
                check_place(tmp_path / name, resume=False, overwrite=overwrite)
            assert str(error.value).startswith("training.output_dir=")
    (tmp_path / "elsewhere/deeper").mkdir()
    with pytest.raises(UserError, match="lies inside the run"):
        check_place(tmp_path / "inside", resume=False, overwrite=False)


def test_the_lock_goes_with_its_process_though_a_forked_worker_lives_on(tmp_path):
    holder = (
        "import os, sys, time; from pathlib import Path; from tidy_stlms.trainers.layout import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    worker = os.fork()\n"
        "    print(worker, flush=True) if worker else None\n"
        "    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline())
    time.sleep(0.2)  # the worker is at its sleep
    process.kill()
    process.wait()
    try:
        with locked(tmp_path / "run") as is_ours:
            assert is_ours()
            assert os.kill(worker, 0) is None  # it lives
    finally:
        os.kill(worker, signal.SIGKILL)


def test_what_ends_before_the_layout_leaves_nothing(tmp_path, run_tiny):
    with pytest.raises(UserError):
        run_tiny("run", "facts.overrides={people: 0}")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError):
        run_tiny("run", "facts.overrides={people: 0}")
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize(
    "left",
    [
        [LOCK],
        [LOCK, "environment.json"],
        [LOCK, "environment.json", "plan.parquet", ".config.yaml.01234567-1-0123abcd.tmp"],
        [LOCK, REPLACED, "config.json", "notes.txt", "checkpoint-8"],
    ],
)
@pytest.mark.parametrize("flag", ["plain", "overwrite", "resume"])
def test_what_a_killed_layout_or_removal_leaves_is_nothing_yet(tmp_path, run_tiny, left, flag):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).mkdir() if name.startswith("checkpoint") else (folder / name).write_text("{}")
    extra = ("training.resume_from_checkpoint=true",) if flag == "resume" else ()
    run_tiny("run", *START, *extra, overwrite=flag == "overwrite")
    assert is_run(folder)
    assert not {"notes.txt", REPLACED, "checkpoint-8"} & set(os.listdir(folder))
    assert [name for name in os.listdir(folder) if name.startswith(".")] == [LOCK]


@pytest.mark.parametrize("left", [["notes.txt"], ["config.yaml", "notes.txt"], [LOCK, "notes.txt"]])
def test_what_no_run_has_left_is_never_removed(tmp_path, run_tiny, left):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("{}")
    for arguments in ({}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds files that are not of a run"):
            run_tiny("run", *START, **arguments)
    with pytest.raises(UserError, match="holds files that are not of a run"):
        run_tiny("run", *START, "training.resume_from_checkpoint=true")
    assert sorted(os.listdir(folder)) == sorted(left)


def test_a_run_is_replaced_or_gone_on_with_only_on_request(run_tiny):
    folder = run_tiny("run", *START)
    first = read_json(folder / "environment.json")["run_id"]
    with pytest.raises(UserError, match=r"pass --overwrite to replace it, or .*resume_from_checkpoint=true"):
        run_tiny("run", *START)
    with pytest.raises(UserError, match="contradict each other"):
        check_folder(folder, resume=True, overwrite=True)
    (folder / "notes.txt").write_text("old")
    run_tiny("run", *START, overwrite=True)
    assert not (folder / "notes.txt").exists()
    assert read_json(folder / "environment.json")["run_id"] != first


def test_a_run_that_lost_its_config_is_said_so(run_tiny):
    folder = run_tiny("run", *START)
    (folder / "config.yaml").unlink()
    for arguments in ({}, {"overwrite": True}):
        with pytest.raises(UserError, match=r"run/config.yaml: is missing.*restore the file"):
            run_tiny("run", *START, **arguments)
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_folder_was_taken_away_stops_and_writes_nothing_there(
    run_tiny, tmp_path, monkeypatch, replaced
):
    folder = tmp_path / "run"

    def step(self, *args, original=STLMTrainer.training_step, **kwargs):
        if self.state.global_step == 2:
            shutil.rmtree(folder)
            if replaced:
                folder.mkdir()
                (folder / LOCK).touch()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(STLMTrainer, "training_step", step)
    with pytest.raises(RunFailed, match=r"step 3: .*run was removed or replaced while the run went on"):
        run_tiny("run", *START, "training.logging_steps=1")
    assert (os.listdir(folder) if folder.exists() else None) == ([LOCK] if replaced else None)


def test_a_run_inside_a_run_is_refused(run_tiny):
    folder = run_tiny("run", *START)
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError, match=r"checkpoint-16: lies inside the run .*run; take another folder"):
        run_tiny("run/checkpoint-16", *START)
    assert sorted(os.listdir(folder)) == before
