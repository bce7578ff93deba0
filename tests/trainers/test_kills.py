"""A run killed at any of its file operations goes on, is replaced, and nothing of it is lost.

Here every tenth operation of a fresh run; `make fuzz` kills at all of them, and in other situations.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.trainers.killed import Child
from tests.trainers.kills import differences
from tests.trainers.operations import Kill, Operations

ROOT = Path(__file__).parents[2]


def test_a_run_killed_at_a_file_operation_loses_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "first", "--every", "20", "--jobs", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "resumed equal" in result.stdout


def write_and_rename(folder: Path) -> None:
    """Six operations: two opens for writing, one of torch's writer, a rename, a folder made and removed."""
    (folder / "log").write_bytes(b"0123")
    with (folder / "log").open("ab") as log:
        log.write(b"456789")
    torch.save(torch.zeros(9), folder / "temporary")
    os.replace(folder / "temporary", folder / "tensors")
    (folder / "below").mkdir()
    shutil.rmtree(folder / "below")


@pytest.mark.parametrize(
    ("kill", "left"),
    [
        (Kill(1), {}),
        (Kill(1, "begun"), {"log": b""}),
        (Kill(1, "half"), {"log": b"01"}),
        (Kill(2), {"log": b"0123"}),
        (Kill(2, "begun"), {"log": b"0123"}),
        (Kill(2, "half"), {"log": b"0123456"}),
        (Kill(3, "begun"), {"log": b"0123456789", "temporary": b""}),
    ],
)
def test_a_kill_leaves_what_the_operations_before_it_made(tmp_path, kill, left):
    folder = tmp_path / "run"
    folder.mkdir()

    def action(report):
        Operations([folder], kill, report).watch()
        write_and_rename(folder)

    outcome = Child(action, tmp_path / "output").wait()
    assert outcome.end == "killed"
    assert f"operation {kill.number}, open run/" in outcome.killed_at
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left


def test_the_operations_of_a_process_are_counted(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def action(report):
        operations = Operations([folder], None, report)
        operations.watch()
        (tmp_path / "elsewhere").write_text("not counted")
        folder.mkdir(exist_ok=True)  # changes nothing
        write_and_rename(folder)
        operations.finish()

    outcome = Child(action, tmp_path / "output").wait()
    assert outcome.end == "finished", outcome.message
    found = [(operation.name, operation.path) for operation in outcome.operations.values()]
    assert found == [
        ("open", "run/log"),
        ("open", "run/log"),
        ("open", "run/temporary"),
        ("rename", "run/temporary"),
        ("mkdir", "run/below"),
        ("rmdir", "run/below"),
    ]
    assert [operation.grown for operation in outcome.operations.values()][:2] == [4, 6]


def lay_out(folder: Path) -> Path:
    folder.mkdir()
    save_file({"weight": torch.ones(4)}, folder / "model.safetensors")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "tokens_per_second": 9.0}\n{"step": 2}\n')
    (folder / "summary.json").write_text('{"loss": 2.5, "tokens_per_second": 9.0}')
    (folder / "plan.parquet").write_bytes(b"plan")
    return folder


def flip_a_bit(folder):
    save_file({"weight": torch.tensor([1, 1, 1, 1 + 2**-23])}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "kind", "file"),
    [
        (flip_a_bit, "bits lost", "model.safetensors"),
        (
            lambda f: (f / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n'),
            "bits lost",
            "metrics.jsonl",
        ),
        (lambda f: (f / "plan.parquet").write_bytes(b"pla"), "bits lost", "plan.parquet"),
        (lambda f: (f / "plan.parquet").unlink(), "files lost", "plan.parquet"),
        (lambda f: (f / ".plan.parquet.x1").touch(), "left over", ".plan.parquet.x1"),
        (lambda f: (f / "plan.parquet").chmod(0o600), "other permissions", "plan.parquet"),
    ],
)
def test_what_a_kill_has_changed_is_found(tmp_path, change, kind, file):
    whole, run = lay_out(tmp_path / "whole"), lay_out(tmp_path / "run")
    (run / "summary.json").write_text('{"loss": 2.5, "tokens_per_second": 8.0}')
    (run / ".run.lock").touch()
    assert list(differences(run, whole)) == []  # timings and the lock may differ
    change(run)
    [(found, detail)] = differences(run, whole)
    assert (found, detail.split(":")[0]) == (kind, file)
