"""Stacks rows of the corpus to batches, and puts in the statements that the plan has for them.

    in   [{"input_ids": (T,), "position": 7}, {"input_ids": (T,), "position": 8}, ...]
    out  {"input_ids": (B, T), "labels": (B, T), "position_ids": (B, T)}    packing: apart
         {"input_ids": (B, T), "labels": (B, T)}                            packing: joined, placement: splice
         {"input_ids": (B, T), "labels": (B, T), "attention_mask": (B, T)}  packing: joined, placement: row

With `apart`, no batch has an attention mask: models read restarting `position_ids` only without one.

What a row becomes depends on the seed and the row's position only. With a generator shared by all rows, it
would also depend on which rows the process had seen before: another number of processes or workers, or a
resume, would splice at other places.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tidy_stlms.trainers.packing import APART, Packing, document_positions
from tidy_stlms.trainers.plan import SEPARATORS, InjectionPlan


class InjectionCollator:
    """Stacks rows and puts the planned statements into them.

    Rows without a `position` (validation) are never changed. `splice` puts a statement between
    end-of-text tokens at a document boundary of the row, or at a random index if the row has none;
    the text after it moves to the right, and what no longer fits into the row is lost. `row` replaces the
    row by the statement alone. The loss ignores the padding; attention does too, or reads it as a document
    of its own (`apart`).

    Args:
        plan: Which statements stand at which position; None changes nothing.
        statement_tokens: The token ids of each planned statement, without end-of-text.
        pad_token_id: For `row`; end-of-text where the tokenizer has none.
        placement: `splice` or `row`.
        seed: Decides where a statement is spliced in.
        packing: How the documents of a row are read.
    """

    def __init__(
        self,
        plan: InjectionPlan | None = None,
        statement_tokens: Mapping[str, Sequence[int]] | None = None,
        *,
        eos_token_id: int,
        pad_token_id: int | None = None,
        placement: str = "splice",
        seed: int = 0,
        packing: Packing = Packing(),  # noqa: B008  frozen
    ):
        self.statements = plan.by_position if plan else {}
        self.statement_tokens = {
            key: np.asarray(tokens, dtype=np.int64) for key, tokens in (statement_tokens or {}).items()
        }
        self.eos = eos_token_id
        self.pad = eos_token_id if pad_token_id is None else pad_token_id
        self.placement, self.seed, self.packing = placement, seed, packing

    @property
    def key(self) -> str:
        """A hash of all that decides which tokens the rows hold. A resume with another one is refused."""
        tokens = sorted((key, ids.tolist()) for key, ids in self.statement_tokens.items())
        planned = sorted(self.statements.items())
        rules = [self.placement, self.seed, self.eos, tokens, planned]
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()

    def __call__(self, rows: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        tokens = np.stack([row["input_ids"] for row in rows])  # (batch, seq)
        lengths = np.full(len(rows), tokens.shape[1])
        for i, row in enumerate(rows):
            statement_ids = self.statements.get(row.get("position", -1))
            if not statement_ids:
                continue
            statements = [self.statement_tokens[s] for s in statement_ids]
            if self.placement == "splice":
                # the plan draws from [seed, 0] to [seed, 2]: another number keeps these draws independent
                rng = np.random.default_rng([self.seed, 3, row["position"]])
                tokens[i] = splice(tokens[i], statements, self.eos, rng)
            else:
                # the plan puts at most one statement into a row here: nothing stands beside it
                alone = np.concatenate([[self.eos], statements[0], [self.eos]])
                lengths[i] = len(alone)
                tokens[i] = np.pad(alone, (0, tokens.shape[1] - len(alone)), constant_values=self.pad)
        input_ids = torch.from_numpy(tokens)
        batch = {"input_ids": input_ids, "labels": input_ids.clone()}
        index, ends = torch.arange(tokens.shape[1]), torch.from_numpy(lengths)[:, None]
        mask = index < ends  # (batch, seq)
        # by length, not by id: padding may be end-of-text, and the statement's own end is learned
        batch["labels"][~mask] = -100
        if self.packing.name == APART:
            # padding counts from 0: it is a document of its own
            positions = document_positions(input_ids, self.eos)
            batch["position_ids"] = torch.where(mask, positions, index - ends)
        elif self.placement == "row" and self.statements:
            batch["attention_mask"] = mask.long()
        return _as_one_row(batch) if self.packing.one_row else batch


def _as_one_row(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with its rows one after the other, (1, batch x seq); none predicts the next one's start."""
    batch["labels"][:, 0] = -100
    return {name: tensor.reshape(1, -1) for name, tensor in batch.items()}


def splice(
    row: np.ndarray, statements: Sequence[np.ndarray], eos: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `row` (seq,) with each statement (tokens,) between two `eos`, cut to the same length.

    Statements go to boundaries between documents (after an `eos`), so that no document is split and a
    statement reads as a document of its own. Only boundaries that leave room for all statements before the
    row's end count; if there are none, indices are random. So a statement is never cut off.

    The statements and two `eos` each must fit into the row; the plan has checked that.
    """
    # the last index at which all statements still fit
    last = len(row) - sum(len(statement) + SEPARATORS for statement in statements)
    boundaries = np.flatnonzero(row[:last] == eos) + 1 if last > 0 else np.empty(0, dtype=np.int64)
    # several statements may get the same index: they then stand one after the other
    starts = np.sort(rng.choice(boundaries if len(boundaries) else last + 1, len(statements)))
    pieces: list[np.ndarray] = []
    separator = np.array([eos], dtype=row.dtype)
    copied = 0  # tokens of the row that are in `pieces`
    for start, statement in zip(starts.tolist(), statements, strict=True):
        pieces.append(row[copied:start])
        after_eos = start > 0 and row[start - 1] == eos
        after_statement = copied == start and len(pieces) > 1  # its last `eos` serves both
        if not (after_eos or after_statement):
            pieces.append(separator)
        pieces += [statement, separator]
        copied = start
    pieces.append(row[copied:])
    return np.concatenate(pieces)[: len(row)]  # (seq,)
