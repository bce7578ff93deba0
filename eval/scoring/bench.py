"""How fast the scorer is, beside two other ways to the same numbers, on one model, bank and machine.

    report = bench_recall(build_subject(n_probes=200, n_candidates=10), repeats=3)

Two jobs are timed. *Probes*: the log-probability and the vocabulary ranks of each true answer, by

- `loop`: what Tidy-STLMs does. Batch 1, no cache, one forward pass with all its logits for each answer
  token, gone through once for the rank (a sort of the vocabulary) and once for the perplexity. It is
  handed tokens; the others are handed text.
- `lm_eval`: `HFLM.loglikelihood` at batch 32. It tells no ranks.
- `ours`: `tidy_stlms.eval.scoring.scorer.score`.

*Candidates*: the log-probabilities of all candidates of a probe, by `lm_eval` and `ours`. The loop has no
such thing.

All get the same probes, as long as they take seconds: the loop, whose speed does not depend on their number,
gets fewer, and candidates are timed on fewer than the true answers are.
"""

import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidy_stlms import configs
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.scoring.encoding import Item, Row, encode_items

# STLMs by their approximate size, as changes to the default config of 50M
SIZES: dict[str, dict[str, Any]] = {
    "1M": {
        "vocab_size": 4096,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "10M": {"vocab_size": 16384, "hidden_size": 320, "intermediate_size": 960, "num_hidden_layers": 6},
    "50M": {},
    "124M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
    },
}
PEOPLE = Path(configs.__file__).parent / "facts" / "people.yaml"
PROBES_PER_PERSON = 20  # of people.yaml, and some to spare
# Learnt from so many other people, a vocabulary of this size cuts prompts and answers into as many tokens as
# GPT-2's does: 7.0 and 2.3 on average.
TOKENIZER_SIZE, OTHER_PEOPLE = 3500, 400
LM_EVAL_BATCH = 32
TOLERANCE = 1e-3  # nats, of a whole answer


@dataclass
class Subject:
    """What is scored, and the probes that it is scored on."""

    name: str
    model: Any
    tokenizer: Any
    items: list[Item]


@dataclass
class Timed:
    """One way to do a job: `run` returns a log-probability in nats for each answer."""

    name: str
    run: Callable[[], list[float]]
    n: int
    """Probes or candidates in one go."""


