"""Exact values of the metrics, and what the intervals promise."""

import math

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from tests.eval.recall.made import result
from tidy_stlms.eval.recall import metrics, statistics
from tidy_stlms.eval.recall.metrics import count_flags, estimates_of, summarise
from tidy_stlms.eval.recall.results import Estimate
from tidy_stlms.eval.recall.statistics import bootstrap_interval


def scored(**fields):
    """A result with the log-probability of an answer of two tokens."""
    return result(**{"logprob": -2.0, "n_tokens": 2, "n_bytes": 6, "fact_ids": ("f1",)} | fields)


def test_candidates_without_ties():
    assert metrics.accuracy([-1.0, -2.0, -3.0]) == 1.0
    assert metrics.accuracy([-2.0, -1.0, -3.0]) == 0.0
    assert metrics.candidate_rank([-2.0, -1.0, -3.0]) == 2.0
    assert metrics.mrr([-2.0, -1.0, -3.0]) == 0.5
    # per byte the long answer wins
    assert metrics.accuracy([-4.0, -3.0]) == 0.0
    assert metrics.accuracy_norm([-4.0, -3.0], [8, 4]) == 1.0


def test_a_tie_among_k_counts_one_kth():
    assert metrics.accuracy([-1.0] * 4) == 0.25
    assert metrics.accuracy([-1.0, -1.0, -3.0]) == 0.5
    assert metrics.accuracy([-2.0, -2.0, -1.0]) == 0.0  # a tie below the best
    assert metrics.candidate_rank([-1.0] * 4) == 2.5
    assert metrics.candidate_rank([-2.0, -2.0, -1.0]) == 2.5
    assert metrics.mrr([-1.0] * 4) == 0.4
    # a uniform model: equal log-probability per byte, up to the last bits
    per_byte = math.log(1 / 7)
    sizes = [3, 6, 11, 13]
    assert metrics.accuracy_norm([per_byte * size for size in sizes], sizes) == 0.25


@pytest.mark.parametrize("gold", range(4))
def test_no_figure_depends_on_where_the_gold_candidate_stands(gold):
    others = [-3.0, -1.0, -2.0]
    logprobs = [*others[:gold], -2.0, *others[gold:]]
    assert metrics.candidate_metrics(logprobs, [5] * 4, gold) == {
        "accuracy": 0.0,
        "accuracy_norm": 0.0,
        "candidate_rank": 2.5,
        "mrr": 0.4,
    }


def test_a_nan_is_an_error_and_not_a_score():
    with pytest.raises(ValueError, match="finite"):
        metrics.accuracy([math.nan, math.nan])
    with pytest.raises(ValueError, match="finite"):
        metrics.candidate_rank([-1.0, math.nan])


def test_without_distractors_there_is_no_figure():
    assert set(metrics.candidate_metrics([-1.0], [5]).values()) == {None}


def test_ratios_are_taken_over_the_set():
    logprobs, n_bytes, n_tokens = [-math.log(2) * 8, -math.log(2) * 4], [4, 2], [1, 3]
    assert metrics.bits_per_byte(logprobs, n_bytes) == pytest.approx(2.0)
    assert metrics.perplexity(logprobs, n_tokens) == pytest.approx(2.0**3)
    rows = [
        scored(logprob=logprob, n_bytes=b, n_tokens=n)
        for logprob, b, n in zip(logprobs, n_bytes, n_tokens, strict=True)
    ]
    summary = summarise(rows)["injected"]["semantic"]
    assert summary["bits_per_byte"].mean == pytest.approx(2.0)
    assert summary["perplexity"].mean == pytest.approx(8.0)  # not the mean of 256 and 2.5
    assert summary["logprob"].mean == pytest.approx(sum(logprobs) / 2)
    assert metrics.token_rank([1.0, 2.5]) == 1.75
    assert math.isfinite(metrics.perplexity([-1e6], [1]))


def test_summary_by_role_and_type():
    rows = [
        scored(accuracy=1.0, greedy_match=1.0),
        scored(accuracy=0.0, fact_ids=("f1", "f2"), subject="Bo"),
        scored(accuracy=None, fact_ids=("f3",), flags=("straddles", "case")),
        scored(accuracy=0.5, role="control", type="reversal", flags=("case",)),
    ]
    summary = summarise(rows)
    assert summary.keys() == {"injected", "control"}
    assert summary["control"].keys() == {"reversal"}
    injected = summary["injected"]["semantic"]
    # without a value: left out of n, and where nobody has one, of the summary
    assert {metric: injected[metric].n for metric in injected} == {
        "logprob": 3,
        "bits_per_byte": 3,
        "accuracy": 2,
        "greedy_match": 1,
        "perplexity": 3,
    }
    assert injected["accuracy"] == Estimate(mean=0.5, low=0.0, high=1.0, n=2, n_facts=2)
    assert injected["logprob"].n_facts == 3
    assert estimates_of(rows[:3]) == injected
    by_relation = summarise([*rows[:3], scored(relation=None)], by="relation")["injected"]
    assert by_relation.keys() == {"born", "none"}
    assert by_relation["born"] == injected
    assert count_flags(rows) == {"straddles": 1, "case": 2}
    assert summarise(rows) == summarise(rows)


