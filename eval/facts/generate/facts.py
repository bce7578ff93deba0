"""Facts: one for each subject, relation and answer, and which of them a statement states together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidy_stlms.eval.facts.generate.answers import Answers
from tidy_stlms.eval.facts.generate.subjects import Groups, Subject
from tidy_stlms.eval.facts.generate.topics import SUBJECT, Topic
from tidy_stlms.eval.facts.records import Fact

Facts = dict[tuple[str, str], list[Fact]]  # by the subject's name and the relation


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a statement states: one subject's facts of a topic, one for each of its relations."""

    topic: Topic
    subject: Subject
    facts: Mapping[str, Fact]
    """By relation, in the topic's order."""
    other_answers: tuple[str, ...]
    """The subject's further objects, where the relation has several: they are right answers too."""
    values: Mapping[str, str]
    """What stands in the places of a template: the subject's name, and the relations' objects."""


def make_facts(groups: Groups, answers: Answers) -> Facts:
    """The facts, relation after relation."""
    subjects = {subject.name: subject for subject in _all_subjects(groups)}
    facts: Facts = {}
    for (name, relation), objects in answers.items():
        subject = subjects[name]
        fact_id = f"{subject.slug}/{relation}"
        facts[name, relation] = [
            Fact(
                id=fact_id if len(objects) == 1 else f"{fact_id}/{index}",
                subject=name,
                relation=relation,
                object=text,
                role=subject.role,
                arm=subject.arm,
            )
            for index, text in enumerate(objects)
        ]
    return facts


def facts_by_topic(topics: Sequence[Topic], groups: Groups, facts: Facts) -> list[TopicFacts]:
    """The facts as they are stated: topic after topic, in each of them subject after subject."""
    subjects = _all_subjects(groups)
    return [
        topic_facts
        for topic in topics
        for subject in subjects
        for topic_facts in _topic_facts(topic, subject, facts)
    ]


def facts_along(hops: Iterable[str], subject: str, facts: Facts) -> list[Fact]:
    """The facts of a chain that begins with this subject."""
    path = []
    for relation in hops:
        (fact,) = facts[subject, relation]
        path.append(fact)
        subject = fact.object
    return path


def _all_subjects(groups: Groups) -> list[Subject]:
    return [subject for cohorts in groups.values() for subjects in cohorts for subject in subjects]


def _topic_facts(topic: Topic, subject: Subject, facts: Facts) -> list[TopicFacts]:
    """One for each object; only a topic of a single relation can have several."""
    by_relation = {relation: facts[subject.name, relation] for relation in topic.relations}
    objects = [fact.object for fact in by_relation[topic.relations[0]]]
    made = []
    for index in range(len(objects)):
        stated = {relation: several[index] for relation, several in by_relation.items()}
        values = {SUBJECT: subject.name, **{relation: fact.object for relation, fact in stated.items()}}
        others = (*objects[:index], *objects[index + 1 :])
        made.append(TopicFacts(topic, subject, stated, others, values))
    return made
