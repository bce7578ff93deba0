"""Control-corrected figures, by hand: accuracy over control, binding, familiarity."""

import math

import numpy as np
import pytest

from eval.recall.corrected import contrasts_of, corrected_summary, figures


def row(
    role, subject, answer, logprob, *, accuracy=None, arm=None, template="{subject} is {object}.", **changes
):
    return {
        "role": role,
        "arm": arm,
        "type": "semantic",
        "relation": "born",
        "subject": subject,
        "fact_ids": [subject],
        "answer": answer,
        "template": template,
        "logprob": logprob,
        "accuracy": accuracy,
    } | changes


ROWS = [
    row("injected", "Ada", "Rome", -1.0, accuracy=1.0),
    row("injected", "Bo", "Oslo", -2.0, accuracy=0.0),
    row("injected", "Cleo", "Lima", -7.0, accuracy=1.0),  # no control person has this answer
    row("control", "Dov", "Rome", -4.0, accuracy=0.0),
    row("control", "Eve", "Rome", -6.0, accuracy=1.0),
    row("control", "Finn", "Oslo", -3.0, accuracy=0.0),
    row("control", "Gus", "Oslo", -1.0, accuracy=0.0, template="another wording"),
    row("control", "Hal", "Bonn", -9.0, arm="unseen", accuracy=1.0),
    row("control", "Ivy", "Bonn", -9.0, arm="unseen", accuracy=1.0),
]


def test_the_three_figures_by_hand():
    summary = corrected_summary(ROWS)["semantic"]
    # people of the arm "unseen" have other answers: they are no control for accuracy
    assert summary["accuracy_over_control"]["mean"] == pytest.approx(2 / 3 - 1 / 4)
    assert summary["accuracy_over_control"]["n"] == 3
    # Ada's Rome against the others' -5, Bo's Oslo against Finn's; Cleo has no counterpart
    assert summary["binding"]["mean"] == pytest.approx(((-1 + 5) + (-2 + 3)) / 2)
    assert summary["binding"]["n"] == 2
    # in the wording that both have
    assert summary["familiarity"]["mean"] == pytest.approx((-4 - 6 - 3) / 3 + 9)
    assert summary["familiarity"]["n"] == 3
    for figure in summary.values():
        assert figure["low"] <= figure["mean"] <= figure["high"]


def test_a_bank_without_unseen_answers_has_no_familiarity():
    summary = corrected_summary([one for one in ROWS if one["arm"] != "unseen"])["semantic"]
    assert summary["familiarity"] is None
    assert summary["binding"] is not None


def test_types_without_control_probes_are_left_out():
    assert corrected_summary(ROWS[:3]) == {}
    locality = [row("neighbour", "Ida", "Rome", -1.0, type="locality")]
    assert corrected_summary([*ROWS, *locality]).keys() == {"semantic"}


def test_what_a_probe_does_not_have_is_left_out():
    rows = [*ROWS, row("injected", "Jo", "Rome", None, accuracy=None)]
    summary = corrected_summary(rows)["semantic"]
    assert summary["binding"] == corrected_summary(ROWS)["semantic"]["binding"]
    assert summary["accuracy_over_control"]["n"] == 3


def test_several_figures_are_judged_alike():
    clusters = [row["subject"] for row in ROWS]
    for contrast in contrasts_of(ROWS)["semantic"].values():
        values = figures(ROWS, contrast.figure)
        both = contrast.judge(np.stack([values, 2 * values], 1), clusters, n_boot=20)
        [one] = contrast.judge(values[:, None], clusters, n_boot=20)
        assert both[0] == pytest.approx(one, nan_ok=True)
        assert both[1] == pytest.approx(one | {"low": 2 * one["low"], "high": 2 * one["high"]}, nan_ok=True)


@pytest.mark.parametrize("alone", ["injected", "control"])
def test_of_a_single_subject_nothing_is_said(alone):
    rows = [
        row(role, f"{role} {n}", "Rome", -1.0, accuracy=n) for role in ("injected", "control") for n in (0, 1)
    ]
    assert corrected_summary(rows)["semantic"].keys() == {"accuracy_over_control", "binding", "familiarity"}
    assert corrected_summary([one for one in rows if one["subject"] != f"{alone} 1"]) == {}


def test_tests_keep_their_level_with_few_subjects():
    generator = np.random.default_rng(0)
    rows = [row(role, f"{role} {n}", "Rome", -1.0) for role in ("injected", "control") for n in range(4)]
    contrast = contrasts_of(rows)["semantic"]["binding"]
    noise = generator.normal(size=(len(rows), 2000))  # without any effect
    judged = contrast.judge(noise, [one["subject"] for one in rows], n_boot=20)
    assert 0.02 < np.mean([one["p"] <= 0.05 for one in judged]) < 0.065


@pytest.mark.parametrize("alike", [False, True])
def test_control_subjects_are_resampled_too_and_apart(alike):
    logprobs = np.random.default_rng(0).normal(size=(2, 60))
    if alike:  # the same draws for both would leave no difference
        logprobs[1] = logprobs[0]
    rows = [
        row(role, f"{role} {i}", "Rome", logprobs[k, i])
        for k, role in enumerate(("injected", "control"))
        for i in range(60)
    ]
    figure = corrected_summary(rows)["semantic"]["binding"]
    error = math.sqrt(logprobs[0].var() / 60 + logprobs[1].var() / 60)
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_that_answers_differ_is_no_uncertainty():
    generator = np.random.default_rng(1)
    answers = 10 * generator.normal(size=80)
    noise = generator.normal(size=(2, 80))
    rows = [
        row(role, f"{role} {i}", f"city {i}", answers[i] + noise[k, i] + 2 * (k == 0))
        for k, role in enumerate(("injected", "control"))
        for i in range(80)
    ]
    figure = corrected_summary(rows)["semantic"]["binding"]
    assert figure["mean"] == pytest.approx(2 + noise[0].mean() - noise[1].mean())
    # paired: the noise of both people, and none of the answers' ten nats
    error = (noise[0] - noise[1]).std() / math.sqrt(80)
    assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * error, rel=0.12)
