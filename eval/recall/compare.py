"""Differences between models on the same probes, with intervals and p-values.

    compare_models({"run": results, "twin": twin_results}, {"run": "3f2a", "twin": "3f2a"}, baseline="twin")

A difference is b - a, paired: both models answered the same probes. Metrics that count tokens are compared
between models of equal tokenizers only. p-values are those of the paired permutation test
(`statistics.swap_p_values`), or of the t-test for control-corrected figures (`control.Contrast.test`). Holm's
method corrects them over all comparisons of one metric.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tidy_stlms.configs.records import Output
from tidy_stlms.eval.recall.control import cell_values, contrasts_of
from tidy_stlms.eval.recall.groups import Doses, groups_of
from tidy_stlms.eval.recall.metrics import METRICS, bounded_exp, ratio_parts
from tidy_stlms.eval.recall.results import DocumentScore, ProbeResult
from tidy_stlms.eval.recall.statistics import (
    N_BOOT,
    bootstrap_ratios,
    holm,
    interval,
    number_clusters,
    sums_by_cluster,
    swap_p_values,
)

ALL_PAIRS_UP_TO = 5
HELDOUT_ROLE = "heldout"  # the group of held-out text, beside the groups of facts
# They count tokens, or compare within a vocabulary.
WITHIN_TOKENIZER = frozenset(
    {
        *("logprob", "greedy_match", "perplexity", "token_rank"),
        *("answer_familiarity", "subject_shift", "binding"),
    }
)

Pair = tuple[str, str]
"""The labels of two models, a and b."""


class Comparison(Output, frozen=True):
    """The difference between two models in one metric of one group and probe type."""

    a: str
    """The label of a model, the baseline if there is one."""
    b: str
    """The label of the other model."""
    role: str
    """A group of facts, or `heldout`."""
    type: str
    """The probe type; `documents` for held-out text."""
    metric: str
    """A metric of a result, or a control-corrected figure."""
    difference: float
    """b - a, in the metric's unit."""
    low: float
    """Lower end of the 95% interval of the difference."""
    high: float
    """Upper end of the interval."""
    p: float
    """Two-sided p-value."""
    p_holm: float
    """p corrected for all comparisons of this metric, those of held-out text apart."""
    n: int
    """The number of probes, or of documents."""


