"""Log-probabilities and ranks of answers under any causal language model.

    items = [Item("Ada Lopez was born in", ["Paris", "Rome", "Oslo"])]
    [scores] = score(model, tokenizer, items)
    scores.logprobs  # nats, one for each candidate

Every figure of the suite rests on this file; docs/recall.md says what it promises.
In float32 the numbers are the same within 1e-4 whatever the batch size and order of the items.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import (
    context_length,
    fill_batches,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.scoring.budget import Budget, default_budget, one_line_where_memory_ends, run_batches
from tidy_stlms.eval.scoring.encoding import Item, Row, encode_items
from tidy_stlms.eval.scoring.isolation import eval_mode
from tidy_stlms.eval.scoring.logprobs import Reader, RowScores
from tidy_stlms.eval.scoring.passes import Pass, plan_prompts, plan_whole
from tidy_stlms.eval.scoring.prefix_cache import Prompts, longest_path, read, shares_prompts

logger = logging.getLogger(__name__)

__all__ = ["Item", "Scores", "score"]

_Placed = tuple[int, Pass]  # a pass, and the place in its batch of what it stands behind


@dataclass
class Scores:
    """What a model says about one item. The lists by candidate follow the item's candidates; the others
    speak of the true answer, `candidates[0]`."""

    logprobs: list[float]
    """Sum over the scored tokens of ln P(token | all before it), in nats."""
    n_tokens: list[int]
    n_bytes: list[int]
    """UTF-8 bytes of the text scored: the answer with its leading space, and the suffix."""
    straddles: bool
    """A token reached over the boundary, so that scoring starts inside the prompt."""
    truncated: bool
    token_logprobs: list[float] = field(default_factory=list)
    token_ranks: list[float] = field(default_factory=list)
    """Of each token in the vocabulary, 1 the most probable, the mid-rank among equals."""
    greedy_match: bool = False
    """Every token is the argmax, given the true tokens before it."""
    top_tokens: list[tuple[int, float]] = field(default_factory=list)
    """The most probable tokens where the answer begins, with their probabilities; as many as asked for."""


def score(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    *,
    batch_tokens: int | None = None,
    top_k: int = 0,
    progress: bool = False,
) -> list[Scores]:
    """Score every candidate of every item; one `Scores` for each item, in their order.

    Args:
        batch_tokens: Tokens of a batch, padding included; None chooses by device and its free memory.
            Memory and speed depend on it, numbers do not. Where memory runs out it is halved.
        top_k: How many of the most probable tokens to report where the answer begins.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: Where a number is not finite, an answer encodes to nothing or exceeds the context, an
            empty prompt meets a tokenizer without BOS and end-of-text, or memory does not suffice for a
            single answer.
    """
    rows = encode_items(tokenizer, items, context_length(model))
    if not rows:
        return []
    budget = default_budget(model, batch_tokens)
    # no_grad rather than inference_mode: tensors that a model keeps from this pass (tables of a rotary
    # embedding) must be fit for the training step that follows. Trainer's evaluation does the same.
    with (
        torch.no_grad(),
        eval_mode(model),
        tqdm(total=len(items), desc="scoring", unit="probe", disable=not progress) as bar,
    ):
        reader = Reader(rows, top_k, bar.update)
        with one_line_where_memory_ends(model):
            _Scoring(model, padding_id(model, tokenizer), budget, reader).run(rows)
    return _collect(items, rows, reader.scores)


class _Scoring:
    """The forward passes of one call."""

    def __init__(self, model: Any, pad_id: int, budget: Budget, reader: Reader):
        self.model, self.pad_id, self.budget, self.reader = model, pad_id, budget, reader
        self.keeps_few = "logits_to_keep" in forward_parameters(model)
        self.pads = True

    def run(self, rows: list[Row]) -> None:
        whole, prompts = plan_whole(rows), plan_prompts(rows)
        passes = prompts if self._gains(whole, prompts) else whole
        if not self._possible(passes):
            passes = whole
        batches = self._fill([(0, one) for one in passes])
        run_batches(batches, partial(self._run, None), self.budget)

    def _gains(self, whole: list[Pass], prompts: list[Pass]) -> bool:
        """Whether reading prompts apart from their answers takes less work, the trial included."""
        tried = 4 * (len(whole[0].inputs) + len(whole[-1].inputs)) + 5 * self.budget.pass_tokens
        return self._work(whole) - self._work(prompts) > tried

    def _possible(self, passes: list[Pass]) -> bool:
        """Whether the model can do `passes`; finds out on the way whether it bears padding."""
        shares = any(one.branches for one in passes)
        longest = max(passes, key=lambda one: (bool(one.branches), len(longest_path(one))))
        # beginnings of two lengths show that padding is safe, too
        if shares and shares_prompts(self.model, [longest, passes[-1]], self.pad_id):
            return True
        self.pads = pads_safely(self.model, [longest_path(one) for one in passes], self.pad_id)
        if not shares or (not self.pads and shares_prompts(self.model, [longest], self.pad_id)):
            return True
        logger.warning(
            "this model's cache cannot be shared among answers: prompts are read anew for each of them"
        )
        return False

    def _run(self, before: Prompts | None, batch: list[_Placed]) -> None:
        which, passes = [place for place, _ in batch], [one for _, one in batch]
        inputs = [one.inputs for one in passes]
        keep = max(one.n_logits for one in passes)
        branches = [(place, branch) for place, one in enumerate(passes) for branch in one.branches]
        if before is None and not branches:
            self.reader.read(last_logits(self.model, inputs, self.pad_id, keep), passes)
            return
        logits, prompts = read(self.model, inputs, self.pad_id, keep, behind=before, which=which)
        self.reader.read(logits, passes)
        del logits
        if branches:
            run_batches(self._fill(branches, prompts), partial(self._run, prompts), self.budget)

    def _fill(self, placed: list[_Placed], before: Prompts | None = None) -> list[list[_Placed]]:
        lengths = [len(one.inputs) for _, one in placed]
        batch_tokens = self.budget.tokens
        if before is not None:  # a row, of a token at least, repeats all that stands before it
            batch_tokens = min(batch_tokens, max(1, self.budget.cache_bytes // max(1, before.nbytes())))
        batches = fill_batches(
            lengths,
            [one.n_logits for _, one in placed] if self.keeps_few else lengths,
            batch_tokens=batch_tokens,
            max_logits=self.budget.logits // text_config(self.model).vocab_size,
            same_length=before is not None or not self.pads,
            pass_tokens=_n_passes([one for _, one in placed]) * self.budget.pass_tokens,
        )
        return [[placed[i] for i in batch] for batch in batches]

    def _work(self, passes: list[Pass]) -> float:
        """Tokens read and logits kept, with padding. One counts as much as the other: the vocabularies of
        small models weigh what their layers do."""
        batches = self._fill([(0, one) for one in passes])
        return sum(self._work_of_batch([one for _, one in batch]) for batch in batches)

    def _work_of_batch(self, batch: list[Pass]) -> float:
        n_inputs = max(len(one.inputs) for one in batch)
        n_logits = max(one.n_logits for one in batch) if self.keeps_few else n_inputs
        answers = sum(len(branch.inputs) + branch.n_logits for one in batch for branch in one.branches)
        return _n_passes(batch) * self.budget.pass_tokens + len(batch) * (n_inputs + n_logits) + answers


def _n_passes(batch: list[Pass]) -> int:
    """Forward passes for a batch, and for each length of what stands behind it."""
    return 1 + len({len(branch.inputs) for one in batch for branch in one.branches})


def _collect(items: Sequence[Item], rows: list[Row], scored: list[RowScores]) -> list[Scores]:
    """Put rows, which come in order of (item, candidate), together by item."""
    results: list[Scores] = []
    for row, own in zip(rows, scored, strict=True):
        if not all(map(math.isfinite, own.logprobs)):
            item = items[row.item]
            raise UserError(
                f"probe {item.id or row.item}: the model's log-probability of "
                f"{item.candidates[row.candidate]!r} is not a finite number: its weights are broken, "
                "or the dtype too narrow (try float32)"
            )
        if row.candidate == 0:
            results.append(
                Scores(
                    logprobs=[],
                    n_tokens=[],
                    n_bytes=[],
                    straddles=row.straddles,
                    truncated=row.truncated,
                    token_logprobs=own.logprobs,
                    token_ranks=own.ranks,
                    greedy_match=all(own.greedy),
                    top_tokens=own.top_tokens,
                )
            )
        results[-1].logprobs.append(math.fsum(own.logprobs))
        results[-1].n_tokens.append(row.n_scored)
        results[-1].n_bytes.append(row.n_bytes)
    return results
