"""The launcher's number of processes must be the number that this process knows of."""

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.processes import (
    UNSUPPORTED_VARIABLES,
    WORLD_SIZE_VARIABLES,
    check_devices,
    check_processes,
    launched_processes,
    needs_cpu,
)
from tidy_stlms.scripts.__main__ import main


@pytest.mark.parametrize("name", WORLD_SIZE_VARIABLES)
def test_a_launcher_whose_processes_do_not_find_each_other_is_refused(monkeypatch, name):
    check_processes(1)
    monkeypatch.setenv(name, "2")
    assert launched_processes() == 2
    with pytest.raises(
        UserError, match=r"2 processes were started .* 1 are joined .* counts 1: .* `torchrun"
    ):
        check_processes(1)


def test_a_process_group_of_another_size_is_refused(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    check_processes(2)  # joined by hand, and known to all
    with pytest.raises(UserError, match="2 are joined"):
        check_processes(1)


def test_processes_share_the_cpu_where_there_is_no_accelerator(monkeypatch):
    """accelerate makes a process group on a CPU only where it is told to."""
    for available, launched, expected in ((False, 2, True), (True, 2, False), (False, 1, False)):
        monkeypatch.setattr("torch.accelerator.is_available", lambda available=available: available)
        monkeypatch.setenv("WORLD_SIZE", str(launched))
        assert needs_cpu() is expected


def test_a_size_without_a_launcher_is_one_line(monkeypatch, tiny, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for arguments in (["train", *tiny("run")], ["recall", "model", "--facts", "bank"]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "unset WORLD_SIZE, or start them with `torchrun" in error


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for gpus in (0, 2):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        check_devices()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(
        UserError, match="2 processes on this machine, which has 1 GPU: start as many as there are"
    ):
        check_devices()


@pytest.mark.parametrize("name", UNSUPPORTED_VARIABLES)
def test_ways_of_training_that_are_not_supported_are_refused_in_the_environment(
    monkeypatch, tiny, tmp_path, capsys, name
):
    monkeypatch.setenv(name, "true")
    for arguments in (["train", *tiny("run")], ["recall", str(tmp_path), "--facts", str(tmp_path)]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{name}=true: not supported" in error


def test_the_environment_does_not_change_the_precision_unseen(monkeypatch, tiny, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert main(["train", *tiny("run")]) == 2
    assert (
        "ACCELERATE_MIXED_PRECISION=bf16: is not in the config; set training.bf16=true"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert main(["train", *tiny("run"), "--dry-run"]) == 0