class _Difference(NamedTuple):
    """A comparison before its group, type and metric are named, and before Holm's correction."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n: int


_Named = tuple[tuple[str, str, str], _Difference]
"""Role, type and metric of a difference, and the difference."""


def is_comparable(metric: str) -> bool:
    """Whether a metric, or a control-corrected figure, means the same for all tokenizers."""
    return metric not in WITHIN_TOKENIZER


def pairs_of(labels: Sequence[str], baseline: str | None) -> list[Pair]:
    """The models to compare: each with the baseline; without one, all pairs of up to five models, or each
    model with the first."""
    if baseline is None and len(labels) <= ALL_PAIRS_UP_TO:
        return list(itertools.combinations(labels, 2))
    reference = labels[0] if baseline is None else baseline
    return [(reference, label) for label in labels if label != reference]


def compare_models(
    results: Mapping[str, Sequence[ProbeResult]],
    tokenizers: Mapping[str, str | None],
    *,
    baseline: str | None = None,
    heldout: Mapping[str, Sequence[DocumentScore]] | None = None,
    doses: Doses | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> list[Comparison]:
    """Compare models in each group, probe type and metric.

    Args:
        results: By model, its results of the same probes in the same order.
        tokenizers: By model, a name that is equal for equal tokenizers.
        baseline: Compare each model with this one; see `pairs_of`.
        heldout: By model, the scores of the same held-out documents in the same order.
        doses: Doses of the facts. Injected facts of different doses are different groups.
    """
    named: list[_Named] = []
    if len(results) > 1:
        pairs = pairs_of(list(results), baseline if baseline in results else None)
        named += _compare_recall(results, tokenizers, pairs, doses, n_boot, seed)
    if heldout is not None and len(heldout) > 1:
        pairs = pairs_of(list(heldout), baseline if baseline in heldout else None)
        name = (HELDOUT_ROLE, "documents", "bits_per_byte")
        named += [(name, difference) for difference in _compare_heldout(heldout, pairs, n_boot, seed)]
    return _with_holm(named)


def _compare_recall(
    results: Mapping[str, Sequence[ProbeResult]],
    tokenizers: Mapping[str, str | None],
    pairs: Sequence[Pair],
    doses: Doses | None,
    n_boot: int,
    seed: int,
) -> list[_Named]:
    of_one_tokenizer = [(a, b) for a, b in pairs if tokenizers[a] == tokenizers[b]]

    def allowed(metric: str) -> Sequence[Pair]:
        return pairs if is_comparable(metric) else of_one_tokenizer

    # group and type belong to the probe, so they are the same in every model's results
    first = next(iter(results.values()))
    groups = groups_of(first, doses)
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (group, result) in enumerate(zip(groups, first, strict=True)):
        members[group, result.type].append(index)
    named: list[_Named] = []
    for (group, probe_type), indices in members.items():
        for metric in METRICS:
            differences = _compare_metric(results, indices, metric, allowed(metric), n_boot, seed)
            named += [((group, probe_type, metric), difference) for difference in differences]
    return named + _compare_corrected(results, groups, allowed)


def _compare_metric(
    results: Mapping[str, Sequence[ProbeResult]],
    indices: Sequence[int],
    metric: str,
    pairs: Sequence[Pair],
    n_boot: int,
    seed: int,
) -> list[_Difference]:
    """Differences in one metric, over the probes at `indices` for which all models have it."""
    labels = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    parts = {
        label: {i: pair for i in indices if (pair := ratio_parts(results[label][i], metric)) is not None}
        for label in labels
    }
    usable = [i for i in indices if all(i in parts[label] for label in labels)]
    if not labels or not usable:
        return []
    clusters, size = number_clusters([results[labels[0]][i].cluster for i in usable])
    tops, bottoms = {}, {}
    for label in labels:
        numerators, denominators = zip(*(parts[label][i] for i in usable), strict=True)
        tops[label] = sums_by_cluster(numerators, clusters, size)
        bottoms[label] = sums_by_cluster(denominators, clusters, size)
    return _compare_sums(tops, bottoms, pairs, len(usable), n_boot, seed, exponential=metric == "perplexity")


def _compare_heldout(
    heldout: Mapping[str, Sequence[DocumentScore]], pairs: Sequence[Pair], n_boot: int, seed: int
) -> list[_Difference]:
    """Differences in bits per byte; each document is a cluster."""
    tops = {label: np.array([score.nats for score in scores]) for label, scores in heldout.items()}
    bottoms = {
        label: math.log(2) * np.array([score.n_bytes for score in scores])
        for label, scores in heldout.items()
    }
    n = len(next(iter(heldout.values())))
    return _compare_sums(tops, bottoms, pairs, n, n_boot, seed)


def _compare_sums(
    tops: Mapping[str, np.ndarray],
    bottoms: Mapping[str, np.ndarray],
    pairs: Sequence[Pair],
    n: int,
    n_boot: int,
    seed: int,
    exponential: bool = False,
) -> list[_Difference]:
    """Differences of ratios of sums.

    Args:
        tops: By model, sums of numerators, (clusters,).
        bottoms: By model, sums of denominators, (clusters,).
        n: The number of probes, or of documents.
        exponential: Report differences of exp(ratio), as for perplexity. The test stays that of the ratio:
            it has the same order.
    """
    scale: Callable[[np.ndarray], np.ndarray] = bounded_exp if exponential else np.asarray
    observed = {label: float(scale(tops[label].sum() / bottoms[label].sum())) for label in tops}
    resampled = {
        label: scale(bootstrap_ratios(tops[label], bottoms[label], n_boot=n_boot, seed=seed))
        for label in tops
    }
    sides = [np.stack([sums[pair[k]] for pair in pairs], 1) for k in (0, 1) for sums in (tops, bottoms)]
    p_values = swap_p_values(*sides, seed=seed)
    return [
        _Difference(a, b, observed[b] - observed[a], *interval(resampled[b] - resampled[a]), p, n)
        for (a, b), p in zip(pairs, p_values.tolist(), strict=True)
    ]


def _compare_corrected(
    results: Mapping[str, Sequence[ProbeResult]],
    groups: Sequence[str],
    allowed: Callable[[str], Sequence[Pair]],
) -> list[_Named]:
    """Differences in control-corrected figures: the contrast of the differences between two models' cells.

    The question is whether injected facts gained more than control facts. Swapping models would test whether
    anything changed at all, so the test is the t-test of the contrast.
    """
    named: list[_Named] = []
    for (group, probe_type), contrasts in contrasts_of(next(iter(results.values())), groups).items():
        for name, contrast in contrasts.items():
            pairs = allowed(name)
            if not pairs:
                continue
            values = {label: cell_values(of_model, contrast.figure) for label, of_model in results.items()}
            differences = np.stack([values[b] - values[a] for a, b in pairs], 1)  # (cells, pairs)
            for (a, b), test in zip(pairs, contrast.test(differences), strict=True):
                difference = _Difference(a, b, test.mean, test.low, test.high, test.p, contrast.n)
                named.append(((group, probe_type, name), difference))
    return named


def _with_holm(named: Sequence[_Named]) -> list[Comparison]:
    """Correct p within each metric, over all of its pairs, groups and types; held-out text apart."""
    families: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for index, ((role, _, metric), _) in enumerate(named):
        families[role == HELDOUT_ROLE, metric].append(index)
    corrected = [0.0] * len(named)
    for indices in families.values():
        p_values = holm([named[index][1].p for index in indices])
        for index, p_holm in zip(indices, p_values, strict=True):
            corrected[index] = p_holm
    return [
        Comparison(
            a=difference.a,
            b=difference.b,
            role=role,
            type=probe_type,
            metric=metric,
            difference=difference.difference,
            low=difference.low,
            high=difference.high,
            p=difference.p,
            p_holm=p_holm,
            n=difference.n,
        )
        for ((role, probe_type, metric), difference), p_holm in zip(named, corrected, strict=True)
    ]
