"""Statistics by cluster: bootstrap intervals, tests of differences, correction for many tests.

    low, high = bootstrap_interval(correct, [1.0] * len(correct), subjects)

The probes of one subject are correlated. So resampling draws whole subjects, and tests swap whole subjects
("clusters"). Every figure is a ratio of two sums over clusters. For a mean, the denominators are numbers of
probes.

All random draws come from a seed and leave numpy's global generator alone.
"""

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
from scipy import stats

CELLS = 2**22  # resamples x clusters in memory at a time: 32 MB
N_BOOT = 1000
N_SWAPS = 9_999
LEVEL = 0.05  # of tests; the coverage of intervals is 1 - LEVEL
EXACT_CLUSTERS = 13  # the most clusters for which all 2**clusters swaps are tried


class TTest(NamedTuple):
    """A t-test of a mean against zero."""

    mean: float
    se: float
    """Standard error of the mean."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    p: float
    """Two-sided."""


def number_clusters(names: Sequence[Hashable]) -> tuple[list[int], int]:
    """Replace names by numbers from 0, in order of appearance; also return how many there are."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names], len(numbers)


def sums_by_cluster(
    values: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, size: int
) -> np.ndarray:
    """Add up the values of each cluster.

    Args:
        values: (n[, figures]).
        clusters: The number of each value's cluster, (n,), below `size`.

    Returns:
        (size[, figures]).
    """
    values = np.asarray(values, dtype=float)
    sums = np.zeros((size, *values.shape[1:]))
    np.add.at(sums, np.asarray(clusters, dtype=int), values)
    return sums


