"""Checks on two prompts that generation with the cache gives the same logits as without it.

Model code for another version of transformers can ignore the cache without an error, for example because the
argument was renamed and lands in `**kwargs`. Then every continuation would be wrong, without a warning.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import context_length, last_logits, padding_id, pads_safely
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.scoring.encoding import encode_prompts
from tidy_stlms.eval.scoring.generation import generate_ids
from tidy_stlms.eval.scoring.isolation import eval_mode

STEPS = 3  # step 1 fills the cache, step 2 reads it, step 3 reads what step 2 added
# Relative to the largest logit. An ignored cache changes logits by about their own size; rounding changes
# them by far less, also in bfloat16 and under autocast.
TOLERANCE = 5e-2


def check_generation(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, prefix: str | None = None
) -> None:
    """Generate a few tokens after the shortest and the longest prompt, in one batch if padding is safe.

    `prefix` is what stands before the prompts, as for `prefix_of`.

    Raises UserError if a step's logits differ from those of one forward pass over the same text without a
    cache.
    """
    tried = logits_of_generation(model, tokenizer, prompts, prefix=prefix) if prompts else ()
    for expected, cached in tried:
        if not expected.isfinite().all():
            return  # broken weights: the scorer reports them, and names the probe
        if not (expected - cached).abs().max() <= TOLERANCE * expected.abs().max():
            raise UserError(_message(cached, expected))


def logits_of_generation(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, prefix: str | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For the shortest and the longest prompt, the logits of each generated token, (steps, vocabulary):
    from one forward pass without a cache, and from generation."""
    context = context_length(model)
    chosen = sorted({min(prompts, key=len), max(prompts, key=len)})
    limits = [max(1, context - STEPS)] * len(chosen) if context is not None else None
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    rows = encode_prompts(tokenizer, chosen, limits, prefix=prefix_ids, warn=False)
    pad_id = padding_id(model, tokenizer)
    with torch.no_grad(), eval_mode(model):
        may_pad = pads_safely(model, rows, pad_id)
        for batch in [rows] if may_pad else [[row] for row in rows]:
            new_ids, logits = generate_ids(model, batch, pad_id, set(), STEPS, keep_logits=True)
            for index, (row, ids) in enumerate(zip(batch, new_ids, strict=True)):
                cached = torch.stack([step[index] for step in logits]).float()  # (steps, vocabulary)
                text = [*row, *ids[: len(cached) - 1]]
                [expected] = last_logits(model, [text], pad_id, len(cached)).float()  # (steps, vocabulary)
                yield expected, cached


def _message(cached: torch.Tensor, expected: torch.Tensor) -> str:
    from importlib.metadata import version

    difference = (cached - expected).abs().max().item()
    return (
        f"generation with the cache gives other logits than without it ({difference:.3g} apart): the model's "
        f"code does not fit transformers {version('transformers')}; update one of the two, or measure "
        "without generation (--no-generate, evaluation.generate=false)"
    )
