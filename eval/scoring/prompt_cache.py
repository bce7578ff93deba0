"""Reads each prompt once, and repeats its keys and values for the answers that follow.

Prompts of unequal length share a batch, padded on the left. The answers that follow them in one batch must
have equal lengths: padding between prompt and answer would push the prompt out of a sliding window.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tidy_stlms.eval.models.inputs import (
    cache_name,
    forward_parameters,
    last_logits,
    left_pad,
    same_logits,
)
from tidy_stlms.eval.scoring.sequences import InputSequence

logger = logging.getLogger(__name__)

# Errors seen from models and caches that cannot share prompts. Others give wrong numbers without an error.
CACHE_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass
class PromptCache:
    """The keys and values of a batch of prompts that a model has read."""

    cache: Any
    attention_mask: torch.Tensor  # (prompts, longest prompt)

    def bytes_per_prompt(self) -> int:
        """Bytes of the keys and values of one prompt, with its padding."""
        layers = [(layer.keys, layer.values) for layer in self.cache.layers]
        total = sum(tensor.nbytes for tensors in layers for tensor in tensors if tensor is not None)
        return total // len(self.attention_mask)

    def select(self, rows: Sequence[int]) -> "PromptCache":
        """The prompts in these rows, in this order and with repetitions, as a new cache."""
        index = torch.tensor(rows, device=self.attention_mask.device)
        cache = copy.copy(self.cache)
        # selecting replaces the tensors of a layer and never writes to them: shallow copies are enough
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(index)
        return PromptCache(cache, self.attention_mask[index])


def forward_with_cache(
    model: Any,
    rows: Sequence[Sequence[int]],
    pad_id: int,
    keep: int,
    *,
    prompts: PromptCache | None = None,
    prompt_rows: Sequence[int] = (),
) -> tuple[torch.Tensor, PromptCache]:
    """One forward pass: the logits of the last `keep` positions, (rows, keep, vocabulary), and a new cache.

    Args:
        prompts: What the model has read before. Then all `rows` must have one length.
        prompt_rows: For each row, the row of `prompts` that it continues.
    """
    if prompts is None:
        cache = None
        inputs = left_pad(rows, pad_id, model.device)
    else:
        selected = prompts.select(prompt_rows)
        cache, prompt_mask = selected.cache, selected.attention_mask
        input_ids = torch.tensor(rows, device=model.device)  # (rows, length)
        steps = torch.arange(input_ids.shape[1], device=model.device)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.cat([prompt_mask, torch.ones_like(input_ids)], dim=-1),
            # positions continue after the prompt's last token; padding is not counted
            "position_ids": prompt_mask.sum(-1, keepdim=True) + steps,
        }
    arguments: dict[Any, Any] = {**inputs, cache_name(model): cache, "use_cache": True}
    # an integer: some models do not take a tensor of indices, which transformers added later
    arguments["logits_to_keep"] = keep
    parameters = forward_parameters(model)
    outputs = model(**{name: value for name, value in arguments.items() if name in parameters})
    new_cache = getattr(outputs, "cache", None)  # its name since transformers 5.24
    if new_cache is None:
        new_cache = outputs.past_key_values
    return outputs.logits[:, -keep:], PromptCache(new_cache, inputs["attention_mask"])


def can_share_prompts(model: Any, sequences: Sequence[InputSequence], pad_id: int) -> bool:
    """Whether reading an answer after a cached prompt gives the same logits as reading both in one pass.

    Tried on `sequences` and their longest continuations. Caches differ among models: some raise an error when
    their rows are repeated, others silently give wrong logits. So each model is tried before it is scored, on
    two prompts, which costs little beside the many that follow.
    """
    if cache_name(model) is None or not {"use_cache", "attention_mask"} <= forward_parameters(model):
        return False
    try:
        return all(same_logits(*pair) for pair in logits_after_cache(model, sequences, pad_id))
    except CACHE_ERRORS:
        logger.debug("sharing prompts failed", exc_info=True)
        return False


def logits_after_cache(
    model: Any, sequences: Sequence[InputSequence], pad_id: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each sequence, the logits of its longest continuation, without a cache and after its cached prompt.

    Both are (2, 1 + answer tokens, vocabulary): the last one of the prompt comes first.
    """
    prompt_logits, prompts = forward_with_cache(model, [each.input_ids for each in sequences], pad_id, 1)
    # one prompt after the other, both from one cache: an answer to the first must not change the second
    for row, sequence in enumerate(sequences):
        # the answer in two rows: repeating a prompt must not mix it with another prompt
        rows, answer_ids = [row] * 2, sequence.longest_continuation
        cached = prompt_logits[rows]  # (2, 1, vocabulary)
        if answer_ids:
            answer_logits, _ = forward_with_cache(
                model, [answer_ids] * 2, pad_id, len(answer_ids), prompts=prompts, prompt_rows=rows
            )
            cached = torch.cat([cached, answer_logits], dim=1)  # (2, 1 + answer tokens, vocabulary)
        text = [*sequence.input_ids, *answer_ids]
        expected = last_logits(model, [text], pad_id, cached.shape[1])  # (1, 1 + answer tokens, vocabulary)
        yield expected.expand(2, -1, -1), cached
