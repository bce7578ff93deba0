"""Control-corrected recall: what is known of the injected facts beyond what their wordings give away.

Control people are asked the same questions and were never injected. So for each probe type

- `accuracy_over_control` = accuracy of injected facts - accuracy of control facts;
- `binding` = mean over injected probes of logprob(own subject, answer) - mean logprob of the same answer for
  control subjects asked by the same wording: what ties this answer to this subject;
- `familiarity` = mean logprob, for control subjects, of answers that were injected (for others) - of answers
  that never were, in the same wordings: what the answers gained by being read at all. It needs control
  facts of the arm "unseen", whose answers are in no statement, and is None without them.

docs/recall.md says why a gain has these two parts. Log-probabilities are in nats and belong to one tokenizer.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.facts.integrity import UNSEEN
from eval.recall.metrics import Row, cluster_of, role_of
from eval.recall.resampling import (
    N_BOOT,
    bootstrap_ratios,
    interval,
    number_clusters,
    sums_by_cluster,
    welch_p_values,
)

CORRECTED = ("accuracy_over_control", "binding", "familiarity")
# of these, what can be compared across tokenizers
CORRECTED_COMPARABLE = frozenset({"accuracy_over_control"})


@dataclass(frozen=True)
class Contrast:
    """The mean of a figure over some rows, minus that over others that were asked alike.

    `first` and `second` give each row's weight, `group` what it was asked: each group weighs as much on both
    sides. All of it follows from the bank alone, so one contrast serves all models.
    """

    figure: str
    first: Mapping[int, float]
    second: Mapping[int, float]
    group: Mapping[int, int]

    def mean(self, values: np.ndarray) -> float:
        """The contrast of `values`, which are by row."""
        first, second = (
            np.average(values[list(side)], weights=list(side.values())) for side in (self.first, self.second)
        )
        return float(first - second)

    def sides(
        self, values: np.ndarray, clusters: Sequence[Hashable]
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Sums by cluster of both sides, (tops, bottoms) each, for values by row (rows, figures).

        The contrast is the difference of the two ratios. They are of differences from the second side's mean
        of the group: that some answers are more probable than others is the same on both sides, and no
        uncertainty of the contrast.
        """
        n_groups = max(self.group.values()) + 1
        members, groups = list(self.second), [self.group[row] for row in self.second]
        counts = np.bincount(groups, minlength=n_groups)
        means = sums_by_cluster(values[members], groups, n_groups) / counts[:, None]  # (groups, figures)

        def sums(side: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
            chosen, weights = list(side), np.array(list(side.values()))
            numbers, size = number_clusters([clusters[row] for row in chosen])
            apart = values[chosen] - means[[self.group[row] for row in chosen]]
            return (
                sums_by_cluster(apart * weights[:, None], numbers, size),
                sums_by_cluster(weights, numbers, size),
            )

        return sums(self.first), sums(self.second)

    def judge(
        self, values: np.ndarray, clusters: Sequence[Hashable], *, n_boot: int = N_BOOT, seed: int = 0
    ) -> list[dict[str, float]]:
        """`{"low", "high", "p"}` of each figure, for values by row (rows, figures).

        The two sides have other subjects, so they are resampled apart, and p is that of Welch's t-test.
        """
        first, second = self.sides(values, clusters)
        resampled = [
            bootstrap_ratios(tops, bottoms[:, None], n_boot=n_boot, seed=seed + number)
            for number, (tops, bottoms) in enumerate((first, second))
        ]
        intervals = [interval(column) for column in (resampled[0] - resampled[1]).T]
        p_values = welch_p_values(first, second).tolist()
        return [
            {"low": low, "high": high, "p": p} for (low, high), p in zip(intervals, p_values, strict=True)
        ]


def corrected_summary(rows: Sequence[Row], *, n_boot: int = N_BOOT, seed: int = 0) -> dict[str, Any]:
    """`{type: {name: {"mean", "low", "high", "p", "n"}}}`.

    p is that of the figure being zero, not corrected for the number of figures; `n` are the injected probes
    (for familiarity the control probes) that found their counterpart. Types without control probes are left
    out, and so is what has a single subject on a side: nobody can tell from it how others are.
    """
    clusters = [cluster_of(row) for row in rows]
    result: dict[str, Any] = {}
    for kind, contrasts in contrasts_of(rows).items():
        result[kind] = dict.fromkeys(CORRECTED)
        for name, contrast in contrasts.items():
            values = figures(rows, contrast.figure)
            [judged] = contrast.judge(values[:, None], clusters, n_boot=n_boot, seed=seed)
            result[kind][name] = {"mean": contrast.mean(values), **judged, "n": len(contrast.first)}
    return result


def contrasts_of(rows: Sequence[Row]) -> dict[str, dict[str, Contrast]]:
    """`{type: {name: Contrast}}` for the contrasts that these rows allow."""
    kinds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        kinds[row["type"]][role_of(row)].append(index)

    found: dict[str, dict[str, Contrast]] = {}
    for kind, groups in kinds.items():
        wanted = {
            "accuracy_over_control": ("accuracy", "injected", "control", _nothing),
            "binding": ("logprob", "injected", "control", _wording_and_answer),
            "familiarity": ("logprob", "control", UNSEEN, _wording),
        }
        contrasts = {
            name: matched
            for name, (figure, first, second, key) in wanted.items()
            if (matched := _match(rows, groups[first], groups[second], figure, key)) is not None
        }
        if contrasts:
            found[kind] = contrasts
    return found


def figures(rows: Sequence[Row], figure: str) -> np.ndarray:
    """The rows' figures as numbers, (rows,); NaN where there is none, which no contrast of the rows reads."""
    return np.array([np.nan if row[figure] is None else float(row[figure]) for row in rows])


def _match(
    rows: Sequence[Row],
    first: Sequence[int],
    second: Sequence[int],
    figure: str,
    key: Callable[[Row], Hashable],
) -> Contrast | None:
    """Rows with equal keys against each other; those whose key is on one side only drop out."""
    sides = []
    for side in (first, second):
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index in side:
            if rows[index][figure] is not None:
                groups[key(rows[index])].append(index)
        sides.append(groups)
    shared = [one for one in sides[0] if one in sides[1]]
    if any(len({cluster_of(rows[i]) for one in shared for i in own[one]}) < 2 for own in sides):
        return None
    return Contrast(
        figure,
        first={index: 1.0 for one in shared for index in sides[0][one]},
        second={index: len(sides[0][one]) / len(sides[1][one]) for one in shared for index in sides[1][one]},
        group={index: number for number, one in enumerate(shared) for s in sides for index in s[one]},
    )


def _nothing(row: Row) -> Hashable:
    return None


def _wording(row: Row) -> Hashable:
    return row["relation"], row.get("template")


def _wording_and_answer(row: Row) -> Hashable:
    return row["relation"], row.get("template"), row["answer"]
