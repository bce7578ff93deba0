"""Resampling whole subjects: bootstrap intervals, tests of paired differences, correction for many tests.

The probes of one subject are correlated, so subjects are what is drawn and what is swapped: every figure
is a ratio of two sums that come apart by subject ("cluster"). A mean has the number of probes as its lower
sum.

All draws come from a seed and leave numpy's global generator alone.
"""

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from math import comb

import numpy as np
from scipy import stats

CELLS = 2**22  # resamples x clusters held at a time: 32 MB
N_BOOT = 1000
N_SWAPS = 9_999
LEVEL = 0.05  # of tests; intervals are of 1 - LEVEL
EXACT_CLUSTERS = 13  # up to here all 2**13 swaps are gone through


def sums_by_cluster(
    values: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, size: int
) -> np.ndarray:
    """The values of each cluster added up, (size[, figures]); `clusters` are numbers below `size`."""
    values = np.asarray(values, dtype=float)
    sums = np.zeros((size, *values.shape[1:]))
    np.add.at(sums, np.asarray(clusters, dtype=int), values)
    return sums


def number_clusters(names: Sequence[Hashable]) -> tuple[list[int], int]:
    """Names to numbers from 0, in order of appearance, and how many there are."""
    place = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return [place[name] for name in names], len(place)


def bootstrap_ratios(tops: np.ndarray, bottoms: np.ndarray, *, n_boot: int, seed: int) -> np.ndarray:
    """Ratios of resampled sums, (n_boot[, figures]), for sums by cluster, (clusters[, figures]).

    Figures that are handed over together, or one after another with the same seed, see the same draws, so
    that their differences are paired. A figure whose clusters were all missed comes out as NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [((draw @ tops).T / (draw @ bottoms).T).T for draw in _draws(len(tops), n_boot, seed)]
    return np.concatenate(parts)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 95% percentile interval of one figure's resamples; those where it does not exist are left out."""
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def ratio_and_variance(tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of sums, (figures,), and their variances by linearisation over clusters (Taylor series; Cochran
    1977, section 6.4), for sums by cluster, (clusters, figures) and (clusters,)."""
    size, total = len(tops), bottoms.sum()
    ratio = tops.sum(0) / total
    apart = (tops - bottoms[:, None] * ratio) / total
    return ratio, (apart**2).sum(0) * size / (size - 1)


def t_tests(
    means: np.ndarray, first: tuple[np.ndarray, int], second: tuple[np.ndarray, int]
) -> list[dict[str, float]]:
    """`{"mean", "se", "low", "high", "p"}` of means, (figures,), whose variance is the sum of two.

    A t-test of the mean being zero, and its 95% interval, with the degrees of freedom of Satterthwaite
    (1946), as in Welch's test. `first` and `second` are variances, (figures,), and the number of clusters
    that they were taken over, two at least. p is never below 1 / C(n_1 + n_2, n_1), the lowest p-value of a
    permutation test that deals the clusters out to the two sides. If p is 0.05 or more, the interval is
    widened to include zero, so that both agree.
    """
    (variance_1, n_1), (variance_2, n_2) = first, second
    variance = variance_1 + variance_2
    errors = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / (variance_1**2 / (n_1 - 1) + variance_2**2 / (n_2 - 1))
        p_values = 2 * stats.t.sf(np.abs(means) / errors, freedom)
        halves = stats.t.ppf(1 - LEVEL / 2, freedom) * errors
    # without any variance, and without more of a mean than rounding leaves
    p_values, halves = np.where(variance > 0, (p_values, halves), 0.0)
    p_values = np.where(np.abs(means) > 1e-9, p_values, 1.0)
    p_values = np.maximum(p_values, 1 / comb(n_1 + n_2, n_1))
    halves = np.where(p_values >= LEVEL, np.maximum(halves, np.abs(means)), halves)
    columns = (means, errors, means - halves, means + halves, p_values)
    names = ("mean", "se", "low", "high", "p")
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


def swap_p_values(
    tops_a: np.ndarray, bottoms_a: np.ndarray, tops_b: np.ndarray, bottoms_b: np.ndarray, *, seed: int
) -> np.ndarray:
    """Two-sided p-values of paired differences between two models, (tests,), from (clusters, tests) sums.

    A paired permutation test (Fisher 1935; in this field "approximate randomisation", Noreen 1989): if the
    models were alike, a subject's figures could as well have been the other model's. So the two are
    swapped, subject by subject, and the difference is taken anew: over all 2**clusters swaps up to
    13 clusters, where p is their share with a difference at least as large; else over 9,999 random
    ones, with p = (1 + as large) / (1 + 9,999) (Phipson and Smyth 2010), which never is 0.
    """
    total_tops, total_bottoms = (tops_a + tops_b).sum(0), (bottoms_a + bottoms_b).sum(0)

    def distances(swaps: np.ndarray) -> np.ndarray:  # (swaps, tests)
        tops = tops_b.sum(0) + swaps @ (tops_a - tops_b)
        bottoms = bottoms_b.sum(0) + swaps @ (bottoms_a - bottoms_b)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(tops / bottoms - (total_tops - tops) / (total_bottoms - bottoms))

    size = len(tops_a)
    observed = distances(np.zeros((1, size)))[0]
    # sums in another order differ in their last bits
    enough = observed - 1e-9 * np.maximum(1.0, observed)
    exact = size <= EXACT_CLUSTERS
    as_large = sum((distances(swaps) >= enough).sum(0) for swaps in _swaps(size, exact, seed))
    return as_large / 2**size if exact else (1 + as_large) / (1 + N_SWAPS)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (Holm 1979), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _draws(size: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each resample, (some resamples, clusters) at a time."""
    if size * n_boot <= CELLS:
        yield _few_draws(size, n_boot, seed)
        return
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // size)
    for first in range(0, n_boot, step):
        yield _draw(generator, min(step, n_boot - first), size)


@lru_cache(maxsize=4)
def _few_draws(size: int, n_boot: int, seed: int) -> np.ndarray:
    return _draw(np.random.default_rng(seed), n_boot, size)


def _draw(generator: np.random.Generator, n: int, size: int) -> np.ndarray:
    drawn = generator.integers(size, size=(n, size)) + size * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size).astype(float)


def _swaps(size: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Rows of 0 and 1, (some swaps, clusters) at a time: which clusters change sides."""
    if exact:
        yield (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(float)
        return
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // size)
    for first in range(0, N_SWAPS, step):
        yield generator.integers(2, size=(min(step, N_SWAPS - first), size)).astype(float)
