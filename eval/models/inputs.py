"""Turns token rows into tensors that any `AutoModelForCausalLM` takes: batches, padding, positions."""

import inspect
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Names of forward's cache argument, since transformers 5.24 and before. A model may use either.
CACHE_NAMES = ("cache", "past_key_values")
# Names of the maximal sequence length in configs. Models without a limit have none of them.
CONTEXT_LENGTH_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
)


def context_length(model: Any) -> int | None:
    """The number of tokens that the model can read at once, from its config; None if it has no limit."""
    return context_length_of(text_config(model))


def context_length_of(config: Any) -> int | None:
    """`context_length` of the model that a config describes."""
    lengths = (getattr(config, name, None) for name in CONTEXT_LENGTH_NAMES)
    return next((length for length in lengths if type(length) is int and length > 0), None)


def text_config(model: Any) -> Any:
    """The config of the language model, also of a model that has other parts (vision) beside it."""
    return model.config.get_text_config(decoder=True)


def base_model(model: Any) -> Any:
    """The model inside a peft wrapper, or the model itself. A wrapper's forward takes `**kwargs`, which hides
    the arguments of the model inside."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attention_of(model: Any) -> str | None:
    """The name of the model's implementation of attention, such as "sdpa"; None if it has none."""
    return getattr(text_config(base_model(model)), "_attn_implementation", None)


def forward_parameters(model: Any) -> set[str]:
    """Names of the arguments of the model's forward."""
    return set(inspect.signature(base_model(model).forward).parameters)


def cache_name(model: Any) -> str | None:
    """The argument of the model's forward that takes a cache; None if there is none."""
    parameters = forward_parameters(model)
    return next((name for name in CACHE_NAMES if name in parameters), None)


def padding_id(model: Any, tokenizer: Any) -> int:
    """A token id to fill rows with.

    Padding is masked, but its id must have an embedding. A pad token that was added to the tokenizer and not
    to the model has none; many scripts do that for GPT-2.
    """
    size = text_config(model).vocab_size
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((i for i in ids if i is not None and i < size), 0)


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `position_ids`, each (rows, longest row), padded on the left.

    Padding stands on the left so that all rows end in the last column. Answers stand at the ends of rows:
    `logits_to_keep` keeps the last positions of all rows at once, and new tokens follow right behind them.

    Positions count from each row's first real token. Models with absolute positions would count the padding
    too in a plain forward pass, and a row's logits would depend on the longest row of its batch.
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
    """Logits of the last `keep` positions of each row from one forward pass, (rows, keep, vocabulary).

    They are what the model's own forward returns. Hidden states times the output matrix would miss what some
    models do to logits afterwards (soft-capping, scaling).
    """
    return model(**forward_arguments(model, rows, pad_id, keep)).logits[:, -keep:]


def forward_arguments(model: Any, rows: Sequence[Sequence[int]], pad_id: int, keep: int) -> dict[str, Any]:
    """Arguments for a forward pass over `rows`: those that the model takes. `keep` logits are kept."""
    parameters = forward_parameters(model)
    arguments: dict[str, Any] = {**left_pad(rows, pad_id, model.device), "use_cache": False}
    # an integer: some models do not take a tensor of indices, which transformers added later
    arguments["logits_to_keep"] = keep
    return {name: value for name, value in arguments.items() if name in parameters}


def pads_safely(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> bool:
    """Whether padding leaves the model's logits unchanged, tried on the longest and the shortest row.

    Recurrent models such as RWKV read padding as text. Logs a warning if padding changes the logits.
    """
    longest, shortest = max(rows, key=len), min(rows, key=len)
    if len(longest) == len(shortest):
        return True
    alone, padded = logits_with_padding(model, longest, shortest, pad_id)
    safe = same_logits(alone, padded)
    if not safe:
        logger.warning("this model's numbers change with padding: only rows of equal length share a batch")
    return safe


def logits_with_padding(
    model: Any, longest: Sequence[int], shortest: Sequence[int], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last logits of `shortest`, (vocabulary,): read alone, and in a batch with `longest`."""
    alone = last_logits(model, [shortest], pad_id, 1)[0, -1]
    return alone, last_logits(model, [longest, shortest], pad_id, 1)[1, -1]


def same_logits(expected: torch.Tensor, actual: torch.Tensor) -> bool:
    """Whether two computations of the same logits agree up to their dtype's rounding; NaN never does."""
    is_exact = expected.dtype in (torch.float32, torch.float64)
    return logit_difference(expected, actual) <= (1e-4 if is_exact else 5e-2)


def logit_difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """The largest difference of two computations of the same logits, divided by the largest logit if that is
    above 1. NaN if one of them is NaN."""
    difference = (expected.float() - actual.float()).abs().max().item()
    return difference / max(1.0, expected.abs().max().item())


def fill_batches(
    lengths: Sequence[int],
    n_logits: Sequence[int],
    *,
    batch_tokens: int,
    max_logits: int,
    same_length: bool = False,
    pass_tokens: float = math.inf,
) -> list[list[int]]:
    """Group rows of similar length into batches of row indices, the longest rows first.

    Longest first, so that a text that does not fit into memory fails at once and not after an hour.

    A row that exceeds `batch_tokens` or `max_logits` alone gets a batch of its own.

    Args:
        lengths: Tokens of each row.
        n_logits: Positions of each row whose logits are kept.
        batch_tokens: Tokens of a batch, padding included: memory and time grow with tokens, not with rows.
        max_logits: Positions of a batch whose logits are kept.
        same_length: Never pad: only rows of equal length share a batch.
        pass_tokens: Cost of a forward pass, in tokens. Shorter rows start a batch of their own if their
            padding would cost more than that.
    """
    batches: list[list[int]] = []
    width = most_logits = 0
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    for n_placed, row in enumerate(order):
        size = len(batches[-1]) + 1 if batches else 0
        most_logits = max(most_logits, n_logits[row])
        fits = size > 0 and size * width <= batch_tokens and size * most_logits <= max_logits
        padding = width - lengths[row]
        if fits and padding:
            # the rows that follow are as short as this one or shorter, and need at least its padding
            n_padded = min(len(order) - n_placed, batch_tokens // width - size + 1)
            fits = not same_length and n_padded * padding <= pass_tokens
        if fits:
            batches[-1].append(row)
        else:
            batches.append([row])
            width, most_logits = lengths[row], n_logits[row]
    return batches
