"""Measures how far padding, caches and later tokens change a model's logits. All differences should be zero.

    self_check(model, tokenizer, ["Ada Lopez was born in", "The"])

The scorer pads rows, reads a prompt once for all its answers, and generates with a cache. Whether that leaves
a model's logits as they are depends on the model's code. No test of this project can know all models. So each
one is tried on two short texts, and results hold the differences.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.records import Output
from tidy_stlms.eval.models.checks import lookahead
from tidy_stlms.eval.models.inputs import context_length, logit_difference, logits_with_padding, padding_id
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.scoring.encoding import encode_prompts
from tidy_stlms.eval.scoring.generation_check import logits_of_generation
from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched
from tidy_stlms.eval.scoring.prompt_cache import logits_after_cache
from tidy_stlms.eval.scoring.sequences import InputSequence

SENTENCES = ("The", "The old farmer walked to the market, and then he")  # where nothing else is asked
LONGEST = 64  # tokens of a prompt that are read
N_ANSWER = 2  # tokens that stand for an answer


class SelfCheck(Output, frozen=True, kw_only=True):
    """Largest differences of logits that should be equal, each divided by the largest logit if that is above
    1. In float32, rounding gives about 1e-6; in bfloat16 about 1e-2. Null: the model's code fails at this, or
    gives no number."""

    lookahead: float | None
    """Of earlier tokens when the last token is another one."""
    padding: float | None
    """With padding in front, against without. If it is large, only rows of equal length share a batch."""
    shared_prompt: float | None
    """Of an answer after a cached prompt, against both in one pass. If it is large or null, prompts are read
    anew for each answer."""
    generation: float | None
    """Of generation with the cache, against without. If it is large, recall of the model is refused, unless
    nothing is generated (`--no-generate`)."""


def self_check(model: Any, tokenizer: Any, prompts: Sequence[str], *, prefix: str | None = None) -> SelfCheck:
    """Try the model on the shortest and the longest prompt. Nothing is raised for what it cannot do.

    `prefix` is what stands before the prompts, as for `prefix_of`.
    """
    prompts = [prompt for prompt in prompts if prompt.strip()] or SENTENCES
    chosen = [min(prompts, key=len), max(prompts, key=len)]
    pad_id, prefix_ids = padding_id(model, tokenizer), prefix_of(model, tokenizer, prefix).ids
    longest = min(LONGEST, (context_length(model) or LONGEST) - N_ANSWER)
    short, long = sorted(
        encode_prompts(tokenizer, chosen, [longest] * 2, prefix=prefix_ids, warn=False), key=len
    )
    if len(short) == len(long):  # padding needs two lengths
        short = short[: (len(short) + 1) // 2]
    # the end of the longer prompt stands for an answer
    sequences = [InputSequence(row, continuations=[InputSequence(long[-N_ANSWER:])]) for row in (short, long)]

    def generation() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        return logits_of_generation(model, tokenizer, chosen, prefix=prefix)

    with rng_untouched(model), torch.no_grad(), eval_mode(model):
        return SelfCheck(
            lookahead=_tried(lambda: lookahead(model, "the model")),
            padding=_tried(lambda: _largest([logits_with_padding(model, long, short, pad_id)])),
            shared_prompt=_tried(lambda: _largest(logits_after_cache(model, sequences, pad_id))),
            generation=_tried(lambda: _largest(generation())),
        )


def _tried(measure: Callable[[], float]) -> float | None:
    """What `measure` gives, with 3 digits; None if the model's code fails or gives no number."""
    try:
        with reading("self-check"):
            value = measure()
    except UserError:
        return None
    return float(f"{value:.2e}") if value == value else None


def _largest(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    return max(logit_difference(expected, actual) for expected, actual in pairs)
