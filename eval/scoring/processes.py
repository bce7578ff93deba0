"""Work shared among the processes of `torchrun`, each with the whole model.

rows = spread(probes, ask)  # every process gets all rows, in the order of the probes
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
    other device is returned unchanged, and so is every device without other processes.

    Raises UserError for a launcher that is not supported, and where not all processes are found.
    """
    check_launcher()
    if launched_processes() == 1 or (dist.is_available() and dist.is_initialized()):
        return device
    from accelerate import PartialState

    check_devices()
    # the others wait while the first one runs benchmarks
    state = PartialState(cpu=device == "cpu" or needs_cpu(), timeout=timedelta(days=7))
    check_processes(state.num_processes)
    return str(state.device) if device in (None, "auto") else device


def process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number; the first one, 0, is the one to write files and speak to people."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def spread(tasks: Sequence[Task], run: Callable[[list[Task]], list[Result]]) -> list[Result]:
    """`run` every process's share of `tasks`; all results, in the order of `tasks`, on every process.

    `run` gets a list and returns one picklable result for each of it. All processes must call this with
    the same tasks. What goes wrong in one is raised in all of them; one that dies takes the others with it,
    as their connections to it break.
    """
    join_processes()
    count, rank = process_count(), process_rank()
    if count == 1:
        return run(list(tasks))
    own: list[Result] = []
    error: Exception | None = None
    try:
        own = run(list(tasks[rank::count]))
    except Exception as caught:  # raised below: here it would leave the others waiting
        error = caught
    told: list[Any] = [None] * count
    kind = type(error) if isinstance(error, UserError | RunFailed) else None
    dist.all_gather_object(told, (own, None if error is None else (kind, str(error))))
    if error is not None:
        raise error
    for number, (_, failure) in enumerate(told):
        if failure is not None:
            kind, text = failure
            if kind is None:
                raise RuntimeError(f"process {number} failed: {text}")
            told_there = kind(text)
            told_there.is_told = True
            raise told_there
    results: list[Any] = [None] * len(tasks)
    for number, (share, _) in enumerate(told):
        results[number::count] = share
    return results


def in_first_process(run: Callable[[], Result]) -> Result:
    """Call `run` in the first process only. Every process returns its result, or raises its error."""
    return spread([None], lambda tasks: [run() for _ in tasks])[0]
