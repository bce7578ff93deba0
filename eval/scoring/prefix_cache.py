"""Prompts read once, and their keys and values repeated for what follows them.

Prompts of unequal length share a batch left-padded. What is read behind them is of one length: padding in
between would push the prompt out of a sliding window that it is in.
"""

import copy
import logging
from collections.abc import Sequence
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
from tidy_stlms.eval.scoring.passes import Pass

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


def read(
    model: Any,
    rows: Sequence[Sequence[int]],
    pad_id: int,
    keep: int,
    *,
    behind: Prompts | None = None,
    which: Sequence[int] = (),
) -> tuple[torch.Tensor, Prompts]:
    """Logits at the ends of rows, (rows, keep, vocabulary), and what is needed to go on there.

    Behind prompts that were read before, rows must have one length, and `which` tells the prompt of each.
    """
    if behind is None:
        inputs = left_pad(rows, pad_id, model.device)
        cache = None
    else:
        chosen = behind.repeat(which)
        cache, before = chosen.cache, chosen.attention_mask
        input_ids = torch.tensor(rows, device=model.device)
        steps = torch.arange(input_ids.shape[1], device=model.device)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.cat([before, torch.ones_like(input_ids)], dim=-1),
            "position_ids": before.sum(-1, keepdim=True) + steps,
        }
    # an integer, for a tensor of indices is a later addition that not every model knows
    arguments: dict[Any, Any] = {**inputs, cache_name(model): cache}
    arguments |= {"use_cache": True, "logits_to_keep": keep}
    taken = forward_parameters(model)
    outputs = model(**{name: value for name, value in arguments.items() if name in taken})
    returned = getattr(outputs, "cache", None)  # its name since transformers 5.24
    if returned is None:
        returned = outputs.past_key_values
    return outputs.logits[:, -keep:], Prompts(returned, inputs["attention_mask"])


def shares_prompts(model: Any, passes: Sequence[Pass], pad_id: int) -> bool:
    """Whether going on behind the keys and values of prompts, read together, gives the logits of each prompt
    and answer read alone; tried on `passes`, and on the longest that stand behind them."""
    if cache_name(model) is None or not {"use_cache", "attention_mask"} <= forward_parameters(model):
        return False
    try:
        return _agrees(model, [_longest_parts(one) for one in passes], pad_id)
    except CACHE_ERRORS:
        logger.debug("sharing prompts failed", exc_info=True)
        return False


def longest_path(one: Pass) -> list[int]:
    """The inputs of a pass, of a branch of it, of a branch of that: the most tokens that there are."""
    return [token for inputs in _longest_parts(one) for token in inputs]


def _longest_parts(one: Pass) -> list[list[int]]:
    paths = [_longest_parts(branch) for branch in one.branches]
    return [one.inputs, *max(paths, key=lambda path: sum(map(len, path)), default=[])]


def _agrees(model: Any, paths: Sequence[list[list[int]]], pad_id: int) -> bool:
    at_end, prompts = read(model, [path[0] for path in paths], pad_id, 1)
    for place, path in enumerate(paths):
        # twice, to see it repeated; and a prompt after the other, to see that none takes anything away
        parts, before, which = [at_end[[place] * 2]], prompts, [place] * 2
        for inputs in path[1:]:
            logits, before = read(model, [inputs] * 2, pad_id, len(inputs), behind=before, which=which)
            parts.append(logits)
            which = [1, 0]
        found = torch.cat(parts, dim=1)  # (2, positions, vocabulary)
        whole = [token for inputs in path for token in inputs]
        expected = last_logits(model, [whole], pad_id, found.shape[1])
        if not same_logits(expected.expand(2, -1, -1), found):
            return False
    return True
