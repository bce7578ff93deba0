"""Differences between models: what is compared with what, and the figures by hand."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from tests.eval.recall.made import result
from tidy_stlms.eval.recall.compare import Comparison, compare_models, is_comparable, pairs_of
from tidy_stlms.eval.recall.control import CORRECTED
from tidy_stlms.eval.recall.metrics import METRICS
from tidy_stlms.eval.recall.results import DocumentScore

TOKEN_METRICS = {metric for metric in METRICS if not is_comparable(metric)}


def results_of(accuracies, logprobs=None, role="injected"):
    """Two probes a subject."""
    logprobs = [-1.0] * len(accuracies) if logprobs is None else logprobs
    return [
        result(
            role=role,
            subject=f"s{i // 2}",
            fact_ids=(f"f{i}",),
            accuracy=float(accuracy),
            candidates=("Rome", "Oslo"),
            candidate_logprobs=(float(logprob), -3.0),
            logprob=float(logprob),
            n_bytes=5,
            n_tokens=2,
        )
        for i, (accuracy, logprob) in enumerate(zip(accuracies, logprobs, strict=True))
    ]


def comparison(found, metric, **wanted):
    [match] = [
        e for e in found if e.metric == metric and all(getattr(e, k) == value for k, value in wanted.items())
    ]
    return match


SAME = {"a": "t", "b": "t", "c": "t"}


def test_a_difference_by_hand():
    a, b = results_of([0, 0, 0, 1, 0, 0]), results_of([1, 1, 0, 1, 1, 0])
    found = compare_models({"a": a, "b": b}, SAME)
    one = comparison(found, "accuracy")
    keys = ("a", "b", "role", "type", "metric", "difference", "low", "high", "p", "p_holm", "n")
    assert Comparison.__struct_fields__ == keys
    assert (one.a, one.b, one.role, one.type) == ("a", "b", "injected", "semantic")
    assert one.difference == pytest.approx(4 / 6 - 1 / 6)
    assert one.n == 6
    # per subject: +2, 0, +1; of the 8 swaps those with |+-2 +-1| = 3, the middle one either way
    assert one.p == 4 / 8
    # resampled by subject, the differences lie between 0 and 1
    assert one.low == pytest.approx(0.0)
    assert one.high == pytest.approx(1.0)


def test_an_interval_is_paired():
    generator = np.random.default_rng(0)
    a = -5 * generator.random(200)
    b = a + 0.1 + 0.01 * generator.random(200)
    one = comparison(compare_models({"a": results_of(a, a), "b": results_of(b, b)}, SAME), "logprob")
    # much narrower than the spread of either model
    assert one.high - one.low < 0.003
    assert one.low < 0.105 < one.high


def test_ratios_are_compared_as_ratios():
    a, b = (
        results_of([1, 1], [-math.log(2) * 10, 0]),
        results_of([1, 1], [-math.log(2) * 5, -math.log(2) * 10]),
    )
    b[1] = replace(b[1], n_bytes=10)
    one = comparison(compare_models({"a": a, "b": b}, SAME), "bits_per_byte")
    assert one.difference == pytest.approx(15 / 15 - 10 / 10)
    assert comparison(compare_models({"a": a, "b": b}, SAME), "perplexity").difference == pytest.approx(
        2 ** (15 / 4) - 2 ** (10 / 4)
    )


def test_figures_that_count_tokens_need_one_tokenizer():
    rows = {name: results_of([0, 1, 1, 0]) for name in "abc"}
    assert {e.metric for e in compare_models(rows, SAME)} >= {"accuracy", "bits_per_byte", "perplexity"}
    other = compare_models(rows, {"a": "t", "b": "u", "c": "t"})
    pairs = {(e.a, e.b) for e in other if e.metric in TOKEN_METRICS}
    assert pairs == {("a", "c")}
    assert {(e.a, e.b) for e in other if e.metric == "accuracy"} == {
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    }


def test_who_is_compared_with_whom():
    assert pairs_of(["a", "b", "c"], None) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs_of(["a", "b", "c"], "b") == [("b", "a"), ("b", "c")]
    many = [str(number) for number in range(6)]
    assert pairs_of(many, None) == [("0", other) for other in many[1:]]
    rows = {name: results_of([0, 1]) for name in "abc"}
    assert {e.a for e in compare_models(rows, SAME, baseline="c")} == {"c"}
    assert compare_models({"a": rows["a"]}, SAME) == []


def test_holm_counts_the_comparisons_of_one_figure():
    generator = np.random.default_rng(1)
    flips = generator.random((3, 40)) < np.array([[0.2], [0.5], [0.55]])
    rows = {name: results_of(flip) for name, flip in zip("abc", flips, strict=True)}
    found = [e for e in compare_models(rows, SAME) if e.metric == "accuracy"]
    smallest = min(found, key=lambda e: e.p)
    assert smallest.p < 0.05
    assert smallest.p_holm == pytest.approx(3 * smallest.p)
    assert max(e.p_holm for e in found) <= 1.0


def test_the_gain_over_the_twin_is_split_from_what_control_people_gain():
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(2, 20))
    twin = results_of([0] * 20, noise[0]) + [
        replace(r, subject=f"c {r.subject}") for r in results_of([0] * 20, noise[1], role="control")
    ]
    # everybody's answers gain 2 nats, those of injected people 4 more, of which 1 are their names'
    gains = {"injected": (6.0, 1.0), "control": (2.0, 0.0)}
    run = [
        replace(
            r,
            candidate_logprobs=tuple(a + b for a, b in zip(r.candidate_logprobs, gains[r.role], strict=True)),
        )
        for r in twin
    ]
    found = compare_models({"run": run, "twin": twin}, {"run": "t", "twin": "t"}, baseline="twin")
    assert comparison(found, "subject_shift", role="injected").difference == pytest.approx(1.0)
    one = comparison(found, "binding", role="injected")
    assert (one.a, one.b, one.n) == ("twin", "run", 20)
    assert one.difference == pytest.approx(3.0)
    assert one.low == pytest.approx(3.0)
    assert one.p < 0.01
    over = comparison(found, "accuracy_over_control")
    assert over.difference == 0.0
    assert over.p == 1.0
    # nats of other tokenizers are not subtracted from each other
    other = compare_models({"run": run, "twin": twin}, {"run": "t", "twin": "u"})
    assert {e.metric for e in other} & CORRECTED == {"accuracy_over_control"}


def test_arms_are_compared_apart():
    twin = results_of([0, 1] * 8) + [
        replace(r, subject=f"c {r.subject}") for r in results_of([0] * 16, role="control")
    ]
    arms = {f"s{i}": ("never", "often")[i % 2] for i in range(8)}
    twin = [replace(r, arm=arms.get(r.subject)) for r in twin]
    run = [replace(r, accuracy=1.0) if r.arm == "often" else r for r in twin]
    exposures = {"often": (64, 64), "never": (0, 0)}
    doses = {r.fact_ids[0]: exposures[r.arm] for r in run if r.arm is not None}
    found = compare_models({"twin": twin, "run": run}, {"run": "t", "twin": "t"}, doses=doses)
    differences = {e.role: e.difference for e in found if e.metric == "accuracy"}
    assert differences == {"never (0 exposures)": 0.0, "often (64 exposures)": 0.5, "control": 0.0}
    over = {e.role: e.difference for e in found if e.metric == "accuracy_over_control"}
    assert over == {"never (0 exposures)": 0.0, "often (64 exposures)": 0.5}


def test_control_people_whose_answers_were_never_seen_are_a_group_of_their_own():
    rows = results_of([0, 1, 1], role="control") + [
        replace(r, arm="unseen") for r in results_of([1, 0], role="control")
    ]
    found = compare_models({"a": rows, "b": rows}, SAME)
    n = {e.role: e.n for e in found if e.metric == "accuracy"}
    assert n == {"control": 3, "unseen": 2}


def test_a_broken_models_perplexity_stays_a_number():
    rows = {
        "a": results_of([0, 1]),
        "b": results_of([0, 1], [-5000.0, -9000.0]),
        "c": results_of([0, 0], [-9e3, -9e3]),
    }
    for one in compare_models(rows, SAME):
        assert all(math.isfinite(getattr(one, key)) for key in ("difference", "low", "high", "p"))


def test_heldout_text_is_compared_by_document():
    def texts(*nats):
        return [DocumentScore(nats=value, n_bytes=10, n_tokens=2) for value in nats]

    heldout = {"a": texts(5.0, 10.0, 20.0), "b": texts(6.0, 12.0, 23.0)}
    [one] = compare_models({}, {}, heldout=heldout)
    assert (one.role, one.type, one.metric, one.n) == (
        "heldout",
        "documents",
        "bits_per_byte",
        3,
    )
    assert one.difference == pytest.approx(6 / (30 * math.log(2)))
    assert one.p == 2 / 8
