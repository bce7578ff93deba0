"""Greedy generation: how a model continues a prompt, and whether that is the answer."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.reading import reading
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
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.scoring.budget import default_budget, is_out_of_memory, memory_errors, run_batches
from tidy_stlms.eval.scoring.encoding import encode_prompts
from tidy_stlms.eval.scoring.isolation import eval_mode
from tidy_stlms.eval.tokens import encode_texts

# New tokens after the longest answer: its full stop, the token after that (to distinguish "3." from "3.5"),
# and one more for a model that spells the answer in more tokens than its tokenizer would.
TOKENS_AFTER_ANSWER = 3


@dataclass(frozen=True)
class Continuation:
    """The text that a model generated after a prompt."""

    text: str
    ended: bool
    """The model ended the text with end-of-text."""
    truncated: bool = False
    """The prompt was cut from the left to fit the context."""


@dataclass(frozen=True)
class Step:
    """One step of greedy generation."""

    token: str
    top: list[tuple[str, float]]
    """The most probable tokens at its position, with their probabilities."""


def generate_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: Sequence[int],
    *,
    batch_tokens: int | None = None,
    prefix: str | None = None,
    progress: bool = False,
) -> list[Continuation]:
    """Continue every prompt greedily, by at most its own number of tokens; results in order of the prompts.

    A prompt that leaves no room in the model's context for the new tokens is cut from the left. The texts do
    not depend on `batch_tokens`, the tokens of a batch, nor on the other prompts. `prefix` is what stands
    before each prompt, as for `prefix_of`.

    Raises UserError if there is no memory for a single prompt.
    """
    if not prompts:
        return []
    pad_id, ends = padding_id(model, tokenizer), end_ids(model, tokenizer)
    budget = default_budget(model, batch_tokens)
    context = context_length(model) or math.inf
    limits = [int(max(1, min(limit, context - 1))) for limit in max_new_tokens]
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    rows, truncated = _encode_with_room(tokenizer, prompts, limits, context, prefix_ids)
    results: dict[int, Continuation] = {}

    def run(batch: list[int]) -> None:
        new_ids, _ = generate_ids(
            model, [rows[i] for i in batch], pad_id, ends, max(limits[i] for i in batch)
        )
        for i, ids in zip(batch, new_ids, strict=True):
            # cut at the prompt's own limit: the batch ran to the largest limit of its prompts
            length = next((k for k, token_id in enumerate(ids[: limits[i]]) if token_id in ends), limits[i])
            text = tokenizer.decode(ids[:length], clean_up_tokenization_spaces=False)
            results[i] = Continuation(text, ended=length < limits[i], truncated=truncated[i])
        bar.update(len(batch))

    with (
        torch.no_grad(),
        eval_mode(model),
        memory_errors(model),
        tqdm(total=len(rows), desc="generating", unit="probe", disable=not progress) as bar,
    ):
        same_length = not pads_safely(model, rows, pad_id)
        for steps, group in _group_by_steps(rows, limits, context).items():
            batches = fill_batches(
                [len(rows[i]) + steps for i in group],
                [1] * len(group),
                batch_tokens=budget.tokens,
                max_logits=budget.logits // text_config(model).vocab_size,
                same_length=same_length,
            )
            run_batches([[group[k] for k in batch] for batch in batches], run, budget)
    return [results[i] for i in range(len(rows))]


def _encode_with_room(
    tokenizer: Any, prompts: Sequence[str], limits: Sequence[int], context: float, prefix: Sequence[int]
) -> tuple[list[list[int]], list[bool]]:
    """Token ids of each prompt, with room for `limits` new tokens in the context, and whether it was cut."""
    uncut = encode_prompts(tokenizer, prompts, prefix=prefix)
    if all(len(row) + limit <= context for row, limit in zip(uncut, limits, strict=True)):
        return uncut, [False] * len(uncut)
    rows = encode_prompts(tokenizer, prompts, [int(context - limit) for limit in limits], prefix=prefix)
    return rows, [row != whole for row, whole in zip(rows, uncut, strict=True)]


def _group_by_steps(rows: Sequence[list[int]], limits: Sequence[int], context: float) -> dict[int, list[int]]:
    """Group the indices of rows that may share batches, by the number of steps of these batches.

    A batch runs until the largest limit of its rows. Rows that have room in the context for the largest limit
    of all form one group. A longer row would exceed the context there, so it shares batches only with rows of
    the same limit.
    """
    largest = max(limits)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[largest if len(row) + largest <= context else limits[i]].append(i)
    return groups


def top_tokens(
    model: Any,
    tokenizer: Any,
    prompt: str,
    steps: int,
    k: int = 10,
    *,
    prefix: str | None = None,
    control_tokens: bool = False,
) -> list[Step]:
    """The greedy continuation token by token, with the `k` most probable tokens at each step.

    Stops after end-of-text, or when the context is full. A prompt that fills the context is cut from the
    left. `prefix` is what stands before the prompt, as for `prefix_of`. With `control_tokens`, control tokens
    in the prompt (`<|im_start|>`) are encoded as such, not as text.

    Raises UserError if a probability is not a number.
    """
    context = context_length(model) or math.inf
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    [row] = encode_prompts(tokenizer, [prompt], prefix=prefix_ids, control_tokens=control_tokens)
    if len(row) >= context:
        limits = [int(max(1, context - 1))]
        [row] = encode_prompts(tokenizer, [prompt], limits, prefix=prefix_ids, control_tokens=control_tokens)
    max_new_tokens = int(max(1, min(steps, context - len(row))))
    pad_id, ends = padding_id(model, tokenizer), end_ids(model, tokenizer)
    with torch.no_grad(), eval_mode(model):
        [ids], logits = generate_ids(model, [row], pad_id, ends, max_new_tokens, keep_logits=True)
    greedy_steps = []
    for token_id, step_logits in zip(ids, logits, strict=True):
        probabilities = step_logits[0].float().softmax(-1)  # (vocabulary,)
        if probabilities.isnan().any():
            raise UserError(
                f"{shown(prompt)}: the model's probabilities are not numbers: its weights are broken, or the "
                "dtype too narrow (try float32)"
            )
        best = probabilities.topk(min(k, len(probabilities)))
        top = [
            (tokenizer.decode([i]), p)
            for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        greedy_steps.append(Step(tokenizer.decode([token_id]), top))
    return greedy_steps


def answer_budgets(
    tokenizer: Any, answers: Sequence[Sequence[str]], joints: Sequence[str] | None = None
) -> list[int]:
    """For each prompt, how many new tokens are enough to see the longest of its answers and where it ends.

    `joints` are the joints of the prompts; spaces by default.
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
    """Whether the text contains one of `answers` as whole words (`holds_answer`)."""
    return holds_answer(continuation.text, answers)


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end a text: the tokenizer's end-of-text, and those in the model's generation config.

    Raises UserError for something else in that config.
    """
    ids: set[int] = set()
    for eos in (tokenizer.eos_token_id, getattr(base_model(model).generation_config, "eos_token_id", None)):
        listed = eos if isinstance(eos, list) else [eos] if eos is not None else []
        if any(type(token_id) is not int for token_id in listed):
            raise UserError(
                f"generation_config.json: eos_token_id must be a token id or a list of them, got {shown(eos)}"
            )
        ids.update(listed)
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
    """Generate greedily. Returns the new ids of each row, and the logits of every step.

    A row that has ended is filled up with `pad_id`. The logits are one tensor (rows, vocabulary) for each
    step; without `keep_logits` there are none.
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
    with _plain_generation_config(model), _generation_errors():
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=config
        )
    width = inputs["input_ids"].shape[1]
    return output.sequences[:, width:].tolist(), output.logits or ()  # `generate` returns the prompts too


def _generation_errors() -> contextlib.AbstractContextManager[None]:
    """Turn an error of a model that cannot generate into one line: a wrong config value may show only here.

    Out-of-memory errors pass unchanged, so that smaller batches are tried.
    """
    remedy = "; correct it, or measure without it (--no-generate, evaluation.generate=false)"
    return reading("generation fails", remedy, passes=is_out_of_memory)


@contextlib.contextmanager
def _plain_generation_config(model: Any) -> Iterator[None]:
    """Hide the model's own generation config inside the block.

    `generate` fills what an explicit config leaves open from the model's `generation_config.json`. A
    repetition penalty or a banned token from there would change what is generated.
    """
    from transformers import GenerationConfig

    modules = [base_model(model), model]  # a peft wrapper passes its own config to the model inside
    configs = [module.generation_config for module in modules]
    for module in modules:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, config in zip(modules, configs, strict=True):
            module.generation_config = config
