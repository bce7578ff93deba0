"""Ctrl-C and SIGTERM end a run at the next step boundary, with a checkpoint."""

import contextlib
import logging
import signal
from collections.abc import Iterator

import torch
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class StopRequested:
    """Whether the user, or a cluster's scheduler, has asked the run to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def catch_signals() -> Iterator[StopRequested]:
    """Turn the first SIGINT or SIGTERM into a request; a second one ends the process at once, as usual."""
    request = StopRequested()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number, frame):
        request.signal = number
        logger.warning("stopping after this step, with a checkpoint; once more to stop at once")
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopCallback(TrainerCallback):
    """Saves and stops at the end of a step after any process has got a signal."""

    def __init__(self, request: StopRequested, accelerator):
        self.request, self.accelerator = request, accelerator
        self.stopped_early = False

    def on_step_end(self, args, state, control, **kwargs):
        must_stop = bool(self.request)
        if self.accelerator.num_processes > 1:  # signals reach the processes at different steps
            flag = torch.tensor([float(must_stop)], device=self.accelerator.device)
            must_stop = self.accelerator.reduce(flag, "sum").item() > 0
        if must_stop and state.global_step < state.max_steps:
            self.stopped_early = True
            control.should_save = True
            control.should_training_stop = True
        return control
