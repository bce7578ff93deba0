"""Log-probabilities and ranks of answers under any causal language model.

    items = [Item("Ada Lopez was born in", ["Paris", "Rome", "Oslo"])]
    [scores] = score(model, tokenizer, items)
    scores.logprobs  # nats, one for each candidate

An item goes through four steps:

    encode_items    -> EncodedCandidate  the tokens of prompt and answer, and which of them are scored
    _plan           -> InputSequence     what is read in forward passes, and the targets that it predicts
    _ForwardPasses  -> logits            (sequences, kept positions, vocabulary), batch by batch
    ScoreCollector  -> TokenScores       log-probability and rank of each target, summed up in `Scores`

All figures depend on this file; docs/recall.md says what it promises. In float32 the numbers are the same
within 1e-4 whatever the batch size, and to the bit whatever the order of the items.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import (
    context_length,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.scoring.batches import Batcher, BatchRow
from tidy_stlms.eval.scoring.budget import default_budget, memory_errors, run_batches
from tidy_stlms.eval.scoring.encoding import EncodedCandidate, Item, encode_items
from tidy_stlms.eval.scoring.isolation import eval_mode
from tidy_stlms.eval.scoring.logprobs import ScoreCollector, TokenScores
from tidy_stlms.eval.scoring.prompt_cache import PromptCache, can_share_prompts, forward_with_cache
from tidy_stlms.eval.scoring.sequences import InputSequence, plan_full_texts, plan_shared_prompts

logger = logging.getLogger(__name__)

__all__ = ["Item", "Scores", "score"]


@dataclass
class Scores:
    """What a model says about one item.

    The first three lists have an entry for each candidate, in the item's order. `straddles` and `truncated`
    hold for all of them. The other fields are about the right answer, `candidates[0]`.
    """

    logprobs: list[float]
    """Sum over the scored tokens of ln P(token | all tokens before it), in nats."""
    n_tokens: list[int]
    """Scored tokens."""
    n_bytes: list[int]
    """UTF-8 bytes of the scored text: the answer with its joint, and the suffix."""
    straddles: bool
    """A token covers the boundary of prompt and answer, so that scoring starts inside the prompt."""
    truncated: bool
    """The text was longer than the model's context, so that the prompt was cut from the left."""
    token_logprobs: list[float] = field(default_factory=list)
    token_ranks: list[float] = field(default_factory=list)
    """Rank of each token in the vocabulary, from 1; the mid-rank among equal logits."""
    greedy_match: bool = False
    """Every token is the most probable one, given the right tokens before it."""
    top_tokens: list[tuple[int, float]] = field(default_factory=list)
    """The `top_k` most probable (token id, probability) pairs where the answer begins."""


def score(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    *,
    batch_tokens: int | None = None,
    top_k: int = 0,
    share_prompts: bool | None = None,
    prefix: str | None = None,
    progress: bool = False,
) -> list[Scores]:
    """Score every candidate of every item; one `Scores` for each item, in their order.

    Args:
        batch_tokens: Tokens of a batch, padding included; None chooses by device and its free memory.
            Memory and speed depend on it, numbers do not. It is halved when memory runs out.
        top_k: How many of the most probable tokens to report where the answer begins.
        share_prompts: Whether to read each prompt once and repeat its keys and values for its answers. None
            does so where it saves work. Speed depends on it, numbers do not. Models whose cache does not
            allow it read the prompt again with each answer.
        prefix: What stands before each text, as for `prefix_of`; None for the model's own.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: If a number is not finite, an answer has no tokens or exceeds the context, a prompt is
            empty and the tokenizer has neither BOS nor end-of-text, or one answer exceeds the memory.
    """
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    candidates = encode_items(tokenizer, items, context_length(model), prefix=prefix_ids)
    if not candidates:
        return []
    pad_id = padding_id(model, tokenizer)
    batcher = Batcher(
        default_budget(model, batch_tokens),
        vocab_size=text_config(model).vocab_size,
        keeps_last_logits="logits_to_keep" in forward_parameters(model),
    )
    # no_grad rather than inference_mode: a model may keep tensors from this pass (tables of a rotary
    # embedding), and the training step that follows must be able to use them. Trainer does the same.
    with (
        torch.no_grad(),
        eval_mode(model),
        tqdm(total=len(items), desc="scoring", unit="probe", disable=not progress) as bar,
        memory_errors(model),
    ):
        sequences, may_pad = _plan(model, pad_id, candidates, batcher, share_prompts)
        collector = ScoreCollector(candidates, top_k, on_items_done=bar.update)
        passes = _ForwardPasses(model, pad_id, replace(batcher, may_pad=may_pad), collector)
        passes.run([BatchRow(sequence) for sequence in sequences])
    return _scores_of_items(items, candidates, collector.scores)


