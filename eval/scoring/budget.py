"""How much goes through a model at once, and what happens when that is too much for its memory.

Budgets count tokens, not rows: the memory and the time of a forward pass grow with rows x tokens, and probes
are of very different lengths.
"""

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

# Measured with 50M parameters on one thread: 4096 were no faster, 1024 up to a tenth slower.
CPU_BATCH_TOKENS = 2048
# The fixed cost of a forward pass, which reads all weights, as a number of tokens that cost as much.
CPU_PASS_TOKENS, ACCELERATOR_PASS_TOKENS = 48, 4096
# Fewer tokens leave an accelerator idle; more make it no faster.
LEAST_BATCH_TOKENS, MOST_BATCH_TOKENS = 2048, 32768
MEMORY_SHARE = 0.25  # of the free memory, for one batch

MAX_LOGITS = 2**26  # numbers; logits are the largest tensor of a small model, here 256 MB in float32
MAX_CACHE_BYTES = 2**28  # keys and values repeated for the answers of a batch

# Messages of errors other than torch.OutOfMemoryError: the CPU's allocator on Linux and elsewhere, and MPS.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass
class Budget:
    """The limits of a batch. Memory and speed depend on them, numbers do not."""

    tokens: int
    """Padding included."""
    logits: int
    """Numbers: positions whose logits are kept, times the vocabulary."""
    cache_bytes: int
    """Bytes of the repeated keys and values."""
    pass_tokens: int
    """Cost of one more forward pass, in tokens. Batches whose padding costs more are cut."""

    def halve(self) -> None:
        """Allow half as much, for all batches that are filled from now on."""
        self.tokens = max(1, self.tokens // 2)
        self.logits = max(1, self.logits // 2)
        self.cache_bytes = max(1, self.cache_bytes // 2)


def default_batch_tokens(model: Any) -> int:
    """Tokens of a batch, padding included: by device, on accelerators by their free memory."""
    free = _free_bytes(model.device)
    if free is None:
        return CPU_BATCH_TOKENS
    fitting = int(MEMORY_SHARE * free / _bytes_of_a_token(model))
    return min(max(fitting, LEAST_BATCH_TOKENS), MOST_BATCH_TOKENS)


def default_budget(model: Any, batch_tokens: int | None = None) -> Budget:
    """The budget for a model on its device, with `batch_tokens` tokens if they are given."""
    return Budget(
        tokens=batch_tokens or default_batch_tokens(model),
        logits=MAX_LOGITS,
        cache_bytes=MAX_CACHE_BYTES,
        pass_tokens=CPU_PASS_TOKENS if model.device.type == "cpu" else ACCELERATOR_PASS_TOKENS,
    )


def run_batches(batches: Sequence[list[T]], run: Callable[[list[T]], None], budget: Budget) -> None:
    """Call `run` with every batch. If memory runs out, cut all remaining batches in halves and go on.

    `run` then gets the rows of the failed batch again. It may have processed some of them, so it must allow
    repetition. `budget` is halved too, for batches that are filled later. If a batch of one row does not fit,
    its error is raised.
    """
    remaining = list(reversed(batches))
    while remaining:
        batch = remaining.pop()
        if _fits(run, batch):
            continue
        budget.halve()
        logger.warning("out of memory: going on with batches of %d tokens", budget.tokens)
        # all remaining batches: they are of similar size, so each would run out of memory again
        remaining = [half for each in (*remaining, batch) for half in _halves(each)]


@contextlib.contextmanager
def memory_errors(model: Any) -> Iterator[None]:
    """Turn an out-of-memory error inside the block into a UserError: not even a batch of one row fits."""
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
    """Whether the error says that an allocation failed, on any device."""
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
    # outside of `except`: the error holds the frames of the failed call, and they hold its tensors
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


def _halves(batch: list[T]) -> list[list[T]]:
    """The halves of a batch, the last one first: remaining batches are taken from the end."""
    middle = (len(batch) + 1) // 2
    return [half for half in (batch[middle:], batch[:middle]) if half]


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator; None for a CPU and for devices that do not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def _bytes_of_a_token(model: Any) -> int:
    """A rough upper bound of the memory for one token: a few tensors of the feed-forward's width, and the
    keys and values of all layers."""
    config = text_config(model)
    width = getattr(config, "hidden_size", None) or 4096
    layers = getattr(config, "num_hidden_layers", None) or 32
    return model.dtype.itemsize * width * (32 + 2 * layers)