def build_subject(
    *,
    n_probes: int = 1000,
    n_candidates: int = 10,
    size: str = "50M",
    name: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Subject:
    """An STLM of random weights with a tokenizer made for it, or the model `name`; in float32.

    The bank is made on the spot, from `configs/facts/people.yaml`. Weights do not matter to speed. The
    tokenizer is trained on statements about people of another seed, so that names fall into pieces, and its
    ids are spread over the model's vocabulary, which is larger. UserError for a size or a model that there is
    not.
    """
    import torch

    from modeling_stlm import STLMConfig, STLMForCausalLM
    from tidy_stlms.eval.models.load import choose_device, load_model

    if size not in SIZES:
        raise UserError(f"--parameters {size}: not one of {', '.join(SIZES)}")
    place = choose_device(device)
    people = max(
        n_candidates + 1, math.ceil(n_probes / PROBES_PER_PERSON)
    )  # wrong answers are others' answers
    probes = _bank(people, n_candidates, seed).probes
    items = [
        Item(one.prompt, (one.answers[0], *one.distractors), joint=one.joint)
        for one in probes
        if not one.suffix
    ]
    random.Random(seed).shuffle(items)
    if name is None:
        torch.manual_seed(seed)
        config = STLMConfig(**SIZES[size])
        model = STLMForCausalLM(config).eval().to(place)
        texts = [statement.text for statement in _bank(OTHER_PEOPLE, n_candidates, seed + 1).statements]
        tokenizer = _tokenizer(texts, config.vocab_size)
    else:
        model, tokenizer = load_model(name, device=device, dtype="float32")
    # of probes whose answers share a token with the prompt, lm-eval scores other tokens
    odd = {row.item for row in encode_items(tokenizer, items) if row.straddles}
    items = [item for index, item in enumerate(items) if index not in odd][:n_probes]
    if not items:
        raise UserError(f"{name}: its tokenizer joins prompts and answers; there is nothing to compare")
    return Subject(name or f"STLM {size}, random weights", model, tokenizer, items)


def bench_recall(
    subject: Subject,
    *,
    repeats: int = 3,
    n_loop: int = 40,
    n_ranked: int = 200,
    batch_tokens: int | None = None,
    progress: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Time all sides in turn, `repeats` times, and take each one's median; JSON-serialisable.

    Args:
        n_loop: Probes that the loop goes through.
        n_ranked: Probes whose candidates are all scored.
        batch_tokens: Of `ours`; None chooses.
        progress: Called with a line about each timing.

    Raises:
        RuntimeError: If two sides do not agree on a number.
    """
    alone = [replace(item, candidates=item.candidates[:1]) for item in subject.items]
    candidates = subject.items[:n_ranked]
    jobs = {
        "probes": [
            _loop(subject, alone[:n_loop]),
            _lm_eval(subject, alone),
            _ours(subject, alone, batch_tokens),
        ],
        "candidates": [_lm_eval(subject, candidates), _ours(subject, candidates, batch_tokens)],
    }
    rates: dict[str, list[float]] = {}
    answers: dict[str, list[float]] = {}
    for number in range(repeats):
        for job, sides in jobs.items():
            for side in sides:
                start = time.perf_counter()
                answers[f"{side.name}_{job}"] = side.run()
                rate = side.n / (time.perf_counter() - start)
                rates.setdefault(f"{side.name}_{job}_per_second", []).append(rate)
                progress(f"{number + 1}/{repeats} {side.name}: {rate:.1f} {job} per second")
    differences = {
        f"{side.name}_{job}": _largest_difference(
            answers[f"ours_{job}"], answers[f"{side.name}_{job}"], f"{side.name}, {job}"
        )
        for job, sides in jobs.items()
        for side in sides
        if side.name != "ours"
    }
    speeds = {name: statistics.median(values) for name, values in rates.items()}
    return {
        **{name: round(value, 2) for name, value in speeds.items()},
        "times_loop": round(speeds["ours_probes_per_second"] / speeds["loop_probes_per_second"], 2),
        "times_lm_eval_probes": round(
            speeds["ours_probes_per_second"] / speeds["lm_eval_probes_per_second"], 2
        ),
        "times_lm_eval": round(
            speeds["ours_candidates_per_second"] / speeds["lm_eval_candidates_per_second"], 2
        ),
        "largest_difference_nats": {name: float(f"{value:.2g}") for name, value in differences.items()},
        **_sizes(subject, batch_tokens),
        "repeats": repeats,
        "loop_probes": min(n_loop, len(alone)),
        "ranked_probes": len(candidates),
        "rates": {name: [round(value, 2) for value in values] for name, values in rates.items()},
    }


def loop(model: Any, rows: Sequence[Row]) -> tuple[list[list[int]], list[list[float]]]:
    """Ranks and log-probabilities of the answer tokens of each row, as Tidy-STLMs gets them."""
    import torch

    def next_logits(ids: list[int]) -> torch.Tensor:
        # all positions go through the head, of which one is used
        return model(torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1]

    ranks: list[list[int]] = []
    logprobs: list[list[float]] = []
    with torch.no_grad():
        for row in rows:
            ids, found = list(row.stem), []
            for token in row.answer:
                order = next_logits(ids).argsort(descending=True)
                found.append(int((order == token).nonzero().item()) + 1)
                ids.append(token)
            ranks.append(found)
            ids, probabilities = list(row.stem), []
            for token in row.answer:
                probabilities.append(next_logits(ids).softmax(-1)[token].item())
                ids.append(token)
            logprobs.append([math.log(probability) for probability in probabilities])
    return ranks, logprobs


def _loop(subject: Subject, items: Sequence[Item]) -> Timed:
    rows = encode_items(subject.tokenizer, items)
    return Timed("loop", lambda: [math.fsum(one) for one in loop(subject.model, rows)[1]], len(items))


def _lm_eval(subject: Subject, items: Sequence[Item]) -> Timed:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # add_bos_token=None: BOS where the tokenizer adds it by itself, as our scorer has it
    lm = HFLM(
        pretrained=subject.model,
        tokenizer=subject.tokenizer,
        device=str(subject.model.device),
        batch_size=LM_EVAL_BATCH,
        add_bos_token=None,
    )
    requests: list[Instance] = []
    for item in items:
        context, space = join(item.prompt, item.joint)
        for answer in item.candidates:
            requests.append(Instance("loglikelihood", {}, (context, space + answer), len(requests)))

    def run() -> list[float]:
        return [logprob for logprob, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    return Timed("lm_eval", run, len(requests))


def _ours(subject: Subject, items: Sequence[Item], batch_tokens: int | None) -> Timed:
    from tidy_stlms.eval.scoring.scorer import score

    def run() -> list[float]:
        scores = score(subject.model, subject.tokenizer, items, batch_tokens=batch_tokens)
        return [logprob for one in scores for logprob in one.logprobs]

    return Timed("ours", run, sum(len(item.candidates) for item in items))


def _largest_difference(ours: list[float], theirs: list[float], what: str) -> float:
    """In nats, of the answers that both have."""
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=False))
    if not largest <= TOLERANCE:
        raise RuntimeError(f"bench: ours and {what}, differ by {largest:.2g} nats; speeds mean nothing then")
    return largest


def _bank(people: int, n_candidates: int, seed: int) -> Any:
    from tidy_stlms.eval.facts.generate.generate import generate_from_spec

    return generate_from_spec(PEOPLE, [f"people={people}", f"distractors={n_candidates - 1}"], seed)


def _tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from modeling_stlm.tokenization_stlm import END_OF_TEXT, train_bpe_tokenizer

    trained = train_bpe_tokenizer(texts, TOKENIZER_SIZE, bos=False)
    written = json.loads(trained.backend_tokenizer.to_str())
    step = vocab_size // len(trained)
    written["model"]["vocab"] = {token: step * i for token, i in written["model"]["vocab"].items()}
    for token in written["added_tokens"]:
        token["id"] *= step
    spread = Tokenizer.from_str(json.dumps(written))
    return PreTrainedTokenizerFast(tokenizer_object=spread, eos_token=END_OF_TEXT)


def _sizes(subject: Subject, batch_tokens: int | None) -> dict[str, Any]:
    """What the figures hang on."""
    import torch

    from tidy_stlms.eval.scoring.budget import default_batch_tokens

    rows = encode_items(subject.tokenizer, subject.items)
    model = subject.model
    return {
        "model": subject.name,
        "parameters": model.num_parameters(),
        "vocab_size": model.config.get_text_config().vocab_size,
        "n_probes": len(subject.items),
        "n_candidates": statistics.mean(len(item.candidates) for item in subject.items),
        "prompt_tokens": round(statistics.mean(len(row.stem) for row in rows), 2),
        "answer_tokens": round(statistics.mean(row.n_scored for row in rows), 2),
        "batch_tokens": batch_tokens or default_batch_tokens(model),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "lm-eval")},
    }