def _plan(
    model: Any,
    pad_id: int,
    candidates: Sequence[EncodedCandidate],
    batcher: Batcher,
    share_prompts: bool | None,
) -> tuple[list[InputSequence], bool]:
    """Choose the sequences to read, and whether to pad them, by a trial of what the model allows.

    The trial reads the longest and the shortest prompt. Whether padding or a repeated cache changes logits
    depends on the model's code and on lengths (sliding windows), not on the words.
    """
    full_texts, shared = plan_full_texts(candidates), plan_shared_prompts(candidates)
    if share_prompts is None:
        saved = batcher.cost(full_texts) - batcher.cost(shared)
        share_prompts = saved > batcher.trial_cost(full_texts)
    sequences = shared if share_prompts else full_texts
    if not any(sequence.continuations for sequence in sequences):
        return sequences, pads_safely(model, [sequence.input_ids for sequence in sequences], pad_id)

    longest = max(sequences, key=lambda each: (bool(each.continuations), _n_tokens_with_answer(each)))
    # prompts of two lengths in one batch: this trial also shows that padding is safe
    if can_share_prompts(model, [longest, sequences[-1]], pad_id):
        return sequences, True
    texts = [[*sequence.input_ids, *sequence.longest_continuation] for sequence in sequences]
    may_pad = pads_safely(model, texts, pad_id)
    # the trial fails if padding changes the logits: try the cache again on one prompt, without padding
    if not may_pad and can_share_prompts(model, [longest], pad_id):
        return sequences, False
    logger.warning(
        "this model's cache cannot be shared among answers: prompts are read anew for each of them"
    )
    return full_texts, may_pad


def _n_tokens_with_answer(sequence: InputSequence) -> int:
    return len(sequence.input_ids) + len(sequence.longest_continuation)


@dataclass
class _ForwardPasses:
    """Runs sequences through the model, and hands their logits to the collector."""

    model: Any
    pad_id: int
    batcher: Batcher
    collector: ScoreCollector

    def run(self, rows: list[BatchRow], prompts: PromptCache | None = None) -> None:
        """Read `rows`, which continue `prompts`, if given; and then their own continuations."""
        batches = self.batcher.fill(rows, prompts)
        run_batches(batches, partial(self._run_batch, prompts), self.batcher.budget)

    def _run_batch(self, prompts: PromptCache | None, batch: list[BatchRow]) -> None:
        sequences = [row.sequence for row in batch]
        input_ids = [sequence.input_ids for sequence in sequences]
        n_logits = max(sequence.n_logits for sequence in sequences)
        continuations = [
            BatchRow(continuation, prompt_row=row)
            for row, sequence in enumerate(sequences)
            for continuation in sequence.continuations
        ]
        if prompts is None and not continuations:
            self.collector.add(last_logits(self.model, input_ids, self.pad_id, n_logits), sequences)
            return
        prompt_rows = [row.prompt_row for row in batch]
        logits, new_prompts = forward_with_cache(
            self.model, input_ids, self.pad_id, n_logits, prompts=prompts, prompt_rows=prompt_rows
        )
        self.collector.add(logits, sequences)
        del logits  # the largest tensor: free it before the continuations are read
        if continuations:
            self.run(continuations, new_prompts)


def _scores_of_items(
    items: Sequence[Item], candidates: Sequence[EncodedCandidate], token_scores: Sequence[TokenScores]
) -> list[Scores]:
    """Group candidates, which come in order of (item, candidate), by item."""
    results: list[Scores] = []
    for candidate, tokens in zip(candidates, token_scores, strict=True):
        if not all(map(math.isfinite, tokens.logprobs)):
            item = items[candidate.item]
            raise UserError(
                f"probe {item.id or candidate.item}: the model's log-probability of "
                f"{item.candidates[candidate.candidate]!r} is not a finite number: its weights are broken, "
                "or the dtype too narrow (try float32)"
            )
        if candidate.candidate == 0:
            results.append(
                Scores(
                    logprobs=[],
                    n_tokens=[],
                    n_bytes=[],
                    straddles=candidate.straddles,
                    truncated=candidate.truncated,
                    token_logprobs=tokens.logprobs,
                    token_ranks=tokens.ranks,
                    greedy_match=all(tokens.greedy),
                    top_tokens=tokens.top_tokens,
                )
            )
        # the sum is ln P(answer | prompt), by the chain rule, whatever tokens the answer is cut into. A mean
        # would prefer answers of many easy tokens, and depend on the tokenizer. fsum: no rounding on the way
        results[-1].logprobs.append(math.fsum(tokens.logprobs))
        results[-1].n_tokens.append(candidate.n_scored)
        results[-1].n_bytes.append(candidate.n_bytes)
    return results
