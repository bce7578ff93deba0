"""Differences between models that were asked the same probes, with intervals and p-values.

    compare_models({"run": rows, "twin": other_rows}, {"run": "3f2a", "twin": "3f2a"}, baseline="twin")

A difference is b - a, paired: both are asked the same probes of the same subjects. Figures that count tokens
are compared between models of equal tokenizers only. p-values are those of the paired permutation test of
`resampling.swap_p_values` (of the t-test of `Contrast.judge` for control-corrected figures), corrected by
Holm's method over all comparisons of one figure.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tidy_stlms.eval.recall.control import CORRECTED_COMPARABLE, contrasts_of, figures
from tidy_stlms.eval.recall.groups import Doses, groups_of
from tidy_stlms.eval.recall.metrics import (
    COMPARABLE,
    METRICS,
    Row,
    bounded_exp,
    cluster_of,
    has_figure,
    parts,
)
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
HELDOUT_ROLE = "heldout"  # running text, beside the groups of facts

Pair = tuple[str, str]


def pairs_of(labels: Sequence[str], baseline: str | None) -> list[Pair]:
    """Which models are compared: each with the baseline, else every two of up to five, else each with
    the first."""
    if baseline is None and len(labels) <= ALL_PAIRS_UP_TO:
        return list(itertools.combinations(labels, 2))
    against = labels[0] if baseline is None else baseline
    return [(against, label) for label in labels if label != against]


def compare_models(
    rows: Mapping[str, Sequence[Row]],
    tokenizers: Mapping[str, str],
    *,
    baseline: str | None = None,
    heldout: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    doses: Doses | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One dict for each pair, group, type and metric that can be compared.

    Args:
        rows: By model, its rows of one and the same bank, in the same order.
        tokenizers: By model, what is equal for equal tokenizers.
        baseline: Compare each model with this one; see `pairs_of`.
        heldout: By model, a dict with `nats` and `n_bytes` for each document of held-out text.
        doses: Of the facts, which are compared apart where they differ.

    Returns:
        `{"a", "b", "role", "type", "metric", "difference", "low", "high", "p", "p_holm", "n"}`; the role is a
        group of `groups.py`, or "heldout" for held-out text; metrics are those of `metrics.py` and
        of `control.py`.
    """
    heldout = heldout or {}
    found: list[dict[str, Any]] = []
    if len(rows) > 1:
        pairs = pairs_of(list(rows), baseline if baseline in rows else None)
        alike = [(a, b) for a, b in pairs if tokenizers[a] == tokenizers[b]]
        first = next(iter(rows.values()))
        groups = groups_of(first, doses)
        members: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, (group, row) in enumerate(zip(groups, first, strict=True)):
            members[group, row["type"]].append(index)
        for (group, kind), indices in members.items():
            for metric in METRICS:
                chosen = pairs if metric in COMPARABLE else alike
                for result in _compare_metric(rows, indices, metric, chosen, n_boot, seed):
                    found.append({**result, "role": group, "type": kind, "metric": metric})
        found += _compare_corrected(rows, groups, pairs, alike)
    if len(heldout) > 1:
        pairs = pairs_of(list(heldout), baseline if baseline in heldout else None)
        for result in _compare_heldout(heldout, pairs, n_boot, seed):
            named = {"role": HELDOUT_ROLE, "type": "documents", "metric": "bits_per_byte"}
            found.append({**result, **named})
    return [_in_order(result) for result in _correct(found)]


def _compare_metric(
    rows: Mapping[str, Sequence[Row]],
    indices: Sequence[int],
    metric: str,
    pairs: Sequence[Pair],
    n_boot: int,
    seed: int,
) -> list[dict[str, Any]]:
    labels = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    usable = [i for i in indices if all(has_figure(rows[label][i], metric) for label in labels)]
    if not labels or not usable:
        return []
    numbers, size = number_clusters([cluster_of(rows[labels[0]][i]) for i in usable])
    tops, bottoms = {}, {}
    for label in labels:
        numerators, denominators = zip(*(parts(rows[label][i], metric) for i in usable), strict=True)
        tops[label] = sums_by_cluster(numerators, numbers, size)
        bottoms[label] = sums_by_cluster(denominators, numbers, size)
    return _compare_sums(tops, bottoms, pairs, len(usable), n_boot, seed, exponential=metric == "perplexity")


def _compare_heldout(
    heldout: Mapping[str, Sequence[Mapping[str, Any]]], pairs: Sequence[Pair], n_boot: int, seed: int
) -> list[dict[str, Any]]:
    tops = {label: np.array([one["nats"] for one in texts]) for label, texts in heldout.items()}
    bottoms = {
        label: math.log(2) * np.array([one["n_bytes"] for one in texts]) for label, texts in heldout.items()
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
) -> list[dict[str, Any]]:
    """Compare ratios of sums by cluster. `exponential`: what is shown is exp of the ratio, as of
    perplexity; the test is that of the ratio itself, which is in the same order."""
    scale: Callable[[np.ndarray], np.ndarray] = bounded_exp if exponential else np.asarray
    observed = {label: float(scale(tops[label].sum() / bottoms[label].sum())) for label in tops}
    resampled = {
        label: scale(bootstrap_ratios(tops[label], bottoms[label], n_boot=n_boot, seed=seed))
        for label in tops
    }
    sides = [np.stack([table[pair[k]] for pair in pairs], 1) for k in (0, 1) for table in (tops, bottoms)]
    p_values = swap_p_values(*sides, seed=seed)
    results = []
    for (a, b), p in zip(pairs, p_values.tolist(), strict=True):
        low, high = interval(resampled[b] - resampled[a])
        difference = observed[b] - observed[a]
        results.append({"a": a, "b": b, "difference": difference, "low": low, "high": high, "p": p, "n": n})
    return results


def _compare_corrected(
    rows: Mapping[str, Sequence[Row]],
    groups: Sequence[str],
    pairs: Sequence[Pair],
    alike: Sequence[Pair],
) -> list[dict[str, Any]]:
    """Differences of control-corrected figures: the contrast of the rows' differences.

    The question is whether one group gained more than the other, not whether anything changed at all: nothing
    could be swapped between the models, so the test is one between the groups (`Contrast.judge`).
    """
    found = []
    for (group, kind), contrasts in contrasts_of(next(iter(rows.values())), groups).items():
        for name, contrast in contrasts.items():
            chosen = pairs if name in CORRECTED_COMPARABLE else alike
            if not chosen:
                continue
            values = {label: figures(of_model, contrast.figure) for label, of_model in rows.items()}
            differences = np.stack([values[b] - values[a] for a, b in chosen], 1)  # (cells, pairs)
            for (a, b), figure in zip(chosen, contrast.judge(differences), strict=True):
                named: dict[str, Any] = {"a": a, "b": b, "role": group, "type": kind, "metric": name}
                found.append({**named, **figure, "difference": figure["mean"], "n": contrast.n})
    return found


def _correct(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holm's correction within each figure: over all of its pairs, roles and types."""
    families: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for index, result in enumerate(found):
        families[result["role"] == HELDOUT_ROLE, result["metric"]].append(index)
    corrected = [0.0] * len(found)
    for members in families.values():
        for index, p in zip(members, holm([found[i]["p"] for i in members]), strict=True):
            corrected[index] = p
    return [{**result, "p_holm": p} for result, p in zip(found, corrected, strict=True)]


def _in_order(result: dict[str, Any]) -> dict[str, Any]:
    keys = ("a", "b", "role", "type", "metric", "difference", "low", "high", "p", "p_holm", "n")
    return {key: result[key] for key in keys}
