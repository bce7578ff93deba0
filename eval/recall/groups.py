"""Groups of facts that are averaged together: by role, and injected facts by treatment.

    groups_of(results, {"ada/city": (1, 1), "cleo/city": (64, 64)})    # "once (1 exposure)", "control", ...

A treatment is an arm, or none, and a number of exposures. If all injected facts have the same treatment, they
are the group `injected`. If not, each treatment is a group, and no group is called `injected`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tidy_stlms.eval.facts.records import UNSEEN

INJECTED, CONTROL = "injected", "control"
# In the order of tables; treatments stand in the place of `injected`.
ROLES = (INJECTED, CONTROL, UNSEEN, "neighbour", "known")
NO_ARM = "no arm"
MOST_DOSES = 6  # of one arm that are groups of their own; an arm with more doses is one group

Dose = tuple[int, int]
"""The fewest and the most exposures of a fact in any of several runs; for one run, the same number twice."""
Doses = Mapping[str, Dose]
"""Doses by fact id, without facts of unknown exposures; see `exposures.doses_of_facts`."""

_DOSE = re.compile(r"[\d,]+( to [\d,]+)? exposures?")


class Grouped(Protocol):
    """What decides the group of a probe; a `ProbeResult` has it."""

    @property
    def role(self) -> str: ...
    @property
    def arm(self) -> str | None: ...
    @property
    def fact_ids(self) -> Sequence[str]: ...


class GroupKey(NamedTuple):
    """What decides the group of a probe, before there is a result."""

    role: str
    arm: str | None
    fact_ids: Sequence[str]


class _Treatment(NamedTuple):
    arm: str | None
    dose: Dose | None
    is_mixed: bool = False
    """Whether the dose is the range of an arm with more than `MOST_DOSES` doses."""


def groups_of(results: Sequence[Grouped], doses: Doses | None = None) -> list[str]:
    """The group of each result.

    A probe of several facts has the dose of the fact with the fewest exposures. Control facts with objects
    that no injected fact has are the group `unseen`: they are compared with the other control facts.
    """
    treatments = _treatments(results, doses)
    labels = _labels(treatments)
    return [
        role_of(result) if treatment is None else labels[treatment]
        for result, treatment in zip(results, treatments, strict=True)
    ]


def treatment_groups(results: Sequence[Grouped], doses: Doses | None = None) -> dict[str, str]:
    """The groups of injected facts, least exposures first, and the key of each in metrics.jsonl.

    A key is the name of the arm, with the exposures if the arm has several groups (`once`, `once-2`). Groups
    with equal exposures stand in order of appearance, groups of unknown exposures last. Empty if the injected
    facts are one group, `injected`, or if there are none.
    """
    labels = _labels(_treatments(results, doses))
    if set(labels.values()) <= {INJECTED}:
        return {}
    arms = [treatment.arm for treatment in labels]
    return {label: _key(treatment, arms) for treatment, label in labels.items()}


def role_of(result: Grouped) -> str:
    """The group of a result that is not injected: its role, or `unseen` for control facts of that arm."""
    return UNSEEN if result.role == CONTROL and result.arm == UNSEEN else result.role


def in_order(groups: Iterable[str]) -> list[str]:
    """Groups in the order of tables: injected ones in the given order, then the other roles."""
    unique = list(dict.fromkeys(groups))
    roles = ROLES[1:]
    return [group for group in unique if group not in roles] + [role for role in roles if role in unique]


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


def _treatments(results: Sequence[Grouped], doses: Doses | None) -> list[_Treatment | None]:
    """The treatment of each result; None for results that are not of injected facts."""
    treatments = [
        _Treatment(result.arm, _dose_of(result, doses)) if result.role == INJECTED else None
        for result in results
    ]
    doses_of_arm: dict[str | None, set[Dose]] = defaultdict(set)
    for treatment in treatments:
        if treatment is not None and treatment.dose is not None:
            doses_of_arm[treatment.arm].add(treatment.dose)
    mixed = {
        arm: _Treatment(
            arm, (min(fewest for fewest, _ in of_arm), max(most for _, most in of_arm)), is_mixed=True
        )
        for arm, of_arm in doses_of_arm.items()
        if len(of_arm) > MOST_DOSES
    }
    return [
        treatment if treatment is None or treatment.dose is None else mixed.get(treatment.arm, treatment)
        for treatment in treatments
    ]


def _dose_of(result: Grouped, doses: Doses | None) -> Dose | None:
    known = [doses[fact_id] for fact_id in result.fact_ids if fact_id in doses] if doses else []
    return (min(fewest for fewest, _ in known), min(most for _, most in known)) if known else None


def _labels(treatments: Iterable[_Treatment | None]) -> dict[_Treatment, str]:
    """The name of each treatment's group, least exposures first."""
    unique = list(dict.fromkeys(treatment for treatment in treatments if treatment is not None))
    if len(unique) == 1 and not unique[0].is_mixed:
        return {unique[0]: INJECTED}
    unique.sort(key=lambda treatment: (treatment.dose is None, treatment.dose or (0, 0)))
    arms = [treatment.arm for treatment in unique]
    return {treatment: _label(treatment, arms) for treatment in unique}


def _label(treatment: _Treatment, arms: Sequence[str | None]) -> str:
    """The arm with its exposures; the exposures alone if no fact is in an arm."""
    name = _name(treatment.arm)
    if treatment.dose is None:
        return name
    fewest, most = treatment.dose
    exposures = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    exposures += " exposure" if treatment.dose == (1, 1) else " exposures"
    return f"{name} ({exposures})" if any(arms) else exposures


def _key(treatment: _Treatment, arms: Sequence[str | None]) -> str:
    """The key of a treatment in metrics.jsonl; `arms` are those of all treatments."""
    name = _name(treatment.arm) if any(arms) else INJECTED
    if arms.count(treatment.arm) == 1 or treatment.dose is None:
        return name
    fewest, most = treatment.dose
    key = f"{name}-{most}" if fewest == most else f"{name}-{fewest}to{most}"
    while key in arms:  # an arm may be called "once-2"
        key += "-exposures"
    return key


def _name(arm: str | None) -> str:
    """An arm's name; `arm control` for an arm with the name of a role."""
    if arm is None:
        return NO_ARM
    return f"arm {arm}" if arm.removeprefix("arm ") in (*ROLES, NO_ARM) else arm
