"""Shares work among the processes of `torchrun`, each of which has the whole model.

results = spread(probes, evaluate)  # every process gets all results, in the order of the probes
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from tidy_stlms.configs.errors import RunFailed, UserError
from tidy_stlms.configs.processes import (
    check_devices,
    check_launcher,
    check_processes,
    launched_processes,
    needs_cpu,
)

Task = TypeVar("Task")
Result = TypeVar("Result")


def join_processes(device: str | None = None) -> str | None:
    """Join the processes that a launcher started, and return the device of this one.

    With `device` None or "auto", each process gets its own accelerator, or the CPU if there is none. Any
    other device is returned unchanged, and so is every device if there is only one process.

    Raises UserError for a launcher that is not supported, and if processes are missing.
    """
    check_launcher()
    if launched_processes() == 1 or (dist.is_available() and dist.is_initialized()):
        return device
    from accelerate import PartialState

    check_devices()
    # the other processes wait while the first runs benchmarks: the default timeout of minutes is too short
    state = PartialState(cpu=device == "cpu" or needs_cpu(), timeout=timedelta(days=7))
    check_processes(state.num_processes)
    return str(state.device) if device in (None, "auto") else device


def process_count() -> int:
    """The number of processes that share the work; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number, from 0. Only process 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def spread(tasks: Sequence[Task], run: Callable[[list[Task]], list[Result]]) -> list[Result]:
    """Run each process's share of `tasks`; every process returns all results, in the order of `tasks`.

    `run` gets a list of tasks and returns one picklable result for each. All processes must call this with
    the same tasks. An error in one process is raised in all of them. If a process dies, the others fail too,
    since their connections to it break.
    """
    join_processes()
    count, rank = process_count(), process_rank()
    if count == 1:
        return run(list(tasks))
    share: list[Result] = []
    error: Exception | None = None
    try:
        share = run(list(tasks[rank::count]))
    except Exception as caught:  # raised after the exchange: the other processes wait for this one there
        error = caught
    outcomes: list[Any] = [None] * count
    error_type = type(error) if isinstance(error, UserError | RunFailed) else None
    dist.all_gather_object(outcomes, (share, None if error is None else (error_type, str(error))))
    if error is not None:
        raise error
    for process, (_, failure) in enumerate(outcomes):
        if failure is not None:
            error_type, text = failure
            if error_type is None:
                raise RuntimeError(f"process {process} failed: {text}")
            copied_error = error_type(text)
            copied_error.is_told = True  # the process that failed prints the line
            raise copied_error
    results: list[Any] = [None] * len(tasks)
    for process, (process_results, _) in enumerate(outcomes):
        results[process::count] = process_results
    return results


def in_first_process(run: Callable[[], Result]) -> Result:
    """Call `run` in process 0 only. Every process returns its result, or raises its error."""
    return spread([None], lambda tasks: [run() for _ in tasks])[0]
