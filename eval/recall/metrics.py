"""The metrics of recall as pure functions, and their means over probes with 95% intervals.

    accuracy([-1.0, -2.0, -3.0])                                 # 1.0: the answer is the first candidate
    summarise(results)["injected"]["semantic"]["accuracy"].mean

Log-probabilities are in nats. `gold` is the index of the answer among the candidates; no metric depends on
it. A metric that a probe does not have is None, and does not count in means and in their `n`. docs/recall.md
has the formulas.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from tidy_stlms.eval.recall.groups import Doses, groups_of, treatment_groups
from tidy_stlms.eval.recall.results import Estimate, ProbeResult, Summary
from tidy_stlms.eval.recall.statistics import N_BOOT, bootstrap_interval

METRICS = (
    "logprob",
    "bits_per_byte",
    "accuracy",
    "accuracy_norm",
    "candidate_rank",
    "mrr",
    "greedy_match",
    "exact_match",
    "containment",
    "perplexity",
    "token_rank",
)


def accuracy(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """1 if the answer has the largest log-probability, 1/k in a tie of k; None without distractors."""
    if len(logprobs) < 2:
        return None
    n_above, n_equal = _compare(logprobs, gold)
    return 0.0 if n_above else 1 / (1 + n_equal)


def accuracy_norm(logprobs: Sequence[float], n_bytes: Sequence[int], gold: int = 0) -> float | None:
    """`accuracy` by log-probability per byte, so that short candidates have no advantage."""
    return accuracy([logprob / size for logprob, size in zip(logprobs, n_bytes, strict=True)], gold)


def candidate_rank(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """Rank of the answer among the candidates, from 1; the mid-rank in a tie; None without distractors."""
    if len(logprobs) < 2:
        return None
    n_above, n_equal = _compare(logprobs, gold)
    return 1 + n_above + n_equal / 2


def mrr(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """1 / `candidate_rank`. Its mean over probes is the mean reciprocal rank."""
    rank = candidate_rank(logprobs, gold)
    return None if rank is None else 1 / rank


def token_rank(ranks: Sequence[float]) -> float:
    """Mean rank of the answer's tokens in the vocabulary, from 1. Comparable within one tokenizer only."""
    return math.fsum(ranks) / len(ranks)


def bits_per_byte(logprobs: Sequence[float], n_bytes: Sequence[int]) -> float:
    """Of a set of answers: sum of -logprob / (ln 2 * sum of bytes). Comparable across tokenizers."""
    return -math.fsum(logprobs) / (math.log(2) * sum(n_bytes))


def perplexity(logprobs: Sequence[float], n_tokens: Sequence[int]) -> float:
    """Of a set of answers: exp(sum of -logprob / sum of tokens). Comparable within one tokenizer only."""
    return float(bounded_exp(-math.fsum(logprobs) / sum(n_tokens)))


class CandidateMetrics(TypedDict):
    """The metrics that compare the answer with the other candidates; None without distractors."""

    accuracy: float | None
    accuracy_norm: float | None
    candidate_rank: float | None
    mrr: float | None


def candidate_metrics(logprobs: Sequence[float], n_bytes: Sequence[int], gold: int = 0) -> CandidateMetrics:
    """All metrics that compare the answer with the other candidates."""
    return {
        "accuracy": accuracy(logprobs, gold),
        "accuracy_norm": accuracy_norm(logprobs, n_bytes, gold),
        "candidate_rank": candidate_rank(logprobs, gold),
        "mrr": mrr(logprobs, gold),
    }


def summarise(
    results: Sequence[ProbeResult],
    *,
    by: Literal["type", "relation"] = "type",
    doses: Doses | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Summary:
    """Estimate each metric for each group of facts, and within it for each probe type or relation.

    Groups are those of `groups.py`. Injected facts that were treated differently come first, least exposures
    first; then groups stand in order of appearance. A metric that no probe has is left out.
    """
    members: dict[tuple[str, str], list[ProbeResult]] = defaultdict(list)
    for result, group in zip(results, groups_of(results, doses), strict=True):
        value = getattr(result, by)
        members[group, "none" if value is None else value].append(result)
    treatments = list(treatment_groups(results, doses))
    summary: Summary = {}
    for group in [*treatments, *dict.fromkeys(group for group, _ in members)]:
        summary.setdefault(group, {})
    for (group, name), of_name in members.items():
        summary[group][name] = estimates_of(of_name, n_boot=n_boot, seed=seed)
    return summary


def estimates_of(
    results: Sequence[ProbeResult], *, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, Estimate]:
    """The estimate of each metric over all of these results; without metrics that none of them has."""
    estimates = ((metric, _estimate(results, metric, n_boot, seed)) for metric in METRICS)
    return {metric: estimate for metric, estimate in estimates if estimate is not None}


def _estimate(results: Sequence[ProbeResult], metric: str, n_boot: int, seed: int) -> Estimate | None:
    parts = [(result, pair) for result in results if (pair := ratio_parts(result, metric)) is not None]
    if not parts:
        return None
    results = [result for result, _ in parts]
    numerators, denominators = zip(*(pair for _, pair in parts), strict=True)
    clusters = [result.cluster for result in results]
    mean = math.fsum(numerators) / math.fsum(denominators)
    low, high = bootstrap_interval(numerators, denominators, clusters, n_boot=n_boot, seed=seed)
    if metric == "perplexity":  # the ratio is in nats per token
        mean, low, high = (float(bounded_exp(nats)) for nats in (mean, low, high))
    n_facts = len({fact_id for result in results for fact_id in result.fact_ids})
    return Estimate(mean=mean, low=low, high=high, n=len(results), n_facts=n_facts)


def count_flags(results: Iterable[ProbeResult]) -> dict[str, int]:
    """The number of probes with each flag."""
    return dict(Counter(flag for result in results for flag in result.flags))


def ratio_parts(result: ProbeResult, metric: str) -> tuple[float, float] | None:
    """What a result adds to the numerator and the denominator of a metric over many probes.

    The denominator is 1 for metrics that are means. Perplexity's ratio is in nats per token. None if the
    probe does not have the metric.
    """
    logprob, n_bytes, n_tokens = result.logprob, result.n_bytes, result.n_tokens
    if metric == "bits_per_byte":
        return None if logprob is None or n_bytes is None else (-logprob, math.log(2) * n_bytes)
    if metric == "perplexity":
        return None if logprob is None or n_tokens is None else (-logprob, n_tokens)
    value = getattr(result, metric)
    return None if value is None else (float(value), 1.0)


def bounded_exp(nats: Any) -> Any:
    """exp of a number or an array, at most exp(700): JSON has no infinity for a broken model's perplexity."""
    return np.exp(np.minimum(nats, 700.0))


def _compare(values: Sequence[float], gold: int) -> tuple[int, int]:
    """The number of other values above the gold one, and of those equal to it."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"candidates need finite log-probabilities, got {list(values)}")
    gold_value = values[gold]
    others = [value for index, value in enumerate(values) if index != gold]
    # sums of the same token log-probabilities in another order differ in their last bits
    is_equal = [math.isclose(value, gold_value, rel_tol=1e-9, abs_tol=1e-12) for value in others]
    n_above = sum(value > gold_value and not equal for value, equal in zip(others, is_equal, strict=True))
    return n_above, sum(is_equal)
