"""Times the scorer beside two other methods that give the same numbers, on one model, bank and machine.

    report = bench_recall(build_workload(n_probes=200, n_candidates=10), repeats=3)

Two jobs are timed. *Probes*: the log-probability and the vocabulary ranks of each right answer, by

- `loop`: what Tidy-STLMs does. Batch 1, no cache, one forward pass with all its logits for each answer token,
  once for the rank (a sort of the vocabulary) and once for the perplexity. It gets tokens; the others get
  text.
- `lm_eval`: `HFLM.loglikelihood` at batch 32. It gives no ranks.
- `ours`: `tidy_stlms.eval.scoring.scorer.score`.

*Candidates*: the log-probabilities of all candidates of a probe, by `lm_eval` and `ours`. Tidy-STLMs has no
method for them.

All methods get the same probes, but the slower ones get fewer of them, so that a repetition takes seconds:
the speed of the loop does not depend on their number.
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
from tidy_stlms.eval.scoring.encoding import EncodedCandidate, Item, encode_items

# STLMs by their approximate number of parameters, as changes to the default config of 50M.
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
PROBES_PER_PERSON = 20  # people.yaml gives a few more
# A vocabulary of this size, trained on statements about so many other people, cuts prompts and answers into
# as many tokens as GPT-2's: 7.0 and 2.3 on average.
TOKENIZER_SIZE, OTHER_PEOPLE = 3500, 400
LM_EVAL_BATCH = 32
TOLERANCE = 1e-3  # nats, of a whole answer


@dataclass
class Workload:
    """A model, and the probes that it is timed on."""

    name: str
    model: Any
    tokenizer: Any
    items: list[Item]


@dataclass
class Method:
    """A method to do a job."""

    name: str
    run: Callable[[], list[float]]
    """Does the job once, and returns a log-probability in nats for each answer."""
    n: int
    """Probes or candidates of one run."""


def build_workload(
    *,
    n_probes: int = 1000,
    n_candidates: int = 10,
    size: str = "50M",
    name: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Workload:
    """An STLM with random weights and a tokenizer made for it, or the model `name`, in float32; and probes.

    The bank is generated from `configs/facts/people.yaml`. Weights do not matter to speed. The tokenizer is
    trained on statements about people of another seed, so that it cuts names into pieces. Its ids are spread
    over the model's vocabulary, which is larger.

    Raises UserError if there is no such size or model.
    """
    import torch

    from modeling_stlm import STLMConfig, STLMForCausalLM
    from tidy_stlms.eval.models.load import choose_device, load_model

    if size not in SIZES:
        raise UserError(f"--parameters {size}: not one of {', '.join(SIZES)}")
    torch_device = choose_device(device)
    # distractors are answers of other people's probes
    people = max(n_candidates + 1, math.ceil(n_probes / PROBES_PER_PERSON))
    items = [
        Item(probe.prompt, probe.candidates, joint=probe.joint)
        for probe in _bank(people, n_candidates, seed).probes
        if not probe.suffix
    ]
    random.Random(seed).shuffle(items)
    if name is None:
        torch.manual_seed(seed)
        config = STLMConfig(**SIZES[size])
        model = STLMForCausalLM(config).eval().to(torch_device)
        texts = [statement.text for statement in _bank(OTHER_PEOPLE, n_candidates, seed + 1).statements]
        tokenizer = _tokenizer(texts, config.vocab_size)
    else:
        model, tokenizer = load_model(name, device=device, dtype="float32")
    # lm-eval scores other tokens of answers that share a token with the prompt
    straddling = {candidate.item for candidate in encode_items(tokenizer, items) if candidate.straddles}
    items = [item for index, item in enumerate(items) if index not in straddling][:n_probes]
    if not items:
        raise UserError(f"{name}: its tokenizer joins prompts and answers; there is nothing to compare")
    return Workload(name or f"STLM {size}, random weights", model, tokenizer, items)


def bench_recall(
    workload: Workload,
    *,
    repeats: int = 3,
    n_loop: int = 40,
    n_ranked: int = 200,
    batch_tokens: int | None = None,
    progress: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Time all methods in turn, `repeats` times, and report the median speed of each; JSON-serialisable.

    Args:
        n_loop: Probes that the loop gets.
        n_ranked: Probes whose candidates are all scored.
        batch_tokens: Tokens of a batch of `ours`; None chooses by device.
        progress: Called with a line about each timing.

    Raises:
        RuntimeError: If two methods give different numbers.
    """
    right_answers = [replace(item, candidates=item.candidates[:1]) for item in workload.items]
    candidates = workload.items[:n_ranked]
    jobs = {
        "probes": [
            _loop(workload, right_answers[:n_loop]),
            _lm_eval(workload, right_answers),
            _ours(workload, right_answers, batch_tokens),
        ],
        "candidates": [_lm_eval(workload, candidates), _ours(workload, candidates, batch_tokens)],
    }
    rates, logprobs = _time_in_turn(jobs, repeats, progress)
    differences = {
        f"{method.name}_{job}": _largest_difference(
            logprobs[f"ours_{job}"], logprobs[f"{method.name}_{job}"], f"{method.name}, {job}"
        )
        for job, methods in jobs.items()
        for method in methods
        if method.name != "ours"
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
        **_setup(workload, batch_tokens),
        "repeats": repeats,
        "loop_probes": min(n_loop, len(right_answers)),
        "ranked_probes": len(candidates),
        "rates": {name: [round(value, 2) for value in values] for name, values in rates.items()},
    }


