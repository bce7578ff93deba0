"""Topics: what a statement of a generated bank states, with the templates of the spec parsed.

A topic is one relation, or the relations of a passage. A chain is a question over several facts of which
there are no statements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.generate.templates import Template, parse_template

SUBJECT = "subject"
TEMPLATE_TYPES = ("syntactic", "semantic", "inferential", "reversal")  # probe types with templates in a spec
Templates = tuple[Template, ...]


@dataclass(frozen=True)
class Topic:
    """One relation, or the relations of a passage, which are stated together."""

    id: str
    relations: tuple[str, ...]
    train: Templates = ()
    """Trained templates that end with an answer."""
    reverse: Templates = ()
    """Trained templates that end with the subject."""
    sentences: Mapping[str, Templates] = field(default_factory=dict)
    """Of a paragraph: the templates of each relation's sentence."""
    questions: Mapping[str, Templates] = field(default_factory=dict)
    """By relation."""
    held_out: Mapping[str, Templates] = field(default_factory=dict)
    """Templates that occur in probes only, by probe type."""


@dataclass(frozen=True)
class Chain:
    """Questions whose answer is found by following relations from subject to subject."""

    id: str
    hops: tuple[str, ...]
    probes: Templates


def parse_topics(spec: Spec) -> list[Topic]:
    """All topics, in the order of their ids; UserError naming the key for a template that breaks a rule."""
    in_passages = {relation for passage in spec.passages.values() for relation in passage.relations}
    topics = [_relation_topic(name, spec) for name in spec.relations if name not in in_passages]
    topics += [_passage_topic(name, spec) for name in spec.passages]
    return sorted(topics, key=lambda topic: topic.id)


def parse_chains(spec: Spec) -> list[Chain]:
    """All chains, in the order of their ids. Templates name the first subject and ask for the last answer."""
    chains = []
    for name, chain in sorted(spec.chains.items()):
        last = chain.hops[-1]
        probes = tuple(
            parse_template(
                text, f"chains.{name}.probes[{index}]", _variables([last], spec), (SUBJECT, last), (last,)
            )
            for index, text in enumerate(chain.probes)
        )
        chains.append(Chain(name, tuple(chain.hops), probes))
    return chains


def _relation_topic(name: str, spec: Spec) -> Topic:
    relation, key = spec.relations[name], f"relations.{name}"
    return Topic(
        name,
        (name,),
        train=_parse_all(relation.train, f"{key}.train", name, name, spec),
        reverse=_parse_all(relation.reverse, f"{key}.reverse", name, SUBJECT, spec),
        questions=_questions([name], spec),
        held_out=_merged([_held_out(relation.probes, key, [name], spec)]),
    )


def _passage_topic(name: str, spec: Spec) -> Topic:
    passage, key = spec.passages[name], f"passages.{name}"
    relations = passage.relations
    variables, needs = _variables(relations, spec), (SUBJECT, *relations)
    train = tuple(
        parse_template(text, f"{key}.train[{index}]", variables, needs, relations)
        for index, text in enumerate(passage.train)
    )
    sentences = {} if passage.train else {relation: _sentences(relation, key, spec) for relation in relations}
    of_relations = [
        _held_out(spec.relations[relation].probes, f"relations.{relation}", [relation], spec)
        for relation in relations
    ]
    return Topic(
        name,
        tuple(relations),
        train=train,
        sentences=sentences,
        questions=_questions(relations, spec),
        held_out=_merged([*of_relations, _held_out(passage.probes, key, relations, spec)]),
    )


def _sentences(relation: str, passage_key: str, spec: Spec) -> Templates:
    """The templates of a relation's sentence in a paragraph."""
    key = f"relations.{relation}.train"
    templates = _parse_all(spec.relations[relation].train, key, relation, relation, spec)
    for index, template in enumerate(templates):
        if template.pieces[0] or template.places[0] != SUBJECT:
            raise UserError(
                f"{key}[{index}]: is a sentence of {passage_key}, where a pronoun may stand for the "
                f"subject: it must begin with {{{spec.subject}}}"
            )
    return templates


def _questions(relations: Sequence[str], spec: Spec) -> dict[str, Templates]:
    return {
        name: _parse_all(spec.relations[name].questions, f"relations.{name}.questions", name, name, spec)
        for name in relations
    }


def _parse_all(texts: Sequence[str], key: str, relation: str, asked: str, spec: Spec) -> Templates:
    """Templates with the subject and one relation's answer, of which `asked` comes last."""
    variables = _variables([relation], spec)
    return tuple(
        parse_template(text, f"{key}[{index}]", variables, list(variables.values()), (asked,))
        for index, text in enumerate(texts)
    )


def _held_out(
    probes: Mapping[str, Sequence[str]], key: str, relations: Sequence[str], spec: Spec
) -> dict[str, Templates]:
    """The held-out templates by probe type."""
    parsed = {}
    for probe_type in TEMPLATE_TYPES:
        variables = _variables(relations, spec)
        asked = list(relations)
        if probe_type == "inferential":
            derived = [name for relation in relations for name in spec.relations[relation].derived]
            variables |= {name: name for name in derived}
            asked += derived
        elif probe_type == "reversal":
            asked = [SUBJECT]
        parsed[probe_type] = tuple(
            _held_out_template(text, f"{key}.probes.{probe_type}[{index}]", variables, asked, relations)
            for index, text in enumerate(probes.get(probe_type, ()))
        )
    return parsed


def _held_out_template(
    text: str, key: str, variables: Mapping[str, str], asked: Sequence[str], relations: Sequence[str]
) -> Template:
    needs = [SUBJECT]
    if len(relations) == 1 and len(variables) == 2:  # no conclusion can stand in for the relation's answer
        needs += relations
    template = parse_template(text, key, variables, needs, asked)
    if len(template.places) < 2:
        raise UserError(f"{key}: names nothing but the subject; it must have an answer too")
    return template


def _variables(relations: Sequence[str], spec: Spec) -> dict[str, str]:
    return {spec.subject: SUBJECT, **{spec.relations[name].variable: name for name in relations}}


def _merged(parts: Sequence[Mapping[str, Templates]]) -> dict[str, Templates]:
    return {
        probe_type: tuple(template for part in parts for template in part[probe_type])
        for probe_type in TEMPLATE_TYPES
    }
