"""Prompts to watch: how a model continues a sentence, token by token, and how it rates the right answer.

    - sentence: The capital of France is
      answer: Paris
    - sentence: La formule H2O est celle de l'
      answer: eau
      joint: ""

`joint` is what stands between sentence and answer, " " or "". Without it, `usual_joint` chooses: a space, but
"" between characters of scripts without spaces, and after an opening quote, a bracket or `l'`.

The lists of Tidy-STLMs can be read as they are, in YAML, JSON and Markdown. Their answers may begin with the
space that belongs to the joint, and lists may be nested under names.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import STRICT_JSON, find_shipped, read_text
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.records import Output, Record
from tidy_stlms.configs.yaml_files import MAX_DEPTH, UNWRITABLE, parse_yaml
from tidy_stlms.eval.facts.records import JOINTS
from tidy_stlms.eval.facts.text_match import usual_joint
from tidy_stlms.eval.recall.metrics import perplexity

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
KEYS = ("sentence", "answer", "joint")
REMEDY = "write a list of `sentence:` and `answer:` (configs/prompts/capitals.yaml is one)"


class Prompt(Record, frozen=True):
    """A sentence to continue."""

    sentence: str
    """The text to continue."""
    answer: str | None = None
    """The right continuation; None if there is none to rate."""
    joint: str | None = None
    """What stands between the two; None for `usual_joint`."""


class PromptResult(Output, frozen=True, kw_only=True):
    """What one model gives for one prompt: a line of generations.jsonl, or an item of a study's `prompts`."""

    step: int | UnsetType = UNSET
    """In `generations.jsonl` only: the optimizer steps before the evaluation."""
    prefix: str | UnsetType = UNSET
    """The special token before the sentence: `bos`, `eos` (end-of-text), `none`, or `own` for other tokens
    that the tokenizer adds. Missing in old files."""
    sentence: str
    """The text to continue."""
    answer: str | None
    """The right continuation; null if there is none to rate."""
    joint: str = " "
    """What stands between sentence and answer: a space or nothing. Missing in old files: there a space."""
    generation: str
    """The greedy continuation."""
    top_tokens: tuple[tuple[tuple[str, float], ...], ...]
    """The most probable tokens at each step of the generation, with their probabilities."""
    answer_logprob: float | UnsetType = UNSET
    """ln P(answer | sentence), nats; left out without an answer, like the next two."""
    answer_perplexity: float | UnsetType = UNSET
    """exp(-logprob / tokens)."""
    answer_token_ranks: tuple[float, ...] | UnsetType = UNSET
    """The rank of each of the answer's tokens in the vocabulary, from 1."""


def load_prompts(path: str | Path) -> list[Prompt]:
    """Read the prompts of a file.

    Raises UserError, naming the file, if it holds no prompts or something else too.
    """
    path = find_shipped(path)
    text = read_text(path)
    if path.suffix.lower() in (".md", ".markdown") and (blocks := FENCED.findall(text)):
        text = "\n".join(blocks)
    value = _parse(text, path)
    if isinstance(value, str) and "\n" in text.strip():  # a page or a table, which YAML reads as one text
        raise UserError(f"{path}: is no list of prompts; {REMEDY}")
    prompts = list(_prompts(value, path))
    if not prompts:
        raise UserError(f"{path}: holds no prompts; {REMEDY}")
    return prompts


def watch_prompt(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    *,
    max_new_tokens: int,
    top_k: int,
    prefix: str | None = None,
) -> PromptResult:
    """Continue the sentence greedily, noting each step's `top_k` most probable tokens; rate the answer.

    `prefix` is what stands before the sentence, as for `prefix_of`.
    """
    from tidy_stlms.eval.models.prefix import prefix_of
    from tidy_stlms.eval.scoring.generation import top_tokens
    from tidy_stlms.eval.scoring.scorer import Item, score

    sentence, answer = prompt.sentence, _bare(prompt.answer)
    joint = usual_joint(sentence, answer or "") if prompt.joint is None else prompt.joint
    steps = top_tokens(model, tokenizer, sentence, steps=max_new_tokens, k=top_k, prefix=prefix)
    result = PromptResult(
        prefix=prefix_of(model, tokenizer, prefix).name,
        sentence=sentence,
        answer=answer,
        joint=joint,
        generation="".join(step.token for step in steps),
        top_tokens=tuple(tuple((text, round(p, 6)) for text, p in step.top) for step in steps),
    )
    if answer is None:
        return result
    [scores] = score(model, tokenizer, [Item(sentence, (answer,), id=sentence, joint=joint)], prefix=prefix)
    return replace(
        result,
        answer_logprob=scores.logprobs[0],
        answer_perplexity=perplexity(scores.logprobs, scores.n_tokens),
        answer_token_ranks=tuple(scores.token_ranks),
    )


def _parse(text: str, path: Path) -> Any:
    with contextlib.suppress(UserError), reading(path):
        return STRICT_JSON.decode(text)
    # Tidy-STLMs writes JSON5: keys without quotes, commas after the last item. YAML reads that, and says
    # what is wrong in any other file.
    try:
        return parse_yaml(text, path, "neither YAML nor JSON")
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from None


def _prompts(value: Any, path: Path, depth: int = 0) -> Iterator[Prompt]:
    if depth > MAX_DEPTH:
        raise UserError(f"{path}: is nested more than {MAX_DEPTH} levels deep; {REMEDY}")
    if isinstance(value, list):
        for item in value:
            yield from _prompts(item, path, depth + 1)
    elif isinstance(value, str):
        yield _checked({"sentence": value}, path)
    elif isinstance(value, dict) and "sentence" in value:
        yield _checked(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(item, list | dict):
                raise UserError(f"{path}: {key:.60}: is no list of prompts; {REMEDY}")
            yield from _prompts(item, path, depth + 1)
    elif value is not None:
        raise UserError(f"{path}: {shown(value)} is no prompt; {REMEDY}")


def _checked(prompt: dict[str, Any], path: Path) -> Prompt:
    where = f"{path}: {shown(prompt['sentence'])}"
    if unknown := [key for key in prompt if key not in KEYS]:
        raise UserError(f"{where}: {unknown[0]:.60}: no such key; a prompt has sentence, answer and joint")
    sentence, answer = prompt["sentence"], prompt.get("answer")
    if not isinstance(sentence, str) or not sentence.strip():
        raise UserError(f"{where}: the sentence must be text")
    # YAML reads 1879 as a number, and 2000-01-01 as a date
    if answer is not None and not isinstance(answer, str):
        raise UserError(f"{where}: the answer must be text, got {shown(answer)}; put it in quotes")
    if answer is not None and not answer.strip():
        raise UserError(f"{where}: the answer is empty; leave it out if there is none")
    if found := UNWRITABLE.search(sentence + (answer or "")):
        raise UserError(f"{where}: holds the character {found.group()!a}, which cannot be written; remove it")
    if "joint" in prompt and prompt["joint"] not in JOINTS:
        raise UserError(f'{where}: the joint must be "" or " ", got {shown(prompt["joint"])}')
    return Prompt(sentence, _bare(answer), prompt.get("joint"))


def _bare(answer: str | None) -> str | None:
    """An answer without its joint, which Tidy-STLMs writes in front of it."""
    return None if answer is None else answer.strip(" ")
