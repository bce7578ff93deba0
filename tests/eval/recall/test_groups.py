"""Which facts are one figure, and what it is called."""

import pytest

from tests.eval.recall.made import result
from tidy_stlms.eval.recall.control import corrected_summary
from tidy_stlms.eval.recall.groups import (
    MOST_DOSES,
    GroupKey,
    facts_in_words,
    groups_of,
    in_order,
    is_injected,
    treatment_groups,
)
from tidy_stlms.eval.recall.metrics import summarise


def rows(*arms, control=(None,)):
    """An injected row of each arm, of a fact each, and control rows."""
    asked = [*(("injected", arm) for arm in arms), *(("control", arm) for arm in control), ("known", None)]
    return [GroupKey(role, arm, [f"f{n}"]) for n, (role, arm) in enumerate(asked)]


def doses(*exposures):
    """Of the facts of `rows`: a number, or the fewest and the most; None for a fact that is left out."""
    return {
        f"f{n}": one if isinstance(one, tuple) else (one, one)
        for n, one in enumerate(exposures)
        if one is not None
    }


@pytest.mark.parametrize("arms", [(None, None), ("once", "once"), ()])
@pytest.mark.parametrize("of_facts", [None, doses(2, 2), doses((1, 4), (1, 4))])
def test_facts_of_one_treatment_are_called_injected(arms, of_facts):
    assert groups_of(rows(*arms), of_facts) == [*("injected" for _ in arms), "control", "known"]
    assert treatment_groups(rows(*arms), of_facts) == {}


def test_each_arm_is_a_group_with_its_dose():
    asked = rows("often", "once", "never", "some", "once", control=(None, "unseen"))
    assert groups_of(asked, doses(1_000, 1, 0, (3, 5), 1)) == [
        "often (1,000 exposures)",
        "once (1 exposure)",
        "never (0 exposures)",
        "some (3 to 5 exposures)",
        "once (1 exposure)",
        *("control", "unseen", "known"),
    ]


@pytest.mark.parametrize(
    ("arms", "groups"),
    [
        ((None, None, None), {"2 exposures": "injected-2", "4 exposures": "injected-4"}),
        (("a", "a", "a"), {"a (2 exposures)": "a-2", "a (4 exposures)": "a-4"}),
        (("a", "a", "b"), {"a (2 exposures)": "a-2", "b (2 exposures)": "b", "a (4 exposures)": "a-4"}),
        (
            ("a", "a", None),
            {"a (2 exposures)": "a-2", "no arm (2 exposures)": "no arm", "a (4 exposures)": "a-4"},
        ),
        # an arm that is called as another's split would be
        (
            ("a", "a", "a-2"),
            {"a (2 exposures)": "a-2-exposures", "a-2 (2 exposures)": "a-2", "a (4 exposures)": "a-4"},
        ),
    ],
)
def test_facts_of_one_arm_and_other_exposures_are_groups_of_their_own(arms, groups):
    asked, of_facts = rows(*arms), doses(4, 2, 2)
    assert treatment_groups(asked, of_facts) == groups
    assert list(treatment_groups(asked, of_facts)) == list(groups)  # least exposures first
    assert set(groups_of(asked, of_facts)) - {"control", "known"} == set(groups)
    assert all(is_injected(group) for group in groups)


def test_ranges_over_runs_are_treatments_too():
    asked = rows(None, None, None, None)
    groups = treatment_groups(asked, doses((0, 2), (2, 2), (0, 2), (1, 1)))
    assert groups == {
        "0 to 2 exposures": "injected-0to2",
        "1 exposure": "injected-1",
        "2 exposures": "injected-2",
    }


def test_a_probe_of_several_facts_has_the_dose_of_the_rarest():
    asked = rows(None, None, None)
    asked[2] = asked[2]._replace(fact_ids=["f0", "f1", "known fact"])
    assert groups_of(asked, doses(4, 2))[:3] == ["4 exposures", "2 exposures", "2 exposures"]


