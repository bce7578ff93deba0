"""Rows of tokens to tensors that any `AutoModelForCausalLM` takes: left-padded, in batches of a budget."""

import inspect
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Names of forward's cache argument, since transformers 5.24 and before. A model may use either.
CACHE_NAMES = ("cache", "past_key_values")
# Names under which configs keep the longest sequence; models without such a limit have none of them.
CONTEXT_LENGTH_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
)


def context_length(model: Any) -> int | None:
    """The number of tokens that the model can read at once, from its config; None without a limit."""
    config = text_config(model)
    lengths = (getattr(config, name, None) for name in CONTEXT_LENGTH_NAMES)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def text_config(model: Any) -> Any:
    """The config of the language model, also where a model has other parts (vision) beside it."""
    return model.config.get_text_config(decoder=True)


def base_model(model: Any) -> Any:
    """The model inside a peft wrapper, whose own forward hides what the model takes; else the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward_parameters(model: Any) -> set[str]:
    """What the model's forward takes by name."""
    return set(inspect.signature(base_model(model).forward).parameters)


def cache_name(model: Any) -> str | None:
    """The argument of the model's forward that takes a cache; None where there is none."""
    taken = forward_parameters(model)
    return next((name for name in CACHE_NAMES if name in taken), None)


def padding_id(model: Any, tokenizer: Any) -> int:
    """An id to fill rows with. It is masked, but must lie inside the embedding: a pad token that was added
    to the tokenizer alone (as many scripts do for GPT-2) lies outside."""
    size = text_config(model).vocab_size
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((i for i in ids if i is not None and i < size), 0)


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `position_ids`, each (rows, longest), the rows flush right.

    Positions count from each row's first real token: models with absolute positions do not find them
    by themselves in a bare forward pass.
    """
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        input_ids[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        attention_mask[index, width - len(row) :] = 1
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    tensors = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def last_logits(model: Any, rows: Sequence[Sequence[int]], pad_id: int, keep: int) -> torch.Tensor:
    """One forward pass; the logits of the last `keep` positions, (rows, keep, vocabulary).

    They come from the model's own forward, never from hidden states put through its head by hand, which
    would skip what some models do to logits (soft-capping, scaling).
    """
    taken = forward_parameters(model)
    arguments: dict[str, Any] = {**left_pad(rows, pad_id, model.device), "use_cache": False}
    # an integer, for a tensor of indices is a later addition that not every model knows
    arguments["logits_to_keep"] = keep
    outputs = model(**{name: value for name, value in arguments.items() if name in taken})
    return outputs.logits[:, -keep:]


def pads_safely(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> bool:
    """Whether padding leaves the model's logits alone, tried on the longest and the shortest row.

    Recurrent models such as RWKV read the padding as if it were text.
    """
    longest, shortest = max(rows, key=len), min(rows, key=len)
    if len(longest) == len(shortest):
        return True
    alone = last_logits(model, [shortest], pad_id, 1)[0, -1]
    padded = last_logits(model, [longest, shortest], pad_id, 1)[1, -1]
    safe = same_logits(alone, padded)
    if not safe:
        logger.warning("this model's numbers change with padding: only rows of equal length share a batch")
    return safe


def same_logits(expected: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether two ways to the same logits agree, as far as their dtype lets them; NaN never does."""
    exact = expected.dtype in (torch.float32, torch.float64)
    tolerance = (1e-4 if exact else 5e-2) * max(1.0, expected.abs().max().item())
    return bool((expected.float() - found.float()).abs().max() <= tolerance)


def fill_batches(
    lengths: Sequence[int],
    n_logits: Sequence[int],
    *,
    batch_tokens: int,
    max_logits: int,
    same_length: bool = False,
    pass_tokens: float = math.inf,
) -> list[list[int]]:
    """Indices of rows that go through the model together, neighbours in length.

    A batch holds at most `batch_tokens` tokens with its padding, and at most `max_logits` positions whose
    logits are kept (`n_logits` of each row); a row that is larger than that goes alone. The longest come
    first, so that what does not fit into memory fails at once. Where the padding of shorter rows would
    outweigh one more pass, which costs as much as `pass_tokens` tokens, they begin a batch of their own.
    """
    batches: list[list[int]] = []
    width = most_logits = 0
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    for place, row in enumerate(order):
        size = len(batches[-1]) + 1 if batches else 0
        most_logits = max(most_logits, n_logits[row])
        fits = size > 0 and size * width <= batch_tokens and size * most_logits <= max_logits
        padding = width - lengths[row]
        if fits and padding:
            to_come = min(len(order) - place, batch_tokens // width - size + 1)
            fits = not same_length and to_come * padding <= pass_tokens
        if fits:
            batches[-1].append(row)
        else:
            batches.append([row])
            width, most_logits = lengths[row], n_logits[row]
    return batches
