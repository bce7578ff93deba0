"""Greedy generation: what a model says by itself after a prompt, and whether that is the answer."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.text_match import holds_answer, is_answer
from tidy_stlms.eval.models.inputs import (
    base_model,
    context_length,
    fill_batches,
    left_pad,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.scoring.budget import default_budget, one_line_where_memory_ends, run_batches
from tidy_stlms.eval.scoring.encoding import encode_prompts
from tidy_stlms.eval.scoring.isolation import eval_mode
from tidy_stlms.eval.tokens import encode_texts

# Tokens after the longest answer: its full stop, what follows that ("3." or "3.5"), and one to spare
# for a model that spells the answer in more tokens than its tokenizer would.
TOKENS_AFTER_ANSWER = 3


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt."""

    text: str
    ended: bool
    """It closed the text itself, with end-of-text."""
    truncated: bool = False
    """The prompt's beginning was left out, for want of room in the context."""


@dataclass(frozen=True)
class Step:
    """One greedy token, and the most probable tokens at its place with their probabilities."""

    token: str
    top: list[tuple[str, float]]


def generate_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: Sequence[int],
    *,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> list[Continuation]:
    """Continue every prompt greedily, each by at most its own number of tokens.

    A prompt that leaves no room for them in the model's context is cut from the left.
    """
    if not prompts:
        return []
    pad_id, ends = padding_id(model, tokenizer), end_ids(model, tokenizer)
    budget = default_budget(model, batch_tokens)
    context = context_length(model) or math.inf
    limits = [int(max(1, min(wanted, context - 1))) for wanted in max_new_tokens]
    whole = encode_prompts(tokenizer, prompts)
    rows = whole
    if any(len(row) + limit > context for row, limit in zip(whole, limits, strict=True)):
        rows = encode_prompts(tokenizer, prompts, [int(context - limit) for limit in limits])
    results: dict[int, Continuation] = {}

    def run(batch: list[int]) -> None:
        new_ids, _ = generate_ids(
            model, [rows[i] for i in batch], pad_id, ends, max(limits[i] for i in batch)
        )
        for i, ids in zip(batch, new_ids, strict=True):
            # its own limit, for a text must not depend on what else was in the batch
            length = next((k for k, token in enumerate(ids[: limits[i]]) if token in ends), limits[i])
            text = tokenizer.decode(ids[:length], clean_up_tokenization_spaces=False)
            results[i] = Continuation(text, ended=length < limits[i], truncated=rows[i] != whole[i])
        bar.update(len(batch))

    with (
        torch.no_grad(),
        eval_mode(model),
        one_line_where_memory_ends(model),
        tqdm(total=len(rows), desc="generating", unit="probe", disable=not progress) as bar,
    ):
        same_length = not pads_safely(model, rows, pad_id)
        for steps, group in _alike(rows, limits, context).items():
            batches = fill_batches(
                [len(rows[i]) + steps for i in group],
                [1] * len(group),
                batch_tokens=budget.tokens,
                max_logits=budget.logits // text_config(model).vocab_size,
                same_length=same_length,
            )
            run_batches([[group[k] for k in batch] for batch in batches], run, budget)
    return [results[i] for i in range(len(rows))]


def _alike(rows: Sequence[list[int]], limits: Sequence[int], context: float) -> dict[int, list[int]]:
    """Rows that may share a batch, by the most steps that it may take: those that have room for as many new
    tokens as any row takes, and of the others those that take equally many."""
    most = max(limits)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[most if len(row) + most <= context else limits[i]].append(i)
    return groups


