"""Prompts to watch: what a model says after a sentence, token by token, and how it rates the right answer.

    - sentence: The capital of France is
      answer: Paris
    - sentence: La formule H2O est celle de l'
      answer: eau
      joint: ""

`joint` is what stands between the two, " " or "". Left out, it is what is usual (`usual_joint`): a space, but
"" between characters of scripts without spaces, and behind an opening quote, a bracket or `l'`.

The lists of Tidy-STLMs work as they are, in YAML, JSON and Markdown: an answer's leading space, which
belongs between sentence and answer, may be written or not, and lists may be nested under names.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped, read_text
from tidy_stlms.eval.facts.records import JOINTS
from tidy_stlms.eval.facts.text_match import usual_joint
from tidy_stlms.eval.recall.metrics import perplexity

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
KEYS = ("sentence", "answer", "joint")
REMEDY = "write a list of `sentence:` and `answer:` (configs/prompts/capitals.yaml is one)"


def load_prompts(path: str | Path) -> list[dict[str, str | None]]:
    """The `{"sentence", "answer"}` of a file, the answer None where there is none to rate; with `joint` where
    the file says it.

    Raises UserError, naming the file, for one that holds no prompts or something else as well.
    """
    path = find_shipped(path)
    text = read_text(path)
    if path.suffix.lower() in (".md", ".markdown") and (blocks := FENCED.findall(text)):
        text = "\n".join(blocks)
    prompts = list(_prompts(_parse(text, path), path))
    if not prompts:
        raise UserError(f"{path}: holds no prompts; {REMEDY}")
    return prompts


def watch_prompt(
    model: Any, tokenizer: Any, prompt: dict[str, Any], *, max_new_tokens: int, top_k: int
) -> dict[str, Any]:
    """The model's greedy continuation of `prompt["sentence"]` and, where there is one, its answer's figures.

    Returns `sentence, answer, joint, generation`, `top_tokens` (for each step the `top_k` most probable
    tokens as `[text, probability]`) and, with an answer, `answer_logprob` (nats), `answer_perplexity` and
    `answer_token_ranks` (1 the most probable).
    """
    from tidy_stlms.eval.scoring.generation import top_tokens
    from tidy_stlms.eval.scoring.scorer import Item, score

    sentence, answer = prompt["sentence"], _bare(prompt.get("answer"))
    steps = top_tokens(model, tokenizer, sentence, steps=max_new_tokens, k=top_k)
    joint = prompt.get("joint", usual_joint(sentence, answer or ""))
    row: dict[str, Any] = {"sentence": sentence, "answer": answer, "joint": joint}
    row["generation"] = "".join(step.token for step in steps)
    row["top_tokens"] = [[[text, round(p, 6)] for text, p in step.top] for step in steps]
    if answer is not None:
        [scores] = score(model, tokenizer, [Item(sentence, (answer,), id=sentence, joint=joint)])
        row["answer_logprob"] = scores.logprobs[0]
        row["answer_perplexity"] = perplexity(scores.logprobs, scores.n_tokens)
        row["answer_token_ranks"] = list(scores.token_ranks)
    return row


def _parse(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass  # Tidy-STLMs writes JSON5: keys without quotes, commas behind the last item. YAML reads that.
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: neither YAML nor JSON ({reason}); {REMEDY}") from None


def _prompts(value: Any, path: Path) -> Iterator[dict[str, str | None]]:
    if isinstance(value, list):
        for item in value:
            yield from _prompts(item, path)
    elif isinstance(value, str):
        yield _checked({"sentence": value}, path)
    elif isinstance(value, dict) and "sentence" in value:
        yield _checked(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(item, list | dict):
                raise UserError(f"{path}: {key}: is no list of prompts; {REMEDY}")
            yield from _prompts(item, path)
    elif value is not None:
        raise UserError(f"{path}: {value!r:.40} is no prompt; {REMEDY}")


def _checked(prompt: dict[str, Any], path: Path) -> dict[str, str | None]:
    where = f"{path}: {str(prompt['sentence'])[:40]!r}"
    if unknown := [key for key in prompt if key not in KEYS]:
        raise UserError(f"{where}: {unknown[0]}: no such key; a prompt has sentence, answer and joint")
    sentence, answer = prompt["sentence"], prompt.get("answer")
    if not isinstance(sentence, str) or not sentence.strip():
        raise UserError(f"{where}: the sentence must be text")
    # YAML reads 1879 as a number, and 2000-01-01 as a date
    if answer is not None and not isinstance(answer, str):
        raise UserError(f"{where}: the answer must be text, got {answer!r:.40}; put it in quotes")
    if answer is not None and not answer.strip():
        raise UserError(f"{where}: the answer is empty; leave it out if there is none")
    said = {"sentence": sentence, "answer": _bare(answer)}
    if "joint" in prompt:
        if prompt["joint"] not in JOINTS:
            raise UserError(f'{where}: the joint must be "" or " ", got {prompt["joint"]!r:.40}')
        said["joint"] = prompt["joint"]
    return said


def _bare(answer: str | None) -> str | None:
    return None if answer is None else answer.strip(" ")
