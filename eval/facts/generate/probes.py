"""Probes: what is asked about each subject's facts."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidy_stlms.eval.facts.generate.candidates import Candidates
from tidy_stlms.eval.facts.generate.facts import Facts, TopicFacts, facts_along
from tidy_stlms.eval.facts.generate.templates import Prompt, Template
from tidy_stlms.eval.facts.generate.topics import SUBJECT, Chain, Topic
from tidy_stlms.eval.facts.records import TRAINED_TYPES, Fact, Probe

logger = logging.getLogger(__name__)


def write_probes(
    stated: Sequence[TopicFacts],
    trained_prompts: Sequence[Sequence[Prompt]],
    candidates: Mapping[str, Candidates],
    identifying: frozenset[str],
) -> list[Probe]:
    """The probes about single facts and about the facts of a passage.

    Args:
        stated: The facts that are asked about.
        trained_prompts: For each of them, the prompts in its first statement.
        candidates: What is offered, by the subject's name.
        identifying: Relations whose answers are unique to one subject. A reversal probe needs one of them in
            its prompt.
    """
    _warn_of_missing_reversals({facts.topic.id: facts.topic for facts in stated}.values(), identifying)
    probes: list[Probe] = []
    for topic_facts, prompts in zip(stated, trained_prompts, strict=True):
        offered = candidates[topic_facts.subject.name]
        probes += _memorization_probes(topic_facts, prompts, offered)
        probes += _question_probes(topic_facts, offered)
        probes += _held_out_probes(topic_facts, offered, identifying)
    return probes


def write_chain_probes(
    chains: Iterable[Chain], facts: Facts, candidates: Mapping[str, Candidates]
) -> list[Probe]:
    """Compositional probes: each names a subject and asks for the answer at the end of a chain of facts."""
    probes = []
    for chain in chains:
        for name, offered in candidates.items():
            path = facts_along(chain.hops, name, facts)
            for index, template in enumerate(chain.probes):
                probe_id = f"{path[0].id}/{chain.id}:{index}"
                answer, prompt = path[-1].object, template.prompt({SUBJECT: name})
                distractors = offered.distractors(probe_id, prompt.asked, {answer, name})
                probes.append(_probe(probe_id, path, "compositional", prompt, (answer,), distractors))
    return probes


def _warn_of_missing_reversals(topics: Iterable[Topic], identifying: frozenset[str]) -> None:
    """Log the relations whose reversal templates are left out."""
    missing = {
        place
        for topic in topics
        for template in topic.held_out.get("reversal", ())
        if identifying.isdisjoint(template.places)
        for place in template.places
        if place != SUBJECT
    }
    if missing:
        logger.warning(
            "no reversal probes for %s: several people share an answer, so several names would be right",
            ", ".join(sorted(missing)),
        )


def _memorization_probes(
    stated: TopicFacts, trained_prompts: Sequence[Prompt], offered: Candidates
) -> Iterator[Probe]:
    for prompt in trained_prompts:
        # a sentence that ends with the subject asks for no object: its probe counts for the first fact
        fact = stated.facts.get(prompt.asked) or next(iter(stated.facts.values()))
        probe_id = f"{fact.id}/memorization:0"
        yield _topic_probe(probe_id, [fact], "memorization", prompt, stated, offered)


def _question_probes(stated: TopicFacts, offered: Candidates) -> Iterator[Probe]:
    probe_type = "trained_question" if stated.subject.has_trained_questions else "semantic"
    for relation, templates in stated.topic.questions.items():
        fact = stated.facts[relation]
        for index, template in enumerate(templates):
            prompt = template.prompt(stated.values)
            probe_id = f"{fact.id}/question:{index}"
            yield _topic_probe(probe_id, [fact], probe_type, prompt, stated, offered)


def _held_out_probes(stated: TopicFacts, offered: Candidates, identifying: frozenset[str]) -> Iterator[Probe]:
    for probe_type, templates in stated.topic.held_out.items():
        for index, template in enumerate(templates):
            if probe_type == "reversal" and identifying.isdisjoint(template.places):
                continue
            source = _source_of_conclusion(template.asked, stated, offered)
            if source is not None:
                yield _inferential_probe(index, template, source, stated, offered)
                continue
            facts = _facts_in(template, template.asked, stated)
            probe_id = f"{facts[0].id}/{probe_type}:{index}"
            yield _topic_probe(probe_id, facts, probe_type, template.prompt(stated.values), stated, offered)


def _facts_in(template: Template, first: str, stated: TopicFacts) -> list[Fact]:
    """The facts whose relations occur in the template, that of the relation `first` at the front.

    A probe's id begins with the id of its first fact, and the probe counts for that fact's group.
    """
    relations = [relation for relation in stated.facts if relation in template.places and relation != first]
    if first in stated.facts:
        relations.insert(0, first)
    return [stated.facts[relation] for relation in relations]


def _source_of_conclusion(asked: str, stated: TopicFacts, offered: Candidates) -> str | None:
    """The relation of the topic from which the place that is asked for follows, if it is a conclusion."""
    return next((relation for relation in stated.facts if (relation, asked) in offered.conclusions), None)


def _inferential_probe(
    index: int, template: Template, source: str, stated: TopicFacts, offered: Candidates
) -> Probe:
    """A probe that asks for what follows from the object of the relation `source`."""
    facts, name = _facts_in(template, source, stated), template.asked
    conclusion = offered.conclusions[source, name].by_answer[stated.values[source]]
    probe_id = f"{facts[0].id}/inferential:{index}"
    distractors = offered.wrong_conclusions(probe_id, source, name, conclusion)
    prompt = template.prompt(stated.values)
    return _probe(probe_id, facts, "inferential", prompt, (conclusion,), distractors)


def _topic_probe(
    probe_id: str,
    facts: Sequence[Fact],
    probe_type: str,
    prompt: Prompt,
    stated: TopicFacts,
    offered: Candidates,
) -> Probe:
    """A probe that asks for the subject, or for an object of one of the facts."""
    answers: tuple[str, ...] = (stated.values[prompt.asked],)
    if prompt.asked != SUBJECT:
        answers += stated.other_answers
    # values in the prompt are no distractors: a model could rule them out without knowing the fact
    distractors = offered.distractors(probe_id, prompt.asked, {*answers, *stated.values.values()})
    return _probe(probe_id, facts, probe_type, prompt, answers, distractors)


def _probe(
    probe_id: str,
    facts: Sequence[Fact],
    probe_type: str,
    prompt: Prompt,
    answers: tuple[str, ...],
    distractors: tuple[str, ...],
) -> Probe:
    return Probe(
        id=probe_id,
        fact_ids=tuple(fact.id for fact in facts),
        type=probe_type,
        prompt=prompt.text,
        answers=answers,
        distractors=distractors,
        template=prompt.template,
        joint=prompt.joint,
        seen_verbatim=probe_type in TRAINED_TYPES,
    )
