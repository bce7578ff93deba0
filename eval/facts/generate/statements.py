"""Statements: what one person's facts of one kind look like as text, in the form of their arm."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial

from tidy_stlms.eval.facts.generate.answers import rng
from tidy_stlms.eval.facts.generate.arms import Person
from tidy_stlms.eval.facts.generate.templates import Wording
from tidy_stlms.eval.facts.generate.topics import SUBJECT, Kind
from tidy_stlms.eval.facts.records import Fact, Spans, Statement

Facts = Mapping[str, Fact]  # by relation, in the kind's order
Sentence = tuple[str, Wording]  # the relation it tells


@dataclass(frozen=True, slots=True)
class Ending:
    """What a statement's sentence ends with: the question that memorization asks."""

    asked: str  # a relation, or the subject
    prompt: str
    template: str
    joint: str


def statements_of(
    kind: Kind, person: Person, facts: Facts, seed: int
) -> list[tuple[Statement, list[Ending]]]:
    """The statements, questions last, each with the places of it that memorization can ask for."""
    told = _paragraphs(kind, person, facts, seed) if kind.sentences else list(_sentences(kind, person, facts))
    return [*told, *_questions(kind, person, facts)]


def _sentences(kind: Kind, person: Person, facts: Facts) -> Iterator[tuple[Statement, list[Ending]]]:
    key = next(iter(facts.values())).id if len(facts) == 1 else f"{person.slug}/{kind.id}"
    ids = tuple(fact.id for fact in facts.values())
    values = values_of(person.name, facts)
    if person.form.forward:
        for index, wording in enumerate(kind.train[: person.form.wordings]):
            form = form_name(index)
            text, spans = wording.sentence(values)
            ending = Ending(wording.asked, wording.prompt(values), wording.template, wording.joint)
            yield Statement(f"{key}/{form}", ids, text, form=form, spans=_named(spans, facts)), [ending]
    if person.form.reverse:
        for index, wording in enumerate(kind.reverse[: person.form.wordings]):
            text, spans = wording.sentence(values)
            ending = Ending(wording.asked, wording.prompt(values), wording.template, wording.joint)
            made = Statement(f"{key}/reverse:{index}", ids, text, form="reverse", spans=_named(spans, facts))
            yield made, [ending]


def _questions(kind: Kind, person: Person, facts: Facts) -> Iterator[tuple[Statement, list[Ending]]]:
    """Questions about this person with their answers, if they are among those that are asked in training."""
    if not person.asked:
        return
    for relation, wordings in kind.questions.items():
        fact = facts[relation]
        values = {SUBJECT: person.name, relation: fact.object}
        for index, wording in enumerate(wordings):
            text, spans = wording.sentence(values)
            spans = _named(spans, {relation: fact})
            made = Statement(f"{fact.id}/question:{index}", (fact.id,), text, "qa", form_name(index), spans)
            yield made, []


def _paragraphs(kind: Kind, person: Person, facts: Facts, seed: int) -> list[tuple[Statement, list[Ending]]]:
    """Texts of one sentence for each relation; whose wording is which is drawn for each person."""
    form, draw = person.form, rng(seed, person.name, kind.id, "texts")
    wordings = {relation: draw.sample(kind.sentences[relation], form.wordings) for relation in kind.relations}
    ids = tuple(fact.id for fact in facts.values())
    told: list[tuple[Statement, list[Ending]]] = []
    orders: set[tuple[str, ...]] = set()
    for index in range(form.texts):
        order = kind.relations
        if form.permute:
            order = tuple(draw.sample(kind.relations, len(kind.relations)))
            while order in orders and len(orders) < factorial(len(order)):
                order = tuple(draw.sample(kind.relations, len(kind.relations)))
            orders.add(order)
        sentences = [(relation, wordings[relation][index % form.wordings]) for relation in order]
        text, spans, endings = _write(sentences, person, facts)
        name = form_name(index)
        made = Statement(f"{person.slug}/{kind.id}/{name}", ids, text, "passage", name, _named(spans, facts))
        told.append((made, endings))
    return told


def _write(sentences: Sequence[Sentence], person: Person, facts: Facts) -> tuple[str, Spans, list[Ending]]:
    text = ""
    spans: Spans = {}
    endings: list[Ending] = []
    for relation, wording in sentences:
        who = person.name if not text or person.form.fullname else person.pronoun
        start = len(text) + 1 if text else 0
        sentence, own = wording.sentence({SUBJECT: who, relation: facts[relation].object})
        text = f"{text} {sentence}" if text else sentence
        spans |= {place: (start + a, start + b) for place, (a, b) in own.items() if place not in spans}
        prompt = text[: spans[relation][0]].removesuffix(wording.joint)
        endings.append(Ending(relation, prompt, wording.template, wording.joint))
    return text, spans, endings


def values_of(name: str, facts: Facts) -> dict[str, str]:
    """What stands in the places of a wording."""
    return {SUBJECT: name, **{relation: fact.object for relation, fact in facts.items()}}


def form_name(index: int) -> str:
    return f"paraphrase:{index}" if index else "original"


def _named(spans: Spans, facts: Facts) -> Spans:
    """Spans as a statement has them: `object`, or `object:FACT` where there are several facts."""
    if len(facts) == 1:
        return {(SUBJECT if place == SUBJECT else "object"): span for place, span in spans.items()}
    return {
        (SUBJECT if place == SUBJECT else f"object:{facts[place].id}"): span for place, span in spans.items()
    }
