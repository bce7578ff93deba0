"""The metrics of recall as pure functions, and their means with 95% intervals.

A probe's candidates come as log-probabilities in nats; `gold` is the place of the true answer among
them, and no figure depends on which place that is. docs/recall.md has the
formulas. A figure that a probe does not have is None, and is left out of means and of their `n`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tidy_stlms.eval.recall.groups import Doses, groups_of, treatment_groups
from tidy_stlms.eval.recall.statistics import (
    N_BOOT,
    bootstrap_ratios,
    interval,
    number_clusters,
    sums_by_cluster,
)

Row = Mapping[str, Any]

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
# The others count tokens, or compare within a vocabulary: they mean something within one tokenizer only.
COMPARABLE = frozenset(METRICS) - {"logprob", "greedy_match", "perplexity", "token_rank"}
LOWER_IS_BETTER = frozenset({"bits_per_byte", "candidate_rank", "perplexity", "token_rank"})


def accuracy(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """1 if the gold candidate has the largest log-probability, 1/k in a k-way tie; None if it is alone."""
    if len(logprobs) < 2:
        return None
    above, equal = _compare(logprobs, gold)
    return 0.0 if above else 1 / (1 + equal)


def accuracy_norm(logprobs: Sequence[float], n_bytes: Sequence[int], gold: int = 0) -> float | None:
    """`accuracy` by log-probability per byte, against the pull of short answers."""
    return accuracy([logprob / size for logprob, size in zip(logprobs, n_bytes, strict=True)], gold)


def candidate_rank(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """Rank of the gold candidate, 1 the best, the mid-rank in a tie; None if it is alone."""
    if len(logprobs) < 2:
        return None
    above, equal = _compare(logprobs, gold)
    return 1 + above + equal / 2


def mrr(logprobs: Sequence[float], gold: int = 0) -> float | None:
    """1 / `candidate_rank`; its mean over probes is the mean reciprocal rank."""
    rank = candidate_rank(logprobs, gold)
    return None if rank is None else 1 / rank


def token_rank(ranks: Sequence[float]) -> float:
    """Mean rank of the answer's tokens in the vocabulary (1-based); within one tokenizer only."""
    return math.fsum(ranks) / len(ranks)


def bits_per_byte(logprobs: Sequence[float], n_bytes: Sequence[int]) -> float:
    """Of a set of answers: sum of -logprob / (ln 2 * sum of bytes); comparable across tokenizers."""
    return -math.fsum(logprobs) / (math.log(2) * sum(n_bytes))


def perplexity(logprobs: Sequence[float], n_tokens: Sequence[int]) -> float:
    """Of a set of answers: exp(sum of -logprob / sum of tokens); within one tokenizer only."""
    return float(bounded_exp(-math.fsum(logprobs) / sum(n_tokens)))


def candidate_metrics(
    logprobs: Sequence[float], n_bytes: Sequence[int], gold: int = 0
) -> dict[str, float | None]:
    """The figures that compare candidates."""
    return {
        "accuracy": accuracy(logprobs, gold),
        "accuracy_norm": accuracy_norm(logprobs, n_bytes, gold),
        "candidate_rank": candidate_rank(logprobs, gold),
        "mrr": mrr(logprobs, gold),
    }