def top_tokens(
    model: Any, tokenizer: Any, prompt: str, steps: int, k: int = 10, *, control_tokens: bool = False
) -> list[Step]:
    """The greedy continuation token by token, with the `k` most probable tokens at each step.

    Stops behind end-of-text and where the context is full; a prompt that fills it alone loses its beginning.
    `control_tokens` reads control tokens in the prompt as such (`<|im_start|>`), not as text.

    Raises UserError where a probability is not a number.
    """
    context = context_length(model) or math.inf
    [row] = encode_prompts(tokenizer, [prompt], control_tokens=control_tokens)
    if len(row) >= context:
        limits = [int(max(1, context - 1))]
        [row] = encode_prompts(tokenizer, [prompt], limits, control_tokens=control_tokens)
    room = int(max(1, min(steps, context - len(row))))
    pad_id, ends = padding_id(model, tokenizer), end_ids(model, tokenizer)
    with torch.no_grad(), eval_mode(model):
        [ids], logits = generate_ids(model, [row], pad_id, ends, room, keep_logits=True)
    found = []
    for token, step_logits in zip(ids, logits, strict=True):
        probabilities = step_logits[0].float().softmax(-1)  # (vocabulary,)
        if probabilities.isnan().any():
            raise UserError(
                f"{prompt!r:.60}: the model's probabilities are not numbers: its weights are broken, or the "
                "dtype too narrow (try float32)"
            )
        best = probabilities.topk(min(k, len(probabilities)))
        top = [
            (tokenizer.decode([i]), p)
            for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        found.append(Step(tokenizer.decode([token]), top))
    return found


def answer_budgets(
    tokenizer: Any, answers: Sequence[Sequence[str]], joints: Sequence[str] | None = None
) -> list[int]:
    """For each prompt's answers, how many new tokens are enough to see the longest of them and its end.

    `joints` says what stands before each prompt's answers; spaces when left out.
    """
    joints = [" "] * len(answers) if joints is None else joints
    flat = [joint + answer for joint, group in zip(joints, answers, strict=True) for answer in group]
    if not flat:
        return [TOKENS_AFTER_ANSWER] * len(answers)
    lengths = iter([len(ids) for ids in encode_texts(tokenizer, flat)["input_ids"]])
    longest = [max((next(lengths) for _ in group), default=0) for group in answers]
    return [length + TOKENS_AFTER_ANSWER for length in longest]


def exact_match(continuation: Continuation, answers: Sequence[str], terminators: str = ".") -> bool:
    """Whether the text up to its first terminator outside the answer is one of `answers` (`is_answer`)."""
    return is_answer(continuation.text, answers, continuation.ended, terminators)


def containment(continuation: Continuation, answers: Sequence[str]) -> bool:
    """Whether one of `answers` stands anywhere in the text, as whole words (`holds_answer`)."""
    return holds_answer(continuation.text, answers)


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end a text: the tokenizer's, and those that the model was trained to stop at."""
    ids: set[int] = set()
    for end in (tokenizer.eos_token_id, getattr(base_model(model).generation_config, "eos_token_id", None)):
        ids.update(end if isinstance(end, list) else [end] if end is not None else [])
    return ids


def generate_ids(
    model: Any,
    rows: list[list[int]],
    pad_id: int,
    ends: set[int],
    max_new_tokens: int,
    *,
    keep_logits: bool = False,
) -> tuple[list[list[int]], tuple[torch.Tensor, ...]]:
    """Greedy new ids of each row, filled up with `pad_id` behind its end.

    With `keep_logits` also the logits of every step, each (rows, vocabulary); else none.
    """
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=pad_id,
        eos_token_id=sorted(ends) or None,
        return_dict_in_generate=True,
        output_logits=keep_logits,
    )
    inputs = left_pad(rows, pad_id, model.device)
    with _plain_generation_config(model):
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=config
        )
    width = inputs["input_ids"].shape[1]
    return output.sequences[:, width:].tolist(), output.logits or ()


@contextlib.contextmanager
def _plain_generation_config(model: Any) -> Iterator[None]:
    """Hide the model's own generation settings: a repetition penalty or a banned token of the model's
    `generation_config.json` would slip into whatever an explicit config leaves open."""
    from transformers import GenerationConfig

    owners = [base_model(model), model]  # a peft wrapper hands its own on to the model inside
    kept = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, kept, strict=True):
            owner.generation_config = config
