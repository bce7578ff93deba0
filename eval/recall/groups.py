"""Groups of facts that are averaged together: one for each role, and one for each arm of injected facts.

    groups_of(rows, {"once": (1, 1), "often": (64, 64)})    # "once (1 exposure)", "control", ...

Injected facts are the group `injected` where all of them are in one arm, or in none. Where they are in
several arms, each arm is a group of its own, and none is called `injected`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.facts.integrity import UNSEEN

INJECTED, CONTROL = "injected", "control"
# In the order of tables; arms stand in the place of `injected`.
ROLES = (INJECTED, CONTROL, UNSEEN, "neighbour", "known")

Doses = Mapping[str | None, tuple[int, int]]
"""By arm, the fewest and the most exposures that one of its facts has; see `eval.recall.exposures`."""


def groups_of(rows: Sequence[Mapping[str, Any]], doses: Doses | None = None) -> list[str]:
    """The group of each row of `evaluate_recall`.

    Control facts whose answers no injected fact has are a group of their own, `unseen`: they are there to be
    compared with the other control facts.
    """
    labels = arm_labels(rows, doses)
    return [labels.get(row.get("arm"), INJECTED) if row["role"] == INJECTED else role_of(row) for row in rows]


def arm_labels(rows: Sequence[Mapping[str, Any]], doses: Doses | None = None) -> dict[str | None, str]:
    """The groups of arms by arm, least exposures first; empty where the injected rows are in one arm or none.

    Arms without known exposures come last, in order of appearance.
    """
    arms = dict.fromkeys(row.get("arm") for row in rows if row["role"] == INJECTED)
    if len(arms) < 2:
        return {}
    known = doses or {}
    unknown = [arm for arm in arms if arm not in known]
    ordered = [*sorted((arm for arm in arms if arm in known), key=lambda arm: known[arm]), *unknown]
    return {arm: _label(arm, known.get(arm)) for arm in ordered}


def arm_names(rows: Sequence[Mapping[str, Any]], doses: Doses | None = None) -> dict[str, str]:
    """What the keys of metrics.jsonl call the groups of arms: their names without exposures. Same order."""
    names = arm_labels(rows)
    return {label: names[arm] for arm, label in arm_labels(rows, doses).items()}


def role_of(row: Mapping[str, Any]) -> str:
    """The group of a row that is not injected: its role, or `unseen` for control facts of that arm."""
    return UNSEEN if row["role"] == CONTROL and row.get("arm") == UNSEEN else row["role"]


def in_order(groups: Iterable[str]) -> list[str]:
    """Groups in the order of tables: injected ones, arms as they come, then the other roles."""
    found = list(dict.fromkeys(groups))
    rest = ROLES[1:]
    return [group for group in found if group not in rest] + [role for role in rest if role in found]


def is_injected(group: str) -> bool:
    """Whether a group is of injected facts: `injected`, or one of their arms."""
    return group not in ROLES[1:]


def facts_in_words(group: str) -> str:
    """`control facts`, or `facts of arm once (1 exposure)`."""
    if group in ROLES:
        return f"{group} facts"
    return f"facts of {group}" if group.startswith(("arm ", "no arm")) else f"facts of arm {group}"


def _label(arm: str | None, dose: tuple[int, int] | None) -> str:
    name = "no arm" if arm is None else arm
    name = f"arm {name}" if name in ROLES else name  # an arm named "control" is not the role
    if dose is None:
        return name
    fewest, most = dose
    often = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{name} ({often} exposure{'' if (fewest, most) == (1, 1) else 's'})"
