"""Wrong answers for probes that come without any: the right ones to other questions of their kind.

A kind is a relation, a type and a template. Never drawn is what is right as well: another object of the same
subject and relation, another name of it, whoever else has that object, what answers the same question.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from msgspec.structs import replace

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.answers import rng
from tidy_stlms.eval.facts.integrity import names_of
from tidy_stlms.eval.facts.records import Fact, Probe
from tidy_stlms.eval.facts.text_match import folded, folded_all

Kind = tuple[str | None, str, str | None]


def draw_wrong_answers(bank: FactBank, most: int) -> tuple[FactBank, int]:
    """The bank with up to `most` wrong answers for each probe that had none, and how many got some."""
    pools, right_answers = _pools(bank), _RightAnswers(bank)
    probes, drawn = [], 0
    for probe in bank.probes:
        pool = pools.get((_kind(bank, probe), bank.role_of(probe)))
        if pool and not probe.distractors:
            wrong = _draw(probe, pool, right_answers.of(probe), most)
            probe = replace(probe, distractors=tuple(wrong))
            drawn += bool(wrong)
        probes.append(probe)
    return replace(bank, probes=tuple(probes)), drawn


def right_for(answers: Iterable[str], facts: Iterable[Fact]) -> set[str]:
    """The answers, folded, and where they name a fact's object also its other names."""
    right = {folded(answer) for answer in answers}
    for fact in facts:
        names = names_of(fact)
        if names & right:
            right |= names
    return right


def _kind(bank: FactBank, probe: Probe) -> Kind:
    return bank.fact_by_id[probe.fact_ids[0]].relation, probe.type, probe.template


def _pools(bank: FactBank) -> dict[tuple[Kind, str], list[str]]:
    """By kind and role, what may be drawn; answers that differ in case are one.

    A role whose answers are another's too draws from both. Any other (names) draws its own alone, lest a
    distractor of the other role be as new to the model as the answer is familiar.
    """
    by_role: dict[Kind, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for probe in bank.probes:
        kind, answer = _kind(bank, probe), probe.answers[0]
        if kind[0] is not None:  # without a relation nobody knows what is of a kind
            by_role[kind][bank.role_of(probe)].setdefault(folded(answer), answer)
    pools = {}
    for kind, roles in by_role.items():
        for role, own in roles.items():
            others = {key: text for other in roles if other != role for key, text in roles[other].items()}
            shared = own.keys() <= others.keys()
            pools[kind, role] = list(({**others, **own} if shared else own).values())
    return pools


class _RightAnswers:
    """Whatever answers a probe's question, as far as the bank knows; folded."""

    def __init__(self, bank: FactBank):
        self.facts = bank.fact_by_id
        self.objects: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        self.subjects: dict[tuple[str | None, str], set[str]] = defaultdict(set)
        self.same: dict[tuple[str | None, str], set[str]] = defaultdict(set)
        self.answered: dict[tuple[str, str], set[str]] = defaultdict(set)
        for fact in bank.facts:
            names = names_of(fact)
            for name in names:
                self.same[fact.relation, name] |= names
            if fact.subject is not None:
                self.objects[fact.subject, fact.relation] |= names
                for name in names:
                    self.subjects[fact.relation, name].add(folded(fact.subject))
        for probe in bank.probes:
            self.answered[_question(probe)].update(folded_all(probe.answers))

    def of(self, probe: Probe) -> set[str]:
        facts = [self.facts[fact_id] for fact_id in probe.fact_ids]
        right = right_for(probe.answers, facts) | self.answered[_question(probe)]
        for fact in facts:
            names = names_of(fact)
            if right & names:
                objects = self.objects[fact.subject, fact.relation] if fact.subject is not None else names
                right = right.union(*(self.same[fact.relation, name] for name in objects))
            if fact.subject is not None and folded(fact.subject) in right:
                right = right.union(*(self.subjects[fact.relation, name] for name in names))
        return right


def _question(probe: Probe) -> tuple[str, str]:
    return folded(probe.prompt), folded(probe.suffix)


def _draw(probe: Probe, pool: list[str], right: Collection[str], most: int) -> list[str]:
    begins = tuple(folded_all(probe.answers))  # "German" is no answer beside "Germanic"
    wrong: list[str] = []
    for count in (most + len(right), len(pool)):  # the first few do, but where there are many prefixes
        few = rng(0, probe.id, "distractors").sample(pool, min(count, len(pool)))
        fit = (text for text in few if folded(text) not in right)
        wrong = [text for text in fit if not folded(text).startswith(begins)][:most]
        if len(wrong) == most:
            break
    return wrong
