"""Permutation tests and Holm's correction: exact values, and what they promise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tidy_stlms.eval.recall import statistics
from tidy_stlms.eval.recall.statistics import bootstrap_ratios, holm, swap_p_values


def by_hand(tops_a, bottoms_a, tops_b, bottoms_b):
    """The share of all swaps whose difference is at least the observed one, one swap after another."""

    def distance(swap):
        sides = [[0.0, 0.0], [0.0, 0.0]]
        for k, swapped in enumerate(swap):
            for side, (tops, bottoms) in enumerate(((tops_a, bottoms_a), (tops_b, bottoms_b))):
                sides[side ^ swapped][0] += tops[k]
                sides[side ^ swapped][1] += bottoms[k]
        return abs(sides[1][0] / sides[1][1] - sides[0][0] / sides[0][1])

    observed = distance([0] * len(tops_a))
    swaps = list(itertools.product((0, 1), repeat=len(tops_a)))
    return sum(distance(swap) >= observed - 1e-9 for swap in swaps) / len(swaps)


def test_few_clusters_are_gone_through_exactly():
    generator = np.random.default_rng(0)
    tops_a, tops_b = generator.random((2, 6, 3))
    bottoms_a, bottoms_b = generator.integers(1, 5, (2, 6, 3)).astype(float)
    p_values = swap_p_values(tops_a, bottoms_a, tops_b, bottoms_b, seed=0)
    for test in range(3):
        columns = (x[:, test].tolist() for x in (tops_a, bottoms_a, tops_b, bottoms_b))
        assert p_values[test] == pytest.approx(by_hand(*columns))
    # five subjects, all better: only the observed swap and its mirror image are as far apart
    ones = np.ones((5, 1))
    [p] = swap_p_values(0 * ones, ones, ones, ones, seed=0)
    assert p == 2 / 2**5
    [p] = swap_p_values(ones, ones, ones, ones, seed=0)
    assert p == 1.0


def test_random_swaps_come_near_the_exact_value(monkeypatch):
    generator = np.random.default_rng(1)
    tops_a, tops_b = generator.random((2, 12, 2))
    tops_b += 0.15
    ones = np.ones_like(tops_a)
    exact = swap_p_values(tops_a, ones, tops_b, ones, seed=0)
    assert (exact > 0.01).all()
    assert (exact < 0.5).all()
    monkeypatch.setattr(statistics, "EXACT_CLUSTERS", 0)
    assert swap_p_values(tops_a, ones, tops_b, ones, seed=0) == pytest.approx(exact, abs=0.015)
    monkeypatch.setattr(statistics, "CELLS", 12 * 1000)  # a thousand swaps at a time
    assert swap_p_values(tops_a, ones, tops_b, ones, seed=0) == pytest.approx(exact, abs=0.015)


def test_a_p_value_is_never_zero_and_holds_its_level():
    many = np.ones((300, 1))
    [p] = swap_p_values(0 * many, many, many, many, seed=0)
    assert p == 1 / (1 + statistics.N_SWAPS)
    # where both models are alike, one test in twenty comes out below 0.05
    generator = np.random.default_rng(2)
    tops_a, tops_b = generator.normal(size=(2, 40, 400))
    ones = np.ones_like(tops_a)
    p_values = swap_p_values(tops_a, ones, tops_b, ones, seed=0)
    assert 0.02 < (p_values < 0.05).mean() < 0.09


def test_holm_by_hand():
    # times 4, 3, 2, 1 in order of size, never falling, at most 1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_figures_handed_over_one_by_one_see_the_same_draws():
    generator = np.random.default_rng(3)
    tops = generator.random((30, 2))
    ones = np.ones((30, 2))
    together = bootstrap_ratios(tops, ones, n_boot=50, seed=4)
    apart = [bootstrap_ratios(tops[:, k], ones[:, k], n_boot=50, seed=4) for k in (0, 1)]
    assert together == pytest.approx(np.stack(apart, 1))
    assert not np.allclose(together, bootstrap_ratios(tops, ones, n_boot=50, seed=5))


def test_a_figure_whose_clusters_were_all_missed_is_left_out_of_its_interval():
    ratios = bootstrap_ratios(np.array([1.0, 0.0]), np.array([1.0, 0.0]), n_boot=200, seed=0)
    assert np.isnan(ratios).any()
    assert statistics.interval(ratios) == (1.0, 1.0)
    assert math.isclose(np.isnan(ratios).mean(), 0.25, abs_tol=0.1)


def sides(first, second):
    """What `t_tests` takes, from one observation a cluster, (clusters, figures)."""
    (mean_1, variance_1), (mean_2, variance_2) = (
        statistics.ratio_and_variance(side, np.ones(len(side))) for side in (first, second)
    )
    return mean_1 - mean_2, (variance_1, len(first)), (variance_2, len(second))


def test_the_t_test_of_two_sides_is_welchs():
    generator = np.random.default_rng(4)
    first, second = generator.normal(size=(7, 3)), 0.4 + 3 * generator.normal(size=(12, 3))
    found = statistics.t_tests(*sides(first, second))
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert [one.p for one in found] == pytest.approx(expected.pvalue)
    assert [one.low for one in found] == pytest.approx(interval.low)
    assert [one.high for one in found] == pytest.approx(interval.high)
    assert [one.mean / one.se for one in found] == pytest.approx(expected.statistic)


def test_the_t_test_without_variance_and_with_few_clusters():
    def test(first, second):
        [found] = statistics.t_tests(*sides(np.array(first)[:, None], np.array(second)[:, None]))
        return found

    assert test([0.1 * 3, 0.3], [0.3, 0.3, 0.1 + 0.2]).p == 1.0
    certain = test([1.0] * 4, [0.0] * 4)
    assert (certain.low, certain.high, certain.p) == (1.0, 1.0, pytest.approx(1 / 70))
    # of six ways to choose two of four; the interval says no more than p
    for few in (test([1.0, 1.0], [0.0, 0.0]), test([1.0, 1.0 + 1e-6], [0.0, 1e-6])):
        assert few.p == pytest.approx(1 / 6)
        assert few.low == pytest.approx(0.0)
        assert few.high == pytest.approx(2.0)
