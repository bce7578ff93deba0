"""Probes shared among processes: two of them say what one says, and none waits for one that is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.scoring.processes import process_count, process_rank, spread

PROCESSES = 2


def ask() -> list[dict]:
    tokenizer = tiny.byte_level(bos=True)
    model, bank = tiny.llama(len(tokenizer)), tiny.bank(people=3)
    return msgspec.to_builtins(evaluate_recall(model, tokenizer, bank, spread=True, top_k=2))


def fail(share: list[int]) -> list[int]:
    if process_rank() == 1:
        raise UserError("probe p7: cannot be asked")
    return share


def crash(share: list[int]) -> list[int]:
    if process_rank() == 1:
        raise ZeroDivisionError("half way")
    return share


def die(share: list[int]) -> list[int]:
    if process_rank() == 1:
        os._exit(9)
    return share


def outcome(run) -> list:
    try:
        return ["done", spread([1, 2, 3], run)]
    except Exception as error:
        return [type(error).__name__, str(error)]


def worker(meeting: str, rank: str, out: str) -> None:
    """What each of the processes does."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=PROCESSES)
    told = {
        "rows": ask(),
        "few": spread(["only"], lambda share: [(text, process_rank()) for text in share]),
        "count": process_count(),
        "fail": outcome(fail),
        "crash": outcome(crash),
        "after": outcome(lambda share: share),
    }
    Path(out).write_text(json.dumps(told))
    told["die"] = outcome(die)
    Path(out).write_text(json.dumps(told))
    os._exit(0)  # without a goodbye to the process that is gone


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[dict]:
    """What the processes report, by rank; and the first one ends although the second one dies."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.eval.scoring.test_processes", str(folder / "meeting")]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(folder / f"{rank}.json")],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        errors = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 9], errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


def test_one_process_needs_no_meeting():
    assert (process_count(), process_rank()) == (1, 0)
    assert spread([1, 2, 3], lambda share: [2 * number for number in share]) == [2, 4, 6]


def test_two_processes_give_the_rows_of_one(told):
    tokenizer = tiny.byte_level(bos=True)
    model, bank = tiny.llama(len(tokenizer)), tiny.bank(people=3)
    expected = msgspec.to_builtins(evaluate_recall(model, tokenizer, bank, top_k=2))
    first, second = told
    assert first["rows"] == second["rows"]
    assert (first["count"], second["count"]) == (PROCESSES, PROCESSES)
    assert [row["probe_id"] for row in first["rows"]] == [row["probe_id"] for row in expected]
    for found, row in zip(first["rows"], expected, strict=True):
        for key, value in row.items():
            if isinstance(value, float) or key == "candidate_logprobs":
                assert found[key] == pytest.approx(value, abs=1e-4, rel=1e-5), key
            elif key == "top_tokens":
                assert [text for text, _ in found[key]] == [text for text, _ in value]
            else:
                assert found[key] == (list(value) if isinstance(value, tuple) else value), key


def test_a_process_without_a_share(told):
    assert [one["few"] for one in told] == [[["only", 0]]] * PROCESSES


def test_what_fails_in_one_fails_in_all(told):
    users = ["UserError", "probe p7: cannot be asked"]
    assert [one["fail"] for one in told] == [users, users]
    others = ["RuntimeError", "process 1 failed: half way"]
    assert [one["crash"] for one in told] == [others, ["ZeroDivisionError", "half way"]]
    assert [one["after"] for one in told] == [["done", [1, 2, 3]]] * PROCESSES  # nobody is out of step


def test_a_process_that_dies_is_not_waited_for(told):
    kind, _ = told[0]["die"]
    assert kind not in ("done", "UserError")  # whatever the broken connection says
    assert "die" not in told[1]


if __name__ == "__main__":
    worker(*sys.argv[1:])
