"""How much goes through a model at once, and what happens where that was too much."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import text_config

logger = logging.getLogger(__name__)

T = TypeVar("T")

# On a CPU twice as many were no faster, half as many up to a tenth slower. (50M parameters, one thread)
CPU_BATCH_TOKENS = 2048
# One more forward pass took as long there as so many tokens more: it reads all weights once more.
CPU_PASS_TOKENS = 48
# An accelerator needs more to be busy, and is at some point busy enough.
LEAST_BATCH_TOKENS, MOST_BATCH_TOKENS = 2048, 32768
MEMORY_SHARE = 0.25  # of what is free, for one batch

MAX_LOGITS = 2**26  # numbers; the largest tensor of a small model, 256 MB in float32
MAX_CACHE_BYTES = 2**28  # keys and values repeated for the answers of a batch

# Besides torch.OutOfMemoryError: the CPU's allocator on Linux and on others, MPS, the other accelerators.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass
class Budget:
    """What a batch may take. Memory and speed depend on it, numbers do not."""

    tokens: int
    """Padding included."""
    logits: int = MAX_LOGITS
    """Numbers: positions whose logits are kept, times the vocabulary."""
    cache_bytes: int = MAX_CACHE_BYTES
    pass_tokens: int = 4096
    """What one more forward pass costs, in tokens: where padding costs more, batches are cut."""

    def halve(self) -> None:
        self.tokens = max(1, self.tokens // 2)
        self.logits = max(1, self.logits // 2)
        self.cache_bytes = max(1, self.cache_bytes // 2)


def default_batch_tokens(model: Any) -> int:
    """Tokens of a batch where nobody says how many: by device, on accelerators by their free memory."""
    free = _free_bytes(model.device)
    if free is None:
        return CPU_BATCH_TOKENS
    fitting = int(MEMORY_SHARE * free / _bytes_of_a_token(model))
    return min(max(fitting, LEAST_BATCH_TOKENS), MOST_BATCH_TOKENS)


def default_budget(model: Any, batch_tokens: int | None = None) -> Budget:
    """The budget of that many tokens, or of as many as suit the device."""
    budget = Budget(batch_tokens or default_batch_tokens(model))
    if model.device.type == "cpu":
        budget.pass_tokens = CPU_PASS_TOKENS
    return budget


def run_batches(batches: Sequence[list[T]], run: Callable[[list[T]], None], budget: Budget) -> None:
    """`run` every batch; where the memory does not suffice, cut what is left in halves and try again.

    `run` may so be called twice for the same work. `budget` is halved too, for batches that are filled
    later. The error of a batch of one is the caller's.
    """
    left = list(reversed(batches))
    while left:
        batch = left.pop()
        if _fits(run, batch):
            continue
        budget.halve()
        logger.warning("out of memory: going on with batches of %d tokens", budget.tokens)
        left = [half for one in (*left, batch) for half in _halves(one)]


@contextlib.contextmanager
def one_line_where_memory_ends(model: Any) -> Iterator[None]:
    """UserError where not even a batch of one fits."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory on {model.device}: not even one text fits beside the model; free some memory, or "
            "take another --device or a narrower --dtype"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)


def _fits(run: Callable[[list[T]], None], batch: list[T]) -> bool:
    try:
        run(batch)
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    else:
        return True
    # outside of `except`, for the error holds the frames, and those the tensors
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


def _halves(batch: list[T]) -> list[list[T]]:
    """Last half first, as the batches left are taken from the end."""
    middle = (len(batch) + 1) // 2
    return [half for half in (batch[middle:], batch[:middle]) if half]


def _free_bytes(device: torch.device) -> int | None:
    """Memory that an accelerator has left; None for a CPU, and where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def _bytes_of_a_token(model: Any) -> int:
    """A rough upper bound: a few tensors as wide as the feed-forward, and keys and values of all layers."""
    config = text_config(model)
    width = getattr(config, "hidden_size", None) or 4096
    layers = getattr(config, "num_hidden_layers", None) or 32
    return model.dtype.itemsize * width * (32 + 2 * layers)
