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
    """Draw up to `most` distractors for each probe without any.

    Returns the bank, and the number of probes that got distractors.
    """
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
    """The answers to draw from, by group and role. Answers that differ only in case count once.

    A role whose answers all occur in other roles too draws from all roles. Any other role (such as one with
    names as answers) draws only from its own answers: unfamiliar distractors would give the answer away.
    """
    answers: dict[ProbeGroup, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for probe in bank.probes:
        group, answer = _group(bank, probe), probe.answers[0]
        if group[0] is not None:  # without a relation, answers may be of any kind
            answers[group][bank.role_of(probe)].setdefault(folded(answer), answer)
    pools = {}
    for group, by_role in answers.items():
        for role, role_answers in by_role.items():
            answers_elsewhere: dict[str, str] = {}
            for other_role in by_role:
                if other_role != role:
                    answers_elsewhere |= by_role[other_role]
            is_shared = role_answers.keys() <= answers_elsewhere.keys()
            pool = {**answers_elsewhere, **role_answers} if is_shared else role_answers
            pools[group, role] = list(pool.values())
    return pools


def _draw(probe: Probe, pool: list[str], right: Collection[str], most: int) -> list[str]:
    beginnings = tuple(folded_all(probe.answers))  # "Germanic" cannot be a distractor of "German"
    distractors: list[str] = []
    # A small sample is enough, except if many texts of the pool begin with the answer.
    for count in (most + len(right), len(pool)):
        sample = rng(0, probe.id, "distractors").sample(pool, min(count, len(pool)))
        wrong = (text for text in sample if folded(text) not in right)
        distractors = [text for text in wrong if not folded(text).startswith(beginnings)][:most]
        if len(distractors) == most:
            break
    return distractors
