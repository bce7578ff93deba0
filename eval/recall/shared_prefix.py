"""Prompts read once, and their keys and values repeated for the answers that follow.

Prompts of unequal length share a batch left-padded. The answers behind them are of one length: padding
between prompt and answer would push the prompt out of a sliding window that it is in.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from eval.recall.batching import forward_parameters, last_logits, left_pad, same_logits
from eval.recall.planning import Pass

logger = logging.getLogger(__name__)

# What models and caches that cannot do this have been seen to raise; others give wrong numbers.
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
class Prompts:
    """A batch of prompts that a model has read."""

    cache: Any
    attention_mask: torch.Tensor  # (prompts, longest)

    def nbytes(self) -> int:
        """Bytes of the keys and values of one prompt, with its padding."""
        layers = [(layer.keys, layer.values) for layer in self.cache.layers]
        total = sum(part.nbytes for parts in layers for part in parts if part is not None)
        return total // len(self.attention_mask)

    def repeat(self, which: Sequence[int]) -> "Prompts":
        """The prompts at these places, each as often as it is named. These stay as they are."""
        index = torch.tensor(which, device=self.attention_mask.device)
        cache = copy.copy(self.cache)
        # the layers' tensors are replaced, never written to: shallow copies are enough
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(index)
        return Prompts(cache, self.attention_mask[index])


def read_prompts(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, Prompts]:
    """Logits at the ends of the prompts, (prompts, 1, vocabulary), and what is needed to go on there."""
    inputs = left_pad(rows, pad_id, model.device)
    outputs = _call(model, inputs, keep=1)
    return outputs.logits[:, -1:], Prompts(outputs.past_key_values, inputs["attention_mask"])


def read_answers(
    model: Any, prompts: Prompts, which: Sequence[int], answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Logits of answers of one length, each behind the prompt at its place in `which`: (answers, length,
    vocabulary)."""
    chosen = prompts.repeat(which)
    input_ids = torch.tensor(answers, device=model.device)
    before = chosen.attention_mask
    attention_mask = torch.cat([before, torch.ones_like(input_ids)], dim=-1)  # (answers, longest + length)
    steps = torch.arange(input_ids.shape[1], device=model.device)
    position_ids = before.sum(-1, keepdim=True) + steps  # (answers, length)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    return _call(model, inputs, keep=input_ids.shape[1], cache=chosen.cache).logits


def shares_prompts(model: Any, passes: Sequence[Pass], pad_id: int) -> bool:
    """Whether going on behind the keys and values of prompts, read together, gives the logits of each prompt
    and answer read alone; tried on `passes`, which have the answers as branches."""
    if not {"past_key_values", "use_cache", "attention_mask"} <= forward_parameters(model):
        return False
    try:
        return _agrees(model, passes, pad_id)
    except CACHE_ERRORS:
        logger.debug("sharing prompts failed", exc_info=True)
        return False


def _agrees(model: Any, passes: Sequence[Pass], pad_id: int) -> bool:
    at_end, prompts = read_prompts(model, [one.inputs for one in passes], pad_id)
    for place, one in enumerate(passes):
        answer = max((branch.inputs for branch in one.branches), key=len, default=[])
        whole = last_logits(model, [one.inputs + answer], pad_id, len(answer) + 1)  # (1, length + 1, vocab)
        parts = at_end[place][None].expand(2, -1, -1)
        if answer:
            # twice, to see it repeated; and a prompt after the other, to see that none takes anything away
            behind = read_answers(model, prompts, [place] * 2, [answer] * 2)
            parts = torch.cat([parts, behind], dim=1)
        if not same_logits(whole.expand(2, -1, -1), parts):
            return False
    return True


def _call(model: Any, inputs: dict[str, torch.Tensor], *, keep: int, cache: Any = None) -> Any:
    taken = forward_parameters(model)
    # an integer, for a tensor of indices is a later addition that not every model knows
    arguments = {**inputs, "use_cache": True, "logits_to_keep": keep}
    if cache is not None:
        arguments["past_key_values"] = cache
    return model(**{name: value for name, value in arguments.items() if name in taken})
