"""The training stream: which row of the corpus stands at which position of training.

Positions number the rows of the whole run from 0, over all processes, accumulation steps and passes. The row
at a position is a pure function of the seed and the position. Positions are global so that the plan can say
in advance what a step sees: a number within a process or a pass would mean another row with more processes,
or after a resume.

The Trainer reads positions in order, as one long epoch. Its own shuffling is off: it would depend on random
state that a resume has to restore. Passes over the corpus are shuffled here instead.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


class Blocks:
    """Rows of `context_window` tokens over a flat file of token ids; tokens after the last row are left out.

    The file is memory-mapped at the first read and not before, so that each dataloader worker opens its own.
    """

    def __init__(self, path: str | Path, dtype: str, context_window: int):
        self.path, self.dtype, self.context_window = Path(path), np.dtype(dtype), context_window
        self._tokens: np.ndarray | None = None
        self._length = self.path.stat().st_size // self.dtype.itemsize // context_window

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:  # (context_window,) int64
        if self._tokens is None:
            self._tokens = np.memmap(self.path, dtype=self.dtype, mode="r")
        start = index * self.context_window
        return self._tokens[start : start + self.context_window].astype(np.int64)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_tokens": None}  # a pickled memmap would carry the whole corpus


@dataclass(frozen=True)
class RowCounts:
    """Numbers of rows: of an optimizer step, of a pass over the corpus, and of the whole run."""

    per_step: int
    """Over all processes and accumulation steps together."""
    per_pass: int
    total: int
    """max_steps x per_step; more or fewer than whole passes."""


@dataclass(frozen=True)
class Geometry:
    """How positions map to optimizer steps; a resumed run must have the same one."""

    rows_per_step: int
    """Rows over all processes and accumulation steps together."""
    context_window: int
    """Tokens of a row."""
    seed: int
    """Decides the order of the rows in each pass."""
    rows_per_pass: int
    """Rows of the corpus."""
    corpus: str
    """Key of the prepared corpus."""
    injection: str | None
    """Hash of the plan, its statements' tokens and their placement; null without injection."""
    model: str
    """Hash of the model's tensors by name and shape."""
    packing: str
    """How the documents of a row are read: `apart`, each by itself, or `joined`. Old files lack it."""


class TrainingStream(torch.utils.data.Dataset):
    """Map-style dataset whose index is the position in training.

    `stream[p]` is `{"input_ids": (context_window,) int64, "position": p}`. Pass k visits every row
    once, in an order drawn from (seed, k).
    """

    def __init__(self, blocks: Blocks, total_rows: int, seed: int):
        self.blocks, self.total_rows, self.seed = blocks, total_rows, seed
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.total_rows

    def __getitem__(self, position: int) -> dict:
        if not 0 <= position < self.total_rows:
            raise IndexError(position)
        pass_number, offset = divmod(position, len(self.blocks))
        if pass_number != self._pass:  # positions come in order, so one pass's order is enough to keep
            self._order = np.random.default_rng([self.seed, pass_number]).permutation(len(self.blocks))
            self._pass = pass_number
        return {"input_ids": self.blocks[int(self._order[offset])], "position": position}


class ValidationRows(torch.utils.data.Dataset):
    """At most `limit` held-out rows, evenly spaced; without positions, so nothing is injected."""

    def __init__(self, blocks: Blocks, limit: int):
        self.blocks = blocks
        count = min(limit, len(blocks))
        self.rows = (np.arange(count) * len(blocks) // max(count, 1)).tolist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.blocks[self.rows[index]]}