def test_interval_of_a_mean_is_the_analytic_one():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values, np.ones(400), range(400), n_boot=4000)
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_of_two_clusters_by_hand():
    # resamples: (a, a), (a, b), (b, a), (b, b) - the mean is 0, 1/2 or 1, with chances 1/4, 1/2, 1/4
    assert bootstrap_interval([0.0, 1.0], [1.0, 1.0], ["a", "b"]) == (0.0, 1.0)
    # a ratio, not a mean of ratios: (0 + 6) / (1 + 3)
    low, high = bootstrap_interval([0.0, 6.0], [1.0, 3.0], ["a", "b"])
    assert (low, high) == (0.0, 2.0)
    assert bootstrap_interval([1.0, 0.0], [1.0, 1.0], ["a", "a"]) == (0.5, 0.5)


def test_interval_by_subject_is_wider_where_a_subjects_probes_agree():
    known = np.random.default_rng(0).integers(2, size=30)
    rows = [
        scored(accuracy=float(k), subject=f"s{i}", fact_ids=(f"f{i}",))
        for i, k in enumerate(known)
        for _ in range(8)
    ]
    independent = [replace(r, subject=f"p{i}") for i, r in enumerate(rows)]

    def width(rows):
        figure = summarise(rows)["injected"]["semantic"]["accuracy"]
        return figure.high - figure.low

    assert width(rows) / width(independent) == pytest.approx(math.sqrt(8), rel=0.15)
    # by fact where there is no subject
    assert width([replace(r, subject=None) for r in rows]) == pytest.approx(width(rows))


def test_the_bootstrap_leaves_the_global_generator_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    bootstrap_interval([0.0, 1.0], [1.0, 1.0], ["a", "b"])
    assert np.array_equal(before, np.random.get_state()[1])


def test_chunks_of_resamples_are_all_there(monkeypatch):
    values = np.arange(40.0)
    monkeypatch.setattr(statistics, "CELLS", 40 * 7)  # seven resamples at a time
    low, high = bootstrap_interval(values, np.ones(40), range(40), n_boot=2000)
    error = values.std() / math.sqrt(40)
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_recall_metric_gives_the_same_figures():
    from tidy_stlms.eval.recall.hf_metric import RecallMetric

    generator = np.random.default_rng(0)
    predictions, references, rows = [], [], []
    for i in range(40):
        logprobs = (-5 * generator.random(4)).tolist()
        gold, sizes, tokens = int(generator.integers(4)), [4, 5, 6, 7], [1, 2, 1, 3]
        predictions.append(logprobs)
        subject, fact_id = f"s{i // 4}", f"f{i // 2}"
        references.append(
            {"gold": gold, "n_bytes": sizes, "n_tokens": tokens, "subject": subject, "fact_id": fact_id}
        )
        rows.append(
            scored(
                subject=subject,
                fact_ids=(fact_id,),
                logprob=logprobs[gold],
                n_bytes=sizes[gold],
                n_tokens=tokens[gold],
                **metrics.candidate_metrics(logprobs, sizes, gold),
            )
        )
    metric = RecallMetric()
    figures = metric.compute(predictions=predictions, references=references)
    assert figures == msgspec.to_builtins(summarise(rows)["injected"]["semantic"])
    assert figures.keys() == {
        *("logprob", "bits_per_byte", "accuracy", "accuracy_norm", "candidate_rank", "mrr", "perplexity")
    }
    # in portions, and with other settings
    for prediction, reference in zip(predictions, references, strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == figures
    assert metric.compute(predictions=predictions, references=references, seed=1) != figures


def test_control_facts_with_unseen_answers_are_no_ordinary_control():
    control = result(role="control", accuracy=1.0)
    found = summarise([control, replace(control, arm="unseen", accuracy=0.0)], n_boot=10)
    assert found["control"]["semantic"]["accuracy"].mean == 1.0
    assert found["unseen"]["semantic"]["accuracy"].mean == 0.0
