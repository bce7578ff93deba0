"""Groups of facts that are averaged together: by role, and injected facts by treatment.

    groups_of(rows, {"ada/city": (1, 1), "cleo/city": (64, 64)})    # "once (1 exposure)", "control", ...

A treatment is an arm, or none, and a number of exposures. Injected facts are the group `injected` where all
of them were treated alike. Where they were not, each treatment is a group of its own, and none is called
`injected`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tidy_stlms.eval.facts.records import UNSEEN

INJECTED, CONTROL = "injected", "control"
# In the order of tables; treatments stand in the place of `injected`.
ROLES = (INJECTED, CONTROL, UNSEEN, "neighbour", "known")
NO_ARM = "no arm"
MOST_DOSES = 6  # of an arm that are shown apart; an arm with more is one group

Dose = tuple[int, int]
"""The fewest and the most exposures in any of several runs; of one run, the same number twice."""
Doses = Mapping[str, Dose]
"""Doses by fact id, without facts of unknown exposures; see `exposures.doses_of_facts`."""

_DOSE = re.compile(r"[\d,]+( to [\d,]+)? exposures?")


class _Treatment(NamedTuple):
    arm: str | None
    dose: Dose | None
    is_mixed: bool = False
    """Whether the dose is the range of an arm that has too many doses to show apart."""


def groups_of(rows: Sequence[Mapping[str, Any]], doses: Doses | None = None) -> list[str]:
    """The group of each row of `evaluate_recall`.

    A row's dose is that of its rarest fact. Control facts whose answers no injected fact has are a group of
    their own, `unseen`: they are there to be compared with the other control facts.
    """
    treatments = _treatments(rows, doses)
    labels = _labels(treatments)
    return [
        role_of(row) if treatment is None else labels[treatment]
        for row, treatment in zip(rows, treatments, strict=True)
    ]


def treatment_groups(rows: Sequence[Mapping[str, Any]], doses: Doses | None = None) -> dict[str, str]:
    """The groups of treatments, least exposures first, and what keys of metrics.jsonl call each.

    A key is the name of the arm, with the exposures where the arm is split (`once`, `once-2`). Empty where
    the injected rows are the group `injected`, or there are none. Treatments of equal exposures stand in
    order of appearance, those without known exposures last.
    """
    labels = _labels(_treatments(rows, doses))
    if set(labels.values()) <= {INJECTED}:
        return {}
    arms = [treatment.arm for treatment in labels]
    return {label: _key(treatment, arms) for treatment, label in labels.items()}


def role_of(row: Mapping[str, Any]) -> str:
    """The group of a row that is not injected: its role, or `unseen` for control facts of that arm."""
    return UNSEEN if row["role"] == CONTROL and row.get("arm") == UNSEEN else row["role"]


def in_order(groups: Iterable[str]) -> list[str]:
    """Groups in the order of tables: injected ones, treatments as they come, then the other roles."""
    found = list(dict.fromkeys(groups))
    rest = ROLES[1:]
    return [group for group in found if group not in rest] + [role for role in rest if role in found]


def is_injected(group: str) -> bool:
    """Whether a group is of injected facts: `injected`, or one of their treatments."""
    return group not in ROLES[1:]


def facts_in_words(group: str) -> str:
    """`control facts`, `facts of arm once (1 exposure)` or `facts with 2 exposures`."""
    if group in ROLES:
        return f"{group} facts"
    if _DOSE.fullmatch(group):
        return f"facts with {group}"
    return f"facts of {group}" if group.startswith(("arm ", NO_ARM)) else f"facts of arm {group}"


def _treatments(rows: Sequence[Mapping[str, Any]], doses: Doses | None) -> list[_Treatment | None]:
    """The treatment of each row, None of rows that are not injected."""
    found = [
        _Treatment(row.get("arm"), _dose_of(row, doses)) if row["role"] == INJECTED else None for row in rows
    ]
    by_arm: dict[str | None, set[Dose]] = defaultdict(set)
    for one in found:
        if one is not None and one.dose is not None:
            by_arm[one.arm].add(one.dose)
    mixed = {
        arm: _Treatment(arm, (min(low for low, _ in own), max(high for _, high in own)), is_mixed=True)
        for arm, own in by_arm.items()
        if len(own) > MOST_DOSES
    }
    return [one if one is None or one.dose is None else mixed.get(one.arm, one) for one in found]


def _dose_of(row: Mapping[str, Any], doses: Doses | None) -> Dose | None:
    known = [doses[fact_id] for fact_id in row["fact_ids"] if fact_id in doses] if doses else []
    return (min(low for low, _ in known), min(high for _, high in known)) if known else None


def _labels(treatments: Iterable[_Treatment | None]) -> dict[_Treatment, str]:
    """What the group of each treatment is called, least exposures first."""
    found = list(dict.fromkeys(one for one in treatments if one is not None))
    if len(found) == 1 and not found[0].is_mixed:
        return {found[0]: INJECTED}
    found.sort(key=lambda one: (one.dose is None, one.dose or (0, 0)))
    arms = [one.arm for one in found]
    return {one: _label(one, arms) for one in found}


def _label(treatment: _Treatment, arms: Sequence[str | None]) -> str:
    """The arm with its exposures; exposures alone where no fact is in an arm."""
    name = _name(treatment.arm)
    if treatment.dose is None:
        return name
    fewest, most = treatment.dose
    often = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    often += " exposure" if treatment.dose == (1, 1) else " exposures"
    return f"{name} ({often})" if any(arms) else often


def _key(treatment: _Treatment, arms: Sequence[str | None]) -> str:
    """What keys call a treatment; `arms` are those of all treatments."""
    name = _name(treatment.arm) if any(arms) else INJECTED
    if arms.count(treatment.arm) == 1 or treatment.dose is None:
        return name
    fewest, most = treatment.dose
    key = f"{name}-{most}" if fewest == most else f"{name}-{fewest}to{most}"
    while key in arms:  # an arm may be called "once-2"
        key += "-exposures"
    return key


def _name(arm: str | None) -> str:
    """An arm's name; `arm control` for one that is called like a role."""
    if arm is None:
        return NO_ARM
    return f"arm {arm}" if arm.removeprefix("arm ") in (*ROLES, NO_ARM) else arm
