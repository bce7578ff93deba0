"""Probes: what is asked about one person's facts of one kind, and the wrong answers offered beside.

Distractors are drawn evenly from the answers of those in the same position as the person asked about:
from the relation's pool, which injected and control people share; from the unseen answers for the control
people who have these; and where a subject is asked for, from the names of the same group, as injected
names are all equally familiar and control names equally strange.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidy_stlms.eval.facts.generate.answers import rng
from tidy_stlms.eval.facts.generate.arms import Person
from tidy_stlms.eval.facts.generate.conclusions import Conclusions
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.generate.statements import Ending, Facts, values_of
from tidy_stlms.eval.facts.generate.templates import Wording
from tidy_stlms.eval.facts.generate.topics import SUBJECT, Kind
from tidy_stlms.eval.facts.records import Fact, Probe


class Candidates:
    """What may be offered for one place in a wording."""

    def __init__(self, values: Sequence[str]):
        self.values = values
        self.places = {value: place for place, value in enumerate(values)}

    def distractors(self, excluded: Iterable[str], count: int, draw: random.Random) -> tuple[str, ...]:
        """Even draws without replacement from all but those excluded, in random order."""
        taken = sorted({self.places[value] for value in excluded if value in self.places})
        chosen = []
        # drawn from so many places fewer; those from an excluded one's on move up by one
        for place in draw.sample(range(len(self.values) - len(taken)), count):
            for gap in taken:
                place += place >= gap
            chosen.append(self.values[place])
        return tuple(chosen)


class Asker:
    """Writes the probes of one group of people (injected, control, unseen)."""

    def __init__(self, spec: Spec, people: Sequence[Person], pools: Mapping[str, list[str]]):
        """`pools` holds the answers of each relation that this group has; none where these are subjects."""
        self.spec = spec
        names = Candidates([person.name for person in people])
        self.candidates = {SUBJECT: names}
        self.conclusions: dict[str, tuple[str, Conclusions]] = {}  # by derived name, with its relation
        for name, relation in spec.relations.items():
            pool = pools.get(name)
            self.candidates[name] = names if pool is None else Candidates(pool)
            if pool is not None:
                for derived in relation.derived:
                    known = Conclusions(relation, f"relations.{name}", derived, pool)
                    self.conclusions[derived] = (name, known)

    def probes(
        self,
        kind: Kind,
        person: Person,
        facts: Facts,
        first: Sequence[Ending],
        others: Sequence[str],
        telling: frozenset[str],
    ) -> Iterator[Probe]:
        """All probes about these facts of one person.

        `first` are the endings of the first statement, which memorization asks for; `others` the person's
        further answers, as right as this one; `telling` the relations whose answers tell whose they are,
        without one of which nobody can be asked for.
        """
        values = values_of(person.name, facts)
        for ending in first:
            fact = facts.get(ending.asked) or next(iter(facts.values()))
            probe_id = f"{fact.id}/memorization:0"
            yield self._probe(
                probe_id, (fact.id,), "memorization", ending, values, others, seen_verbatim=True
            )
        for relation, wordings in kind.questions.items():
            fact = facts[relation]
            # asked of others only, the question is another wording; asked in training, the trained one
            probe_type = "memorization" if person.asked else "semantic"
            for index, wording in enumerate(wordings):
                ending = Ending(relation, wording.prompt(values), wording.template, wording.joint)
                probe_id = f"{fact.id}/question:{index}"
                yield self._probe(
                    probe_id, (fact.id,), probe_type, ending, values, others, seen_verbatim=person.asked
                )
        for probe_type, wordings in kind.probes.items():
            for index, wording in enumerate(wordings):
                if probe_type != "reversal" or not telling.isdisjoint(wording.places):
                    yield self._held_out(probe_type, index, wording, facts, values, others)

    def chained(self, chain: str, index: int, wording: Wording, facts: Sequence[Fact]) -> Probe:
        """A question that names the first fact's subject and asks for the last one's object."""
        values = {SUBJECT: facts[0].subject or "", wording.asked: facts[-1].object}
        ending = Ending(wording.asked, wording.prompt(values), wording.template, wording.joint)
        probe_id = f"{facts[0].id}/{chain}:{index}"
        return self._probe(probe_id, tuple(fact.id for fact in facts), "compositional", ending, values)

    def _held_out(
        self,
        probe_type: str,
        index: int,
        wording: Wording,
        facts: Facts,
        values: Mapping[str, str],
        others: Sequence[str],
    ) -> Probe:
        about = [relation for relation in facts if relation in wording.places]
        asked = wording.asked
        if asked in self.conclusions:
            source, known = self.conclusions[asked]
            values = {**values, asked: known.of[facts[source].object]}
            about.insert(0, source)
        elif asked != SUBJECT:
            about.sort(key=lambda relation: relation != asked)
        ids = tuple(facts[relation].id for relation in dict.fromkeys(about))
        ending = Ending(asked, wording.prompt(values), wording.template, wording.joint)
        return self._probe(f"{ids[0]}/{probe_type}:{index}", ids, probe_type, ending, values, others)

    def _probe(
        self,
        probe_id: str,
        fact_ids: tuple[str, ...],
        probe_type: str,
        ending: Ending,
        values: Mapping[str, str],
        others: Sequence[str] = (),
        seen_verbatim: bool = False,
    ) -> Probe:
        asked, answer = ending.asked, values[ending.asked]
        draw, count = rng(self.spec.seed, probe_id), self.spec.distractors
        right: tuple[str, ...] = (answer,)
        if asked in self.conclusions:
            distractors = self.conclusions[asked][1].distractors(answer, count, draw)
        else:
            right += () if asked == SUBJECT else tuple(others)
            # nor is anything offered that stands in the question
            distractors = self.candidates[asked].distractors({*right, *values.values()}, count, draw)
        return Probe(
            id=probe_id,
            fact_ids=fact_ids,
            type=probe_type,
            prompt=ending.prompt,
            answers=right,
            distractors=distractors,
            template=ending.template,
            joint=ending.joint,
            seen_verbatim=seen_verbatim,
        )
