"""Log-probabilities and ranks of answers under any causal language model.

    items = [Item("Ada Lopez was born in", ["Paris", "Rome", "Oslo"])]
    [scores] = score(model, tokenizer, items)
    scores.logprobs  # nats, one for each candidate

Every figure of the suite rests on this file; docs/recall.md says what it promises.
In float32 the numbers are the same within 1e-4 whatever the batch size and order of the items.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm

from configs.errors import UserError
from eval.recall.batching import (
    MAX_LOGITS,
    context_length,
    default_batch_tokens,
    fill_batches,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from eval.recall.encoding import Item, Row, encode_items
from eval.recall.isolation import eval_mode

__all__ = ["Item", "Scores", "score"]

LOGITS_PER_CHUNK = 2**23  # lifted to float32 at a time


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


@dataclass
class _Pass:
    """One row of a forward pass, and the candidates read off it: (row, how many of its inputs stand
    behind that candidate's own). The answers "Rome" and "Rome Falls" need one pass, and so do all
    answers of a single token."""

    inputs: list[int]
    readings: list[tuple[int, int]]
    n_logits: int  # positions at the end whose logits are read


@dataclass
class _RowScores:
    logprobs: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)


def score(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    *,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> list[Scores]:
    """Score every candidate of every item; one `Scores` for each item, in their order.

    Args:
        batch_tokens: Tokens of a batch, padding included; None chooses by device. Memory and speed depend
            on it, numbers do not.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: Where a number is not finite, an answer encodes to nothing or exceeds the context, or
            an empty prompt meets a tokenizer without BOS and end-of-text.
    """
    rows = encode_items(tokenizer, items, context_length(model))
    scored: list[_RowScores] = [_RowScores() for _ in rows]
    passes = _plan_passes(rows)
    batch_tokens = batch_tokens or default_batch_tokens(model)
    # no_grad rather than inference_mode: tensors that a model keeps from this pass (tables of a rotary
    # embedding) must be fit for the training step that follows. Trainer's evaluation does the same.
    with (
        torch.no_grad(),
        eval_mode(model),
        tqdm(total=len(rows), desc="scoring", unit="answer", disable=not progress) as bar,
    ):
        for batch, logits in _forward(model, padding_id(model, tokenizer), passes, batch_tokens):
            _read_logits(logits, batch, rows, scored)
            bar.update(sum(len(one.readings) for one in batch))
    return _collect(items, rows, scored)


def _plan_passes(rows: list[Row]) -> list[_Pass]:
    """The forward passes that are needed: none for inputs with which another candidate's inputs begin.

    A causal model says the same at a position whatever follows. Only candidates of one item share: as
    all of them are scored from one place, the logits of the longest answer hold those of the others.
    """
    passes: list[_Pass] = []
    item = None
    for index in sorted(range(len(rows)), key=lambda i: (rows[i].item, rows[i].inputs), reverse=True):
        row = rows[index]
        # the order is such that longer inputs come right before those they begin with
        if row.item == item and passes[-1].inputs[: len(row.inputs)] == row.inputs:
            behind = len(passes[-1].inputs) - len(row.inputs)
            passes[-1].readings.append((index, behind))
        else:
            passes.append(_Pass(row.inputs, [(index, 0)], row.n_scored))
        item = row.item
    return passes


def _forward(
    model: Any, pad_id: int, passes: list[_Pass], batch_tokens: int
) -> Iterator[tuple[list[_Pass], torch.Tensor]]:
    """Batches of passes with the logits at their ends, (passes, most read of one, vocabulary)."""
    if not passes:
        return
    lengths = [len(one.inputs) for one in passes]
    longest, shortest = (pick(passes, key=lambda one: len(one.inputs)).inputs for pick in (max, min))
    batches = fill_batches(
        lengths,
        [one.n_logits for one in passes] if "logits_to_keep" in forward_parameters(model) else lengths,
        batch_tokens=batch_tokens,
        max_logits=MAX_LOGITS // text_config(model).vocab_size,
        same_length=not pads_safely(model, [longest, shortest], pad_id),
    )
    for indices in batches:
        batch = [passes[i] for i in indices]
        keep = max(one.n_logits for one in batch)
        yield batch, last_logits(model, [one.inputs for one in batch], pad_id, keep)


def _read_logits(logits: torch.Tensor, batch: list[_Pass], rows: list[Row], scored: list[_RowScores]) -> None:
    """Fill `scored` from logits (passes, positions, vocabulary); float32 only for answer tokens."""
    n_positions = logits.shape[1]
    # one entry for each answer token: the pass, the position that predicts it, its id, and whose it is
    places = [
        (index, n_positions - behind - rows[row].n_scored + k, token, row)
        for index, one in enumerate(batch)
        for row, behind in one.readings
        for k, token in enumerate(rows[row].ids[-rows[row].n_scored :])
    ]
    size = max(1, LOGITS_PER_CHUNK // logits.shape[-1])
    for first in range(0, len(places), size):
        chunk = places[first : first + size]
        index, position, token, _ = torch.tensor(chunk, device=logits.device).unbind(-1)
        picked = logits[index, position].float()  # (tokens, vocabulary)
        own = picked.gather(-1, token[:, None])  # (tokens, 1)
        logprobs = (own - picked.logsumexp(-1, keepdim=True)).squeeze(-1).tolist()
        for (*_, row), logprob in zip(chunk, logprobs, strict=True):
            scored[row].logprobs.append(logprob)

        # ranks are asked for the true answers only
        gold = [i for i, (*_, row) in enumerate(chunk) if rows[row].candidate == 0]
        picked, own = picked[gold], own[gold]
        above = (picked > own).sum(-1)
        equal = (picked == own).sum(-1)  # the token itself among them
        ranks = (above + (equal + 1) / 2).tolist()
        greedy = (picked.argmax(-1) == token[gold]).tolist()
        for i, rank, is_best in zip(gold, ranks, greedy, strict=True):
            scored[chunk[i][-1]].ranks.append(rank)
            scored[chunk[i][-1]].greedy.append(is_best)


def _collect(items: Sequence[Item], rows: list[Row], scored: list[_RowScores]) -> list[Scores]:
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
                )
            )
        results[-1].logprobs.append(math.fsum(own.logprobs))
        results[-1].n_tokens.append(row.n_scored)
        results[-1].n_bytes.append(row.n_bytes)
    return results
