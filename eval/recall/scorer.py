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

from configs.errors import UserError
from eval.recall.batching import (
    context_length,
    fill_batches,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from eval.recall.encoding import Item, Row, encode_items
from eval.recall.isolation import eval_mode
from eval.recall.memory import Budget, default_budget, one_line_where_memory_ends, run_batches
from eval.recall.planning import Pass, plan_passes
from eval.recall.reading import Reader, RowScores
from eval.recall.shared_prefix import Prompts, read_answers, read_prompts, shares_prompts

logger = logging.getLogger(__name__)

__all__ = ["Item", "Scores", "score"]

_Answer = tuple[int, Pass]  # the place of its prompt in the batch, and what is read behind it


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
        whole, shared = (plan_passes(rows, share=share) for share in (False, True))
        if self._can_share(whole, shared):
            run_batches(self._fill(shared), self._run_prompts, self.budget)
        else:
            run_batches(self._fill(whole), self._run_whole, self.budget)

    def _can_share(self, whole: list[Pass], shared: list[Pass]) -> bool:
        """Whether reading prompts apart from answers gains something, and the model lets us."""
        gains = self._gains(whole, shared)
        ends = [max(shared, key=lambda one: bool(one.branches)), shared[-1]]  # the first is the longest
        # prompts of two lengths show that padding is safe, too
        if gains and shares_prompts(self.model, ends, self.pad_id):
            return True
        self.pads = pads_safely(self.model, [whole[0].inputs, whole[-1].inputs], self.pad_id)
        if gains and not self.pads and shares_prompts(self.model, ends[:1], self.pad_id):
            return True
        if gains:
            logger.warning(
                "this model's cache cannot be shared among answers: prompts are read anew for each of them"
            )
        return False

    def _gains(self, whole: list[Pass], shared: list[Pass]) -> bool:
        tried = 4 * (len(whole[0].inputs) + len(whole[-1].inputs))  # about what trying it out costs
        return self._work(whole) - self._work(shared) > tried

    def _work(self, passes: list[Pass]) -> float:
        """Tokens read and logits kept, with padding. One counts as much as the other: the vocabularies of
        small models weigh what their layers do."""
        total = 0.0
        for batch in self._fill(passes):
            n_logits = max(one.n_logits for one in batch) if self.keeps_few else len(batch[0].inputs)
            total += len(batch) * (len(batch[0].inputs) + n_logits)
            behind = [len(branch.inputs) for one in batch for branch in one.branches]
            n_passes = 1 + len(set(behind))
            total += 2 * sum(behind) + n_passes * self.budget.pass_tokens
        return total

    def _fill(self, passes: list[Pass]) -> list[list[Pass]]:
        lengths = [len(one.inputs) for one in passes]
        # a batch of prompts is followed by one of answers for each length that they have
        n_passes = 1 + len({len(branch.inputs) for one in passes for branch in one.branches})
        batches = fill_batches(
            lengths,
            [one.n_logits for one in passes] if self.keeps_few else lengths,
            batch_tokens=self.budget.tokens,
            max_logits=self._most_positions(),
            same_length=not self.pads,
            pass_tokens=n_passes * self.budget.pass_tokens,
        )
        return [[passes[i] for i in batch] for batch in batches]

    def _run_whole(self, batch: list[Pass]) -> None:
        keep = max(one.n_logits for one in batch)
        inputs = [one.inputs for one in batch]
        self.reader.read(last_logits(self.model, inputs, self.pad_id, keep), batch)

    def _run_prompts(self, batch: list[Pass]) -> None:
        answers = [(place, branch) for place, one in enumerate(batch) for branch in one.branches]
        if not answers:
            self._run_whole(batch)
            return
        logits, prompts = read_prompts(self.model, [one.inputs for one in batch], self.pad_id)
        self.reader.read(logits, batch)
        del logits
        run_batches(self._fill_answers(prompts, answers), partial(self._run_answers, prompts), self.budget)

    def _fill_answers(self, prompts: Prompts, answers: list[_Answer]) -> list[list[_Answer]]:
        lengths = [len(branch.inputs) for _, branch in answers]
        n_repeats = max(1, self.budget.cache_bytes // max(1, prompts.nbytes()))
        batches = fill_batches(
            lengths,
            lengths,
            batch_tokens=min(self.budget.tokens, n_repeats),
            max_logits=self._most_positions(),
            same_length=True,
        )
        return [[answers[i] for i in batch] for batch in batches]

    def _run_answers(self, prompts: Prompts, batch: list[_Answer]) -> None:
        which, branches = [place for place, _ in batch], [branch for _, branch in batch]
        inputs = [branch.inputs for branch in branches]
        self.reader.read(read_answers(self.model, prompts, which, inputs), branches)

    def _most_positions(self) -> int:
        return self.budget.logits // text_config(self.model).vocab_size


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
