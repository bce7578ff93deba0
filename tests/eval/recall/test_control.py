"""Control-corrected figures: by hand, on scores made of known parts, and the level of their tests."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from tests.eval.recall.made import result
from tidy_stlms.eval.recall.control import (
    CORRECTED,
    CorrectedEstimate,
    cell_values,
    contrasts_of,
    corrected_summary,
)
from tidy_stlms.eval.recall.groups import groups_of

POOL = ("Rome", "Oslo", "Lima", "Bonn", "Kiev", "Bern")


def scored(role, subject, answer, logprob, *, template="{subject} is {object}.", **fields):
    """A result with one candidate, its answer."""
    defaults = {
        "fact_ids": (subject,),
        "candidates": (answer,),
        "candidate_logprobs": () if logprob is None else (logprob,),
    }
    own = {"role": role, "subject": subject, "answer": answer, "logprob": logprob, "template": template}
    return result(**{**defaults, **own, **fields})


def offered(role, subject, logprobs, **changes):
    """A row whose candidates have these log-probabilities, the answer first."""
    answer, own = next(iter(logprobs.items()))
    lists = {"candidates": tuple(logprobs), "candidate_logprobs": tuple(logprobs.values())}
    return scored(role, subject, answer, own, **lists, **changes)


def parts_of(rows):
    """The figures of the type "semantic", of injected facts and of control facts."""
    return {
        name: figure
        for by_kind in corrected_summary(rows).values()
        for name, figure in by_kind["semantic"].items()
    }


ROWS = [
    offered("injected", "Ada", {"Rome": -1.0, "Oslo": -3.0, "Lima": -2.0}, accuracy=1.0),
    offered("injected", "Bo", {"Oslo": -2.0, "Rome": -4.0}, accuracy=0.0),
    # nothing is known of Lima: it is offered to one control person only
    offered("injected", "Cleo", {"Lima": -7.0, "Rome": -1.0}, accuracy=1.0),
    offered("control", "Dov", {"Rome": -4.0, "Oslo": -6.0}, accuracy=0.0),
    offered("control", "Eve", {"Rome": -6.0, "Oslo": -4.0, "Lima": -1.0}, accuracy=1.0),
    offered("control", "Finn", {"Oslo": -5.0, "Rome": -8.0}, accuracy=0.0),
    offered("control", "Gus", {"Oslo": -1.0, "Rome": -1.0}, accuracy=0.0, template="another wording"),
    offered("control", "Hal", {"Bonn": -9.0, "Kiev": -1.0}, arm="unseen", accuracy=1.0),
    offered("control", "Ivy", {"Bonn": -9.0, "Kiev": -1.0}, arm="unseen", accuracy=1.0),
]


def test_the_figures_by_hand():
    summary = parts_of(ROWS)
    assert set(summary) == CORRECTED
    # people of the arm "unseen" have other answers: they are no control for accuracy
    assert summary["accuracy_over_control"].mean == pytest.approx(2 / 3 - 1 / 4)
    assert summary["accuracy_over_control"].n == 3
    # control people have -6 for Rome and -5 for Oslo: Ada's Oslo is 2 above it, Bo's Rome too
    assert summary["subject_shift"].mean == pytest.approx((2 + 2) / 2)
    # her Rome is 5 above, his Oslo 3
    assert summary["binding"].mean == pytest.approx(((5 - 2) + (3 - 2)) / 2)
    assert summary["binding"].n == summary["subject_shift"].n == 2
    # in the wording that both have
    assert summary["answer_familiarity"].mean == pytest.approx((-4 - 6 - 5) / 3 + 9)
    assert summary["answer_familiarity"].n == 3
    for figure in summary.values():
        assert figure.low <= figure.mean <= figure.high
    assert CorrectedEstimate.__struct_fields__ == ("mean", "se", "low", "high", "p", "n")


def test_the_standard_error_of_binding_by_hand():
    figure = parts_of(ROWS)["binding"]
    # of the injected subjects, whose values are 3 and 1
    of_subjects = 2 / 4 * ((3 - 2) ** 2 + (1 - 2) ** 2)
    # each mean is taken 1 - 1 times in all: the answer of one is the other candidate of the other
    assert figure.se == pytest.approx(math.sqrt(of_subjects))
    # without Bo's Rome, and a second Ada in her place, the means count in full: +1 and -1
    rows = [ROWS[0], offered("injected", "Bea", {"Rome": -2.0, "Oslo": -3.0}), *ROWS[3:6]]
    figure = parts_of(rows)["binding"]
    of_subjects = 2 / 4 * ((3 - 2.5) ** 2 + (2 - 2.5) ** 2)
    # Dov is 2 above Rome's mean and 1 below Oslo's, Eve at it and 1 above, Finn 2 below and at it
    of_controls = 3 / 2 * ((2 + 1) ** 2 + (0 - 1) ** 2 + (-2 - 0) ** 2) / 3**2
    assert figure.mean == pytest.approx(2.5)
    assert figure.se == pytest.approx(math.sqrt(of_subjects + of_controls))


def test_a_bank_without_unseen_answers_has_no_answer_familiarity():
    summary = parts_of([one for one in ROWS if one.arm != "unseen"])
    assert summary.keys() == CORRECTED - {"answer_familiarity"}


def test_types_without_control_probes_are_left_out():
    assert corrected_summary(ROWS[:3]) == {}
    locality = [scored("neighbour", "Ida", "Rome", -1.0, type="locality")]
    assert corrected_summary([*ROWS, *locality]) == corrected_summary(ROWS)


def test_what_a_probe_does_not_have_is_left_out():
    rows = [*ROWS, scored("injected", "Jo", "Rome", None, accuracy=None)]
    summary = parts_of(rows)
    assert summary["binding"] == parts_of(ROWS)["binding"]
    assert summary["accuracy_over_control"].n == 3


def test_rows_of_before_candidates_were_kept_have_no_binding():
    old = [replace(one, candidates=(), candidate_logprobs=()) for one in ROWS]
    summary = parts_of(old)
    assert summary.keys().isdisjoint({"binding", "subject_shift"})
    assert summary["accuracy_over_control"] == parts_of(ROWS)["accuracy_over_control"]


def test_candidates_that_only_injected_people_are_offered_have_no_counterpart():
    """Names, in reversal: those of injected people are offered to injected people."""
    names = {"injected": ("Ada", "Bo", "Cleo"), "control": ("Dov", "Eve", "Finn")}
    rows = [
        offered(role, own, {own: -1.0, **{other: -2.0 for other in all_names if other != own}}, accuracy=1.0)
        for role, all_names in names.items()
        for own in all_names
    ]
    summary = parts_of(rows)
    assert summary.keys().isdisjoint({"binding", "subject_shift"})
    assert summary["accuracy_over_control"].mean == 0.0


def test_several_figures_are_judged_alike():
    for contrast in contrasts_of(ROWS, groups_of(ROWS))["injected", "semantic"].values():
        values = cell_values(ROWS, contrast.figure)
        [one] = contrast.test(values[:, None])
        both = contrast.test(np.stack([values, 2 * values], 1))
        assert both[0] == pytest.approx(one)
        assert both[1] == pytest.approx([*(2 * value for value in one[:-1]), one.p])


@pytest.mark.parametrize("alone", ["injected", "control"])
def test_of_a_single_subject_nothing_is_said(alone):
    rows = [
        offered(role, f"{role} {n}", {"Rome": -1.0, "Oslo": -2.0}, accuracy=n)
        for role in ("injected", "control")
        for n in (0, 1)
    ]
    assert "binding" in parts_of(rows)
    assert corrected_summary([one for one in rows if one.subject != f"{alone} 1"]) == {}


# scores that are made of known parts


def questions(
    people=8, wordings=("{subject} is {object}.", "{object} has {subject}!"), *, size=4, generator=None
):
    """Rows without scores: as many injected, control and unseen people, each offered `size` cities of six, by
    `generator` or in turn; the answers of unseen people are injected for nobody."""
    rows = []
    for role, arm, cities in (
        ("injected", None, POOL),
        ("control", None, POOL),
        ("control", "unseen", ("Graz", "Linz", "Wels", "Enns")),
    ):
        for person in range(people):
            order = (
                np.arange(person, person + len(cities)) if generator is None else generator.permutation(12)
            )
            own = list(dict.fromkeys(cities[place % len(cities)] for place in order))[:size]
            for template in wordings:
                subject = f"{role} {arm} {person}"
                changes = {"arm": arm, "template": template, "accuracy": 0.0}
                rows.append(offered(role, subject, dict.fromkeys(own, 0.0), **changes))
    return rows


def with_parts(rows, *, answer_familiarity=0.0, subject_shift=0.0, binding=0.0, noise=None, normalised=False):
    """The rows with log-probabilities that are sums: of the wording, the candidate, and the parts."""
    scored_rows = []
    for one in rows:
        injected, unseen = one.role == "injected", one.arm == "unseen"
        base = -3.0 - len(one.template) / 10 + subject_shift * injected
        logprobs = [
            base + len(text) / 7 + answer_familiarity * (not unseen) + binding * (injected and place == 0)
            for place, text in enumerate(one.candidates)
        ]
        if noise is not None:
            logprobs = [value + noise[one.subject, one.template] for value in logprobs]
        if normalised:
            logprobs = list(np.array(logprobs) - np.logaddexp.reduce(logprobs))
        scored_rows.append(replace(one, candidate_logprobs=tuple(logprobs), logprob=logprobs[0]))
    return scored_rows


NAMES = ("answer_familiarity", "subject_shift", "binding")


@pytest.mark.parametrize("part", NAMES)
def test_each_part_alone_is_found_exactly_and_the_others_are_zero(part):
    summary = parts_of(with_parts(questions(), **{part: 2.5}))
    for name in NAMES:
        assert summary[name].mean == pytest.approx(2.5 if name == part else 0.0, abs=1e-12), name
        assert summary[name].se == pytest.approx(0.0, abs=1e-12)
    assert summary[part].p < 0.05


def test_parts_together_are_told_apart():
    parts = {"answer_familiarity": 0.7, "subject_shift": -1.3, "binding": 2.1}
    summary = parts_of(with_parts(questions(), **parts))
    assert {name: summary[name].mean for name in NAMES} == pytest.approx(parts)


def test_a_familiar_name_is_no_binding_after_normalisation_either():
    shifted = parts_of(with_parts(questions(), subject_shift=1.5, normalised=True))
    assert shifted["binding"].mean == pytest.approx(0.0, abs=1e-12)
    assert shifted["binding"].p == 1.0
    # and what is bound is found whole, though the other candidates lost by it
    bound = parts_of(with_parts(questions(), binding=1.5, normalised=True))
    assert bound["binding"].mean == pytest.approx(1.5)
    assert bound["subject_shift"].mean < -0.3


def test_what_is_peculiar_to_a_subject_is_no_binding():
    rows = questions(size=6)
    generator = np.random.default_rng(3)
    noise = {(one.subject, one.template): generator.normal() for one in rows}
    summary = parts_of(with_parts(rows, binding=1.0, noise=noise))
    assert summary["binding"].mean == pytest.approx(1.0)
    assert summary["binding"].se == pytest.approx(0.0, abs=1e-12)
    means = {
        role: np.mean([value for (who, _), value in noise.items() if who.startswith(f"{role} None")])
        for role in ("injected", "control")
    }
    assert summary["subject_shift"].mean == pytest.approx(means["injected"] - means["control"])
    assert summary["subject_shift"].se > 0.1


# what the intervals promise


def no_effect(n_subjects, n_draws, seed):
    """Rows and values, (cells, draws), of nothing but subjects, answers, and noise of both."""
    generator = np.random.default_rng(seed)
    rows = questions(n_subjects, generator=generator)
    subjects = {name: number for number, name in enumerate(dict.fromkeys(r.subject for r in rows))}
    texts = {text: number for number, text in enumerate(dict.fromkeys(t for r in rows for t in r.candidates))}
    of_subjects = generator.normal(size=(len(subjects), n_draws))
    of_answers = generator.normal(size=(len(texts), n_draws))
    of_both = 0.5 * generator.normal(size=(len(subjects), len(texts), n_draws))
    values = []
    for one in rows:
        who, what = subjects[one.subject], [texts[text] for text in one.candidates]
        logits = of_subjects[who] + of_answers[what] + of_both[who, what]
        logits += generator.normal(size=logits.shape)
        values.append(logits - np.logaddexp.reduce(logits, axis=0))
    return rows, np.concatenate(values)


@pytest.mark.parametrize("n_subjects", [8, 16, 32])
def test_tests_keep_their_level_and_intervals_their_coverage(n_subjects):
    rows, values = no_effect(n_subjects, 400, seed=n_subjects)
    contrasts = contrasts_of(rows, groups_of(rows))["injected", "semantic"]
    accuracy = np.stack([one.argmax(0) == 0 for one in np.split(values, len(rows))]).astype(float)
    for name, drawn in (("accuracy_over_control", accuracy), ("subject_shift", values), ("binding", values)):
        judged = contrasts[name].test(drawn)
        significant = [one.p < 0.05 for one in judged]
        covered = [one.low <= 0 <= one.high for one in judged]
        assert significant == [not inside for inside in covered]  # they never disagree
        assert 0.92 <= np.mean(covered) <= 0.98, name
        error = math.sqrt(np.mean([one.se**2 for one in judged]))
        assert error == pytest.approx(np.std([one.mean for one in judged]), rel=0.2), name


def test_a_difference_between_models_is_judged_by_the_same_cells():
    rows, values = no_effect(12, 2, seed=1)
    contrast = contrasts_of(rows, groups_of(rows))["injected", "semantic"]["binding"]
    [difference] = contrast.test(values[:, 1:] - values[:, :1])
    first, second = contrast.test(values)
    assert difference.mean == pytest.approx(second.mean - first.mean)
    [none] = contrast.test(values[:, :1] - values[:, :1])
    assert none == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_arms_are_judged_apart_and_beside_the_same_control_people():
    rows = [
        replace(one, arm="often" if int(one.subject[-1]) % 2 else "once") if one.role == "injected" else one
        for one in questions()
    ]
    scores = {"once": 0.5, "often": 3.0}
    rows = [with_parts([one], binding=scores.get(one.arm, 0.0))[0] for one in rows]
    exposures = {"once": (1, 1), "often": (64, 64)}
    doses = {one.fact_ids[0]: exposures[one.arm] for one in rows if one.role == "injected"}
    found = corrected_summary(rows, doses)
    assert list(found) == ["once (1 exposure)", "often (64 exposures)", "control"]
    assert found["once (1 exposure)"]["semantic"]["binding"].mean == pytest.approx(0.5)
    assert found["often (64 exposures)"]["semantic"]["binding"].mean == pytest.approx(3.0)
    assert [found[group]["semantic"]["binding"].n for group in list(found)[:2]] == [8, 8]
    assert found["control"]["semantic"].keys() == {"answer_familiarity"}
    # as they come, where no exposures are known
    assert list(corrected_summary(rows[::-1])) == ["often", "once", "control"]


def test_few_subjects_are_never_significant():
    rows = [
        offered(role, f"{role} {n}", {"Rome": own + n / 1000, "Oslo": -2.0}, accuracy=own + 2)
        for role, own in (("injected", -1.0), ("control", -2.0))
        for n in (0, 1)
    ]
    for name in ("accuracy_over_control", "binding"):
        figure = parts_of(rows)[name]
        assert figure.p == pytest.approx(1 / 6)  # two of four people can be dealt out in six ways
        assert figure.low <= 0 < figure.mean


@pytest.mark.parametrize("alike", [False, True])
def test_control_subjects_are_uncertain_too_and_apart(alike):
    logprobs = np.random.default_rng(0).normal(size=(2, 60))
    if alike:  # the same draws for both would leave no difference
        logprobs[1] = logprobs[0]
    rows = [
        offered(role, f"{role} {i}", {"Rome": logprobs[k, i], "Oslo": 0.0})
        for k, role in enumerate(("injected", "control"))
        for i in range(60)
    ]
    figure = parts_of(rows)["binding"]
    error = math.sqrt(logprobs[0].var(ddof=1) / 60 + logprobs[1].var(ddof=1) / 60)
    assert figure.se == pytest.approx(error)


def test_that_answers_differ_is_no_uncertainty():
    generator = np.random.default_rng(1)
    answers = 10 * generator.normal(size=40)
    noise = generator.normal(size=(2, 80))
    rows = [
        offered(
            role,
            f"{role} {i}",
            {f"city {i // 2}": answers[i // 2] + noise[k, i] + 2 * (k == 0), "Rome": 0.0},
        )
        for k, role in enumerate(("injected", "control"))
        for i in range(80)
    ]
    figure = parts_of(rows)["binding"]
    assert figure.mean == pytest.approx(2 + noise[0].mean() - noise[1].mean())
    # the noise of both sides, and none of the answers' ten nats
    assert figure.se < 0.25