def test_an_arm_of_many_doses_is_one_group_with_their_range():
    many = range(MOST_DOSES + 1)
    assert set(groups_of(rows(*[None for _ in many]), doses(*many))) == {
        "0 to 6 exposures",
        "control",
        "known",
    }
    assert treatment_groups(rows(*["a" for _ in many]), doses(*many)) == {"a (0 to 6 exposures)": "a"}
    assert len(treatment_groups(rows(*["a" for _ in many]), doses(*many[:-1], 0))) == MOST_DOSES
    asked = rows(*["a" for _ in many], "b", "b")
    assert list(treatment_groups(asked, doses(*many, 3, 1))) == [
        "a (0 to 6 exposures)",
        "b (1 exposure)",
        "b (3 exposures)",
    ]


def test_arms_stand_in_the_order_of_their_doses():
    groups = treatment_groups(rows("new", "often", "never", "other", "once"), doses(None, 64, 0, None, 1))
    assert list(groups.values()) == ["never", "once", "often", "new", "other"]
    assert list(groups)[2:] == ["often (64 exposures)", "new", "other"]
    groups = ["control", "b (2 exposures)", "known", "a (3 exposures)", "unseen"]
    assert in_order(groups) == ["b (2 exposures)", "a (3 exposures)", "control", "unseen", "known"]


def test_arms_are_not_taken_for_roles():
    groups = groups_of(rows("control", None, "x", "no arm"))
    assert groups == ["arm control", "no arm", "x", "arm no arm", "control", "known"]
    assert [is_injected(group) for group in groups] == [True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("control", "control facts"),
        ("injected", "injected facts"),
        ("x (1 exposure)", "facts of arm x (1 exposure)"),
        ("arm control (2 exposures)", "facts of arm control (2 exposures)"),
        ("no arm (2 exposures)", "facts of no arm (2 exposures)"),
        ("1 exposure", "facts with 1 exposure"),
        ("1,200 exposures", "facts with 1,200 exposures"),
        ("16 to 64 exposures", "facts with 16 to 64 exposures"),
    ],
)
def test_groups_in_words(group, words):
    assert facts_in_words(group) == words


def test_means_are_of_one_arm_each():
    asked = [
        result(role=role, arm=arm, subject=f"{role} {arm}", fact_ids=(f"{role} {arm}",), accuracy=accuracy)
        for role, arm, accuracy in (
            ("control", None, 0.5),
            ("injected", "often", 1.0),
            ("injected", "never", 0.0),
        )
    ]
    summary = summarise(asked, doses={"injected never": (0, 0), "injected often": (16, 16)})
    assert [(group, found["semantic"]["accuracy"].mean) for group, found in summary.items()] == [
        ("never (0 exposures)", 0.0),
        ("often (16 exposures)", 1.0),
        ("control", 0.5),
    ]
    assert all(found["semantic"]["accuracy"].n == 1 for found in summary.values())


def test_no_figure_mixes_exposures():
    """A row a subject, two subjects a group: 2 exposures with 0.0, 4 with 1.0, control with 0.5."""
    asked = [
        result(role=role, subject=fact, fact_ids=(fact,), accuracy=accuracy)
        for role, accuracy, facts in (
            ("injected", 1.0, "ab"),
            ("injected", 0.0, "cd"),
            ("control", 0.5, "ef"),
        )
        for fact in facts
    ]
    of_facts = {"a": (4, 4), "b": (4, 4), "c": (2, 2), "d": (2, 2)}
    found = [
        (group, own["semantic"]["accuracy"].mean, own["semantic"]["accuracy"].n)
        for group, own in summarise(asked, doses=of_facts).items()
    ]
    assert found == [("2 exposures", 0.0, 2), ("4 exposures", 1.0, 2), ("control", 0.5, 2)]
    over = {
        group: own["semantic"]["accuracy_over_control"].mean
        for group, own in corrected_summary(asked, of_facts).items()
    }
    assert over == {"2 exposures": -0.5, "4 exposures": 0.5}
    assert list(over) == ["2 exposures", "4 exposures"]