def _time_in_turn(
    jobs: dict[str, list[Method]], repeats: int, progress: Callable[[str], object]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Speeds by `METHOD_JOB_per_second`, one for each repetition, and log-probabilities by `METHOD_JOB`."""
    rates: dict[str, list[float]] = {}
    logprobs: dict[str, list[float]] = {}
    # in turn: a machine that gets slower on the way is slower for all methods
    for repeat in range(repeats):
        for job, methods in jobs.items():
            for method in methods:
                start = time.perf_counter()
                logprobs[f"{method.name}_{job}"] = method.run()
                rate = method.n / (time.perf_counter() - start)
                rates.setdefault(f"{method.name}_{job}_per_second", []).append(rate)
                progress(f"{repeat + 1}/{repeats} {method.name}: {rate:.1f} {job} per second")
    return rates, logprobs


def score_in_loop(
    model: Any, candidates: Sequence[EncodedCandidate]
) -> tuple[list[list[int]], list[list[float]]]:
    """Ranks and log-probabilities of the answer tokens of each candidate, computed as in Tidy-STLMs."""
    import torch

    def next_logits(ids: list[int]) -> torch.Tensor:
        # logits of all positions, of which one is used
        return model(torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1]

    ranks: list[list[int]] = []
    logprobs: list[list[float]] = []
    with torch.no_grad():
        for candidate in candidates:
            ids, token_ranks = list(candidate.prompt_ids), []
            for token_id in candidate.answer_ids:
                order = next_logits(ids).argsort(descending=True)
                token_ranks.append(int((order == token_id).nonzero().item()) + 1)
                ids.append(token_id)
            ranks.append(token_ranks)
            ids, probabilities = list(candidate.prompt_ids), []
            for token_id in candidate.answer_ids:
                probabilities.append(next_logits(ids).softmax(-1)[token_id].item())
                ids.append(token_id)
            logprobs.append([math.log(probability) for probability in probabilities])
    return ranks, logprobs


def _loop(workload: Workload, items: Sequence[Item]) -> Method:
    candidates = encode_items(workload.tokenizer, items)

    def run() -> list[float]:
        _, logprobs = score_in_loop(workload.model, candidates)
        return [math.fsum(token_logprobs) for token_logprobs in logprobs]

    return Method("loop", run, len(items))


def _lm_eval(workload: Workload, items: Sequence[Item]) -> Method:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # add_bos_token=None: a BOS if the tokenizer adds one by itself, as in our scorer
    lm = HFLM(
        pretrained=workload.model,
        tokenizer=workload.tokenizer,
        device=str(workload.model.device),
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

    return Method("lm_eval", run, len(requests))


def _ours(workload: Workload, items: Sequence[Item], batch_tokens: int | None) -> Method:
    from tidy_stlms.eval.scoring.scorer import score

    def run() -> list[float]:
        scores = score(workload.model, workload.tokenizer, items, batch_tokens=batch_tokens)
        return [logprob for item_scores in scores for logprob in item_scores.logprobs]

    return Method("ours", run, sum(len(item.candidates) for item in items))


def _largest_difference(ours: list[float], theirs: list[float], what: str) -> float:
    """The largest difference in nats over the answers that both have scored; `what` names the method."""
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
    serialised = json.loads(trained.backend_tokenizer.to_str())
    step = vocab_size // len(trained)
    serialised["model"]["vocab"] = {token: step * i for token, i in serialised["model"]["vocab"].items()}
    for token in serialised["added_tokens"]:
        token["id"] *= step
    spread = Tokenizer.from_str(json.dumps(serialised))
    return PreTrainedTokenizerFast(tokenizer_object=spread, eos_token=END_OF_TEXT)


def _setup(workload: Workload, batch_tokens: int | None) -> dict[str, Any]:
    """What the speeds depend on: model, texts, batch and machine."""
    import torch

    from tidy_stlms.eval.scoring.budget import default_batch_tokens

    candidates = encode_items(workload.tokenizer, workload.items)
    model = workload.model
    return {
        "model": workload.name,
        "parameters": model.num_parameters(),
        "vocab_size": model.config.get_text_config().vocab_size,
        "n_probes": len(workload.items),
        "n_candidates": statistics.mean(len(item.candidates) for item in workload.items),
        "prompt_tokens": round(statistics.mean(len(candidate.prompt_ids) for candidate in candidates), 2),
        "answer_tokens": round(statistics.mean(candidate.n_scored for candidate in candidates), 2),
        "batch_tokens": batch_tokens or default_batch_tokens(model),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "lm-eval")},
    }
