"""Which facts are one figure, and what it is called."""

import pytest

from eval.recall.groups import arm_names, facts_in_words, groups_of, in_order, is_injected
from eval.recall.metrics import METRICS, summarise


def rows(*arms, control=(None,)):
    """An injected row of each arm, and control rows."""
    asked = [*(("injected", arm) for arm in arms), *(("control", arm) for arm in control), ("known", None)]
    return [{"role": role, "arm": arm} for role, arm in asked]


@pytest.mark.parametrize("arms", [(None, None), ("once", "once"), ()])
def test_facts_of_one_treatment_are_called_injected(arms):
    assert groups_of(rows(*arms), {"once": (1, 1)}) == [*("injected" for _ in arms), "control", "known"]


def test_each_arm_is_a_group_with_its_dose():
    doses = {"often": (1_000, 1_000), "once": (1, 1), "never": (0, 0), "some": (3, 5)}
    assert groups_of(rows("often", "once", "never", "some", "once", control=(None, "unseen")), doses) == [
        "often (1,000 exposures)",
        "once (1 exposure)",
        "never (0 exposures)",
        "some (3 to 5 exposures)",
        "once (1 exposure)",
        *("control", "unseen", "known"),
    ]


def test_arms_stand_in_the_order_of_their_doses():
    doses = {"often": (64, 64), "never": (0, 0), "once": (1, 1)}
    names = arm_names(rows("new", "often", "never", "other", "once"), doses)
    assert list(names.values()) == ["never", "once", "often", "new", "other"]
    assert list(names)[2:] == ["often (64 exposures)", "new", "other"]
    groups = ["control", "b (2 exposures)", "known", "a (3 exposures)", "unseen"]
    assert in_order(groups) == ["b (2 exposures)", "a (3 exposures)", "control", "unseen", "known"]


def test_arms_are_not_taken_for_roles():
    groups = groups_of(rows("control", None, "x"))
    assert groups == ["arm control", "no arm", "x", "control", "known"]
    assert [is_injected(group) for group in groups] == [True, True, True, False, False]
    assert facts_in_words("x (1 exposure)") == "facts of arm x (1 exposure)"
    assert facts_in_words("control") == "control facts"


def test_means_are_of_one_arm_each():
    asked = [
        {
            "role": role,
            "arm": arm,
            "type": "semantic",
            "subject": f"{role} {arm}",
            "fact_ids": [f"{role} {arm}"],
        }
        | dict.fromkeys(METRICS)
        | {"accuracy": accuracy}
        for role, arm, accuracy in (
            ("control", None, 0.5),
            ("injected", "often", 1.0),
            ("injected", "never", 0.0),
        )
    ]
    summary = summarise(asked, doses={"never": (0, 0), "often": (16, 16)})
    assert [(group, found["semantic"]["accuracy"]["mean"]) for group, found in summary.items()] == [
        ("never (0 exposures)", 0.0),
        ("often (16 exposures)", 1.0),
        ("control", 0.5),
    ]
    assert all(found["semantic"]["accuracy"]["n"] == 1 for found in summary.values())