def bootstrap_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of sum(numerators) / sum(denominators), by cluster.

    Resampling single probes instead of clusters would give intervals that are too narrow (Davison and Hinkley
    1997, section 3.8). With one cluster the interval has no width.

    Args:
        numerators: (probes,).
        denominators: (probes,); ones for a mean.
        clusters: The name of each probe's cluster, (probes,).
    """
    numbers, size = number_clusters(clusters)
    tops = sums_by_cluster(numerators, numbers, size)
    bottoms = sums_by_cluster(denominators, numbers, size)
    return interval(bootstrap_ratios(tops, bottoms, n_boot=n_boot, seed=seed))


def bootstrap_ratios(tops: np.ndarray, bottoms: np.ndarray, *, n_boot: int, seed: int) -> np.ndarray:
    """Resample clusters `n_boot` times, and divide the sums of each resample.

    Equal seeds give equal draws, for all figures of one call and for several calls with as many clusters. So
    differences of these ratios are paired. The ratio is NaN if a resample misses all clusters of a figure.

    Args:
        tops: Sums of numerators, (clusters[, figures]).
        bottoms: Sums of denominators, (clusters[, figures]).

    Returns:
        (n_boot[, figures]).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [((draw @ tops).T / (draw @ bottoms).T).T for draw in _draws(len(tops), n_boot, seed)]
    return np.concatenate(parts)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of one figure's resamples, (n_boot,), without those that are NaN."""
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def ratio_and_variance(tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of sums over clusters, and their variances by linearisation (Cochran 1977, section 6.4).

    Args:
        tops: Sums of numerators, (clusters, figures); at least two clusters.
        bottoms: Sums of denominators, (clusters,).

    Returns:
        Ratios, (figures,), and variances, (figures,).
    """
    size, total = len(tops), bottoms.sum()
    ratio = tops.sum(0) / total  # (figures,)
    residuals = (tops - bottoms[:, None] * ratio) / total  # (clusters, figures)
    return ratio, (residuals**2).sum(0) * size / (size - 1)


def t_tests(means: np.ndarray, first: tuple[np.ndarray, int], second: tuple[np.ndarray, int]) -> list[TTest]:
    """Test means against zero; the variance of each mean is the sum of two independent variances.

    The degrees of freedom are those of Satterthwaite (1946), as in Welch's test. p is at least
    1 / C(n_1 + n_2, n_1), the smallest p-value of a permutation test that deals the clusters out to two
    sides. If p is 0.05 or more, the interval is widened to include zero, so that both say the same.

    Args:
        means: (figures,).
        first: Variances, (figures,), and the number of clusters that they come from, at least two.
        second: The same of the other side.
    """
    (variance_1, n_1), (variance_2, n_2) = first, second
    variance = variance_1 + variance_2
    errors = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / (variance_1**2 / (n_1 - 1) + variance_2**2 / (n_2 - 1))
        p_values = 2 * stats.t.sf(np.abs(means) / errors, freedom)
        halves = stats.t.ppf(1 - LEVEL / 2, freedom) * errors
    # without variance, t is not defined; a mean that is only a rounding error is no effect
    p_values, halves = np.where(variance > 0, (p_values, halves), 0.0)
    p_values = np.where(np.abs(means) > 1e-9, p_values, 1.0)
    p_values = np.maximum(p_values, 1 / comb(n_1 + n_2, n_1))
    halves = np.where(p_values >= LEVEL, np.maximum(halves, np.abs(means)), halves)
    columns = (means, errors, means - halves, means + halves, p_values)
    return [TTest(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def swap_p_values(
    tops_a: np.ndarray, bottoms_a: np.ndarray, tops_b: np.ndarray, bottoms_b: np.ndarray, *, seed: int
) -> np.ndarray:
    """Two-sided p-values of differences between two models that answered the same probes.

    A paired permutation test (Fisher 1935; "approximate randomisation", Noreen 1989). If the two models are
    alike, their figures of a subject can be swapped. Each permutation swaps some subjects and takes the
    difference again. Up to 13 clusters all 2**clusters swaps are tried, and p is the share of differences
    that are at least as large as the observed one. Above, 9,999 random swaps are drawn, and
    p = (1 + as large) / (1 + 9,999), which is never 0 (Phipson and Smyth 2010).

    Args:
        tops_a: Sums of model a's numerators, (clusters, tests).
        bottoms_a: Sums of its denominators, (clusters, tests).
        tops_b: Of model b.
        bottoms_b: Of model b.

    Returns:
        (tests,).
    """
    total_tops, total_bottoms = (tops_a + tops_b).sum(0), (bottoms_a + bottoms_b).sum(0)

    def distances(swaps: np.ndarray) -> np.ndarray:
        tops = tops_b.sum(0) + swaps @ (tops_a - tops_b)  # (swaps, tests)
        bottoms = bottoms_b.sum(0) + swaps @ (bottoms_a - bottoms_b)  # (swaps, tests)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(tops / bottoms - (total_tops - tops) / (total_bottoms - bottoms))

    size = len(tops_a)
    observed = distances(np.zeros((1, size)))[0]  # (tests,)
    # sums in another order differ in their last bits
    threshold = observed - 1e-9 * np.maximum(1.0, observed)
    exact = size <= EXACT_CLUSTERS
    as_large = sum((distances(swaps) >= threshold).sum(0) for swaps in _swaps(size, exact, seed))
    return as_large / 2**size if exact else (1 + as_large) / (1 + N_SWAPS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests by the step-down method of Holm (1979); their order stays."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _draws(size: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample draws each cluster, (some resamples, clusters) at a time."""
    if size * n_boot <= CELLS:
        yield _cached_draw(size, n_boot, seed)
        return
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // size)
    for start in range(0, n_boot, step):
        yield _draw(generator, min(step, n_boot - start), size)


@lru_cache(maxsize=4)
def _cached_draw(size: int, n_boot: int, seed: int) -> np.ndarray:
    # all metrics of a group have the same clusters, and so the same draws
    return _draw(np.random.default_rng(seed), n_boot, size)


def _draw(generator: np.random.Generator, n: int, size: int) -> np.ndarray:
    drawn = generator.integers(size, size=(n, size)) + size * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size).astype(float)  # (n, clusters)


def _swaps(size: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Which clusters each permutation swaps, as 0 and 1, (some swaps, clusters) at a time."""
    if exact:
        yield (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(float)
        return
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // size)
    for start in range(0, N_SWAPS, step):
        yield generator.integers(2, size=(min(step, N_SWAPS - start), size)).astype(float)