def bootstrap_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of sum(numerators) / sum(denominators), whole clusters resampled.

    A mean over probes has denominators of 1. Probes of one subject are correlated: resampling them one
    by one would give intervals that are too narrow (Davison and Hinkley 1997, section 3.8). With a
    single cluster there is nothing to resample, and the interval is the figure itself.
    """
    numbers, size = number_clusters(clusters)
    tops = sums_by_cluster(numerators, numbers, size)
    bottoms = sums_by_cluster(denominators, numbers, size)
    return interval(bootstrap_ratios(tops, bottoms, n_boot=n_boot, seed=seed))


def summarise(
    rows: Iterable[Row],
    *,
    by: Sequence[str] = ("role", "type"),
    doses: Doses | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict[str, Any]:
    """Means with 95% intervals for each group of probes.

    `rows` are those of `evaluate_recall`. With the default `by` the result is
    `{group: {type: {metric: {"mean", "low", "high", "n", "n_facts"}}}}`, `n` being the number of probes that
    have the figure. A metric without values is left out. `by` names columns of the rows, "role" the groups of
    `groups.py`: the role, or the treatment of injected facts where it differs, in order of `doses`.
    """
    rows = list(rows)
    columns = {key: [row[key] for row in rows] for key in by}
    if "role" in by:
        columns["role"] = groups_of(rows, doses)
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row, *values in zip(rows, *columns.values(), strict=True):
        groups[tuple("none" if value is None else str(value) for value in values)].append(row)
    paths = list(groups)
    if "role" in by:  # treatments in the order of their doses, all else as it came
        place = by.index("role")
        order = {group: number for number, group in enumerate(treatment_groups(rows, doses))}
        paths.sort(key=lambda path: order.get(path[place], len(order)))
    result: dict[str, Any] = {}
    for path in paths:
        at = result
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = {
            metric: figure
            for metric in METRICS
            if (figure := _summarise_metric(groups[path], metric, n_boot, seed)) is not None
        }
    return result


def count_flags(rows: Iterable[Row]) -> dict[str, int]:
    """How many probes carry each flag."""
    return dict(Counter(flag for row in rows for flag in row["flags"]))


def _summarise_metric(rows: list[Row], metric: str, n_boot: int, seed: int) -> dict[str, Any] | None:
    rows = [row for row in rows if has_figure(row, metric)]
    if not rows:
        return None
    numerators, denominators = zip(*(parts(row, metric) for row in rows), strict=True)
    clusters = [cluster_of(row) for row in rows]
    mean = math.fsum(numerators) / math.fsum(denominators)
    low, high = bootstrap_interval(numerators, denominators, clusters, n_boot=n_boot, seed=seed)
    if metric == "perplexity":  # its interval is that of the nats per token
        mean, low, high = (float(bounded_exp(nats)) for nats in (mean, low, high))
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n": len(rows),
        "n_facts": len({fact_id for row in rows for fact_id in row["fact_ids"]}),
    }


def has_figure(row: Row, metric: str) -> bool:
    """Whether a probe adds anything to a metric."""
    source = "logprob" if metric in ("bits_per_byte", "perplexity") else metric
    return row.get(source) is not None


def parts(row: Row, metric: str) -> tuple[float, float]:
    """What a probe adds to the numerator and the denominator of a metric over a set of probes."""
    if metric == "bits_per_byte":
        return -row["logprob"], math.log(2) * row["n_bytes"]
    if metric == "perplexity":
        return -row["logprob"], row["n_tokens"]
    return float(row[metric]), 1.0


def cluster_of(row: Row) -> Hashable:
    """What is resampled: the subject, or the fact where there is none."""
    subject = row.get("subject")
    return ("subject", subject) if subject is not None else ("fact", row["fact_ids"][0])


def _compare(values: Sequence[float], gold: int) -> tuple[int, int]:
    """How many of the other values are above the gold one, and how many equal it."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"candidates need finite log-probabilities, got {list(values)}")
    own = values[gold]
    others = [value for place, value in enumerate(values) if place != gold]
    # sums of the same token log-probabilities in another order differ in their last bits
    equal = sum(math.isclose(value, own, rel_tol=1e-9, abs_tol=1e-12) for value in others)
    above = sum(value > own and not math.isclose(value, own, rel_tol=1e-9, abs_tol=1e-12) for value in others)
    return above, equal


def bounded_exp(nats: Any) -> Any:
    """exp of a number or an array; a broken model's perplexity stays a number that JSON can hold."""
    return np.exp(np.minimum(nats, 700.0))
