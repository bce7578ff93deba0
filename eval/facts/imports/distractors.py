"""Draws distractors for imported probes that have none: answers of other probes with the same relation, type
and template. Answers that may be right too are never drawn (`RightAnswers.possible`).
"""

from collections import defaultdict
from collections.abc import Collection

from msgspec.structs import replace

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.right_answers import RightAnswers
from tidy_stlms.eval.facts.text_match import folded, folded_all

ProbeGroup = tuple[str | None, str, str | None]  # relation, type, template


def draw_distractors(bank: FactBank, most: int) -> tuple[FactBank, int]:
    """The bank with up to `most` distractors for each probe that had none, and how many probes got some."""
    pools, right_answers = _pools(bank), RightAnswers(bank)
    probes, n_drawn = [], 0
    for probe in bank.probes:
        pool = pools.get((_group(bank, probe), bank.role_of(probe)))
        if pool and not probe.distractors:
            distractors = _draw(probe, pool, right_answers.possible(probe), most)
            probe = replace(probe, distractors=tuple(distractors))
            n_drawn += bool(distractors)
        probes.append(probe)
    return replace(bank, probes=tuple(probes)), n_drawn


def _group(bank: FactBank, probe: Probe) -> ProbeGroup:
    return bank.fact_by_id[probe.fact_ids[0]].relation, probe.type, probe.template


def _pools(bank: FactBank) -> dict[tuple[ProbeGroup, str], list[str]]:
    """By group and role, the answers to draw from; answers that differ in case alone are one.

    If all answers of a role are also those of other roles, it draws from all. Otherwise (as with names) it
    draws from its own alone: an unfamiliar distractor of another role would give the answer away.
    """
    answers: dict[ProbeGroup, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for probe in bank.probes:
        group, answer = _group(bank, probe), probe.answers[0]
        if group[0] is not None:  # without a relation, answers may be of any sort
            answers[group][bank.role_of(probe)].setdefault(folded(answer), answer)
    pools = {}
    for group, by_role in answers.items():
        for role, role_answers in by_role.items():
            others: dict[str, str] = {}
            for other_role in by_role:
                if other_role != role:
                    others |= by_role[other_role]
            shared = role_answers.keys() <= others.keys()
            pools[group, role] = list(({**others, **role_answers} if shared else role_answers).values())
    return pools


def _draw(probe: Probe, pool: list[str], right: Collection[str], most: int) -> list[str]:
    beginnings = tuple(folded_all(probe.answers))  # "German" is no answer beside "Germanic"
    distractors: list[str] = []
    # a small sample is enough, unless many answers begin with the right one
    for count in (most + len(right), len(pool)):
        sample = rng(0, probe.id, "distractors").sample(pool, min(count, len(pool)))
        wrong = (text for text in sample if folded(text) not in right)
        distractors = [text for text in wrong if not folded(text).startswith(beginnings)][:most]
        if len(distractors) == most:
            break
    return distractors
