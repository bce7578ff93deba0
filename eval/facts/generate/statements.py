"""Statements: the texts that state a subject's facts, in the form of the subject's arm."""

from collections.abc import Iterable, Sequence
from math import factorial

from tidy_stlms.eval.facts.generate.facts import TopicFacts
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.templates import Prompt, Template
from tidy_stlms.eval.facts.generate.topics import SUBJECT
from tidy_stlms.eval.facts.records import Spans, Statement

Sentence = tuple[str, Template]  # the relation it states


def write_statements(stated: Iterable[TopicFacts], seed: int) -> tuple[list[Statement], list[list[Prompt]]]:
    """All statements; and for each of `stated` the prompts in its first statement.

    Memorization probes ask with these prompts. A paragraph has one for each of its sentences.
    """
    statements: list[Statement] = []
    trained_prompts: list[list[Prompt]] = []
    for topic_facts in stated:
        if topic_facts.topic.sentences:
            texts, prompts = _paragraphs(topic_facts, seed)
        else:
            texts, prompts = _sentences(topic_facts)
        statements += [*texts, *_questions(topic_facts)]
        trained_prompts.append(prompts)
    return statements, trained_prompts


def _sentences(stated: TopicFacts) -> tuple[list[Statement], list[Prompt]]:
    """Statements of one sentence, and the prompt of the first."""
    topic, subject, facts = stated.topic, stated.subject, stated.facts
    key = next(iter(facts.values())).id if len(facts) == 1 else f"{subject.slug}/{topic.id}"
    fact_ids = tuple(fact.id for fact in facts.values())
    templates = []  # (end of the id, form, template)
    if subject.form.forward:
        forward = topic.train[: subject.form.wordings]
        templates += [(_form(index), _form(index), template) for index, template in enumerate(forward)]
    if subject.form.reverse:
        reverse = topic.reverse[: subject.form.wordings]
        templates += [(f"reverse:{index}", "reverse", template) for index, template in enumerate(reverse)]
    statements = []
    for end, form, template in templates:
        text, spans = template.sentence(stated.values)
        spans = _named_spans(spans, stated)
        statements.append(Statement(id=f"{key}/{end}", fact_ids=fact_ids, text=text, form=form, spans=spans))
    first = templates[0][2]
    return statements, [first.prompt(stated.values)]


def _questions(stated: TopicFacts) -> list[Statement]:
    """Trained questions with their answers, if this subject has any."""
    if not stated.subject.has_trained_questions:
        return []
    statements = []
    for relation, templates in stated.topic.questions.items():
        fact = stated.facts[relation]
        for index, template in enumerate(templates):
            text, spans = template.sentence(stated.values)
            statements.append(
                Statement(
                    id=f"{fact.id}/question:{index}",
                    fact_ids=(fact.id,),
                    text=text,
                    kind="qa",
                    form=_form(index),
                    spans={_span_name(place): span for place, span in spans.items()},
                )
            )
    return statements


def _paragraphs(stated: TopicFacts, seed: int) -> tuple[list[Statement], list[Prompt]]:
    """Texts of one sentence for each relation, and the prompts in the first of them.

    The wordings are drawn for each subject, so that not all subjects have the same combination of sentences.
    """
    topic, subject, form = stated.topic, stated.subject, stated.subject.form
    draw = rng(seed, subject.name, topic.id, "texts")
    templates = {
        relation: draw.sample(topic.sentences[relation], form.wordings) for relation in topic.relations
    }
    fact_ids = tuple(fact.id for fact in stated.facts.values())
    statements: list[Statement] = []
    first_prompts: list[Prompt] = []
    orders: set[tuple[str, ...]] = set()
    for index in range(form.texts):
        order = topic.relations
        if form.permute:
            order = tuple(draw.sample(topic.relations, len(topic.relations)))
            while order in orders and len(orders) < factorial(len(order)):
                order = tuple(draw.sample(topic.relations, len(topic.relations)))
            orders.add(order)
        sentences = [(relation, templates[relation][index % form.wordings]) for relation in order]
        text, spans, prompts = _paragraph(sentences, stated)
        statements.append(
            Statement(
                id=f"{subject.slug}/{topic.id}/{_form(index)}",
                fact_ids=fact_ids,
                text=text,
                kind="passage",
                form=_form(index),
                spans=_named_spans(spans, stated),
            )
        )
        if index == 0:
            first_prompts = prompts
    return statements, first_prompts


def _paragraph(sentences: Sequence[Sentence], stated: TopicFacts) -> tuple[str, Spans, list[Prompt]]:
    """The text, its spans, and for each sentence the prompt: the text up to the sentence's answer."""
    subject, text = stated.subject, ""
    spans: Spans = {}
    prompts: list[Prompt] = []
    for relation, template in sentences:
        name = subject.name if not text or subject.form.fullname else subject.pronoun
        offset = len(text) + 1 if text else 0
        sentence, places = template.sentence({SUBJECT: name, relation: stated.values[relation]})
        text = f"{text} {sentence}" if text else sentence
        # of the subject, the first span counts: pronouns and repeated names come later
        spans |= {
            place: (offset + start, offset + end)
            for place, (start, end) in places.items()
            if place not in spans
        }
        before = text[: spans[relation][0]].removesuffix(template.joint)
        prompts.append(Prompt(before, relation, template.text, template.joint))
    return text, spans, prompts


def _form(index: int) -> str:
    return f"paraphrase:{index}" if index else "original"


def _named_spans(spans: Spans, stated: TopicFacts) -> Spans:
    """Spans as a statement has them: `object`, or `object:FACT` where several facts are stated."""
    if len(stated.facts) == 1:
        return {_span_name(place): span for place, span in spans.items()}
    return {
        SUBJECT if place == SUBJECT else f"object:{stated.facts[place].id}": span
        for place, span in spans.items()
    }


def _span_name(place: str) -> str:
    return SUBJECT if place == SUBJECT else "object"
