"""Which answers are right for a probe, as far as a bank's facts say.

right_answers(bank, probe)          # ["Persian", "Farsi"]: what counts in free generation
RightAnswers(bank).stated(probe)    # {"persian", "farsi"}, folded: none of them may be a distractor
RightAnswers(bank).possible(probe)  # these and all that may be right too: never drawn as distractors
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe
from tidy_stlms.eval.facts.text_match import folded, folded_all


def names_of(fact: Fact) -> tuple[str, ...]:
    """The object and its aliases."""
    return (fact.object, *fact.object_aliases)


def folded_names(fact: Fact) -> set[str]:
    return {folded(name.strip()) for name in names_of(fact)}


def right_answers(bank: FactBank, probe: Probe) -> list[str]:
    """The probe's answers and, where it asks for a fact's object, in whatever case, the object's aliases."""
    facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids]
    answers = {folded(answer) for answer in probe.answers}
    aliases = [alias for fact in facts if folded(fact.object) in answers for alias in fact.object_aliases]
    return list(dict.fromkeys([*probe.answers, *aliases]))


def all_names(answers: Iterable[str], facts: Iterable[Fact]) -> set[str]:
    """The answers, folded, and all names of each fact's object that one of them names."""
    names = {folded(answer) for answer in answers}
    named = [folded_names(fact) for fact in facts]
    return names.union(*(fact_names for fact_names in named if fact_names & names))


class RightAnswers:
    """The right answers to a bank's probes, folded. The bank may have errors: unknown facts are skipped."""

    def __init__(self, bank: FactBank):
        self.bank = bank

    def stated(self, probe: Probe) -> set[str]:
        """What is right where the probe's first answer names a fact's object.

        All names of that object and, if the relation is `many`, of the subject's other objects. A
        counterfactual and its original exclude each other.
        """
        answer = folded(probe.answers[0].strip())
        right: set[str] = set()
        for fact in self._facts_of(probe):
            names = folded_names(fact)
            if answer in names:
                right |= names
                if fact.counterfactual_of is None:
                    right |= self._objects_of_many.get((fact.subject, fact.relation), set())
        return right

    def possible(self, probe: Probe) -> set[str]:
        """Whatever may answer the probe.

        Its answers and other names of them; where it asks for an object, all objects of that subject and
        relation, whatever the relation's cardinality; where it asks for a subject, all subjects with that
        object; and the answers of all probes with the same prompt.
        """
        facts = list(self._facts_of(probe))
        right = all_names(probe.answers, facts) | self._answers_by_question[_question(probe)]
        for fact in facts:
            names = folded_names(fact)
            if right & names:
                objects = self._objects[fact.subject, fact.relation] if fact.subject is not None else names
                right = right.union(*(self._synonyms[fact.relation, name] for name in objects))
            if fact.subject is not None and folded(fact.subject) in right:
                right = right.union(*(self._subjects[fact.relation, name] for name in names))
        return right

    def _facts_of(self, probe: Probe) -> Iterator[Fact]:
        known = self.bank.fact_by_id
        return (known[fact_id] for fact_id in probe.fact_ids if fact_id in known)

    @cached_property
    def _objects_of_many(self) -> dict[tuple[str | None, str | None], set[str]]:
        many = {relation.id for relation in self.bank.relations if relation.cardinality == "many"}
        objects: dict[tuple[str | None, str | None], set[str]] = defaultdict(set)
        for fact in self.bank.facts:
            if fact.relation in many and fact.subject is not None and fact.counterfactual_of is None:
                objects[fact.subject, fact.relation] |= folded_names(fact)
        return objects

    @cached_property
    def _objects(self) -> dict[tuple[str, str | None], set[str]]:
        """All names of a subject's objects, by subject and relation."""
        objects: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        for fact in self.bank.facts:
            if fact.subject is not None:
                objects[fact.subject, fact.relation] |= folded_names(fact)
        return objects

    @cached_property
    def _synonyms(self) -> dict[tuple[str | None, str], set[str]]:
        """All names of the objects that have this name, by relation and name."""
        synonyms: dict[tuple[str | None, str], set[str]] = defaultdict(set)
        for fact in self.bank.facts:
            names = folded_names(fact)
            for name in names:
                synonyms[fact.relation, name] |= names
        return synonyms

    @cached_property
    def _subjects(self) -> dict[tuple[str | None, str], set[str]]:
        """The subjects that have an object of this name, by relation and name."""
        subjects: dict[tuple[str | None, str], set[str]] = defaultdict(set)
        for fact in self.bank.facts:
            if fact.subject is not None:
                for name in folded_names(fact):
                    subjects[fact.relation, name].add(folded(fact.subject))
        return subjects

    @cached_property
    def _answers_by_question(self) -> dict[tuple[str, str], set[str]]:
        answers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for probe in self.bank.probes:
            answers[_question(probe)].update(folded_all(probe.answers))
        return answers


def _question(probe: Probe) -> tuple[str, str]:
    return folded(probe.prompt), folded(probe.suffix)
