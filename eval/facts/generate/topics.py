"""Kinds of fact: the wordings of a spec, parsed, for each relation or passage that statements tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.generate.spec import Spec
from tidy_stlms.eval.facts.generate.templates import Wording, parse_wording

SUBJECT = "subject"
PROBE_TYPES = ("syntactic", "semantic", "inferential", "reversal")


@dataclass(frozen=True)
class Kind:
    """What is told together: one relation, or those of a passage."""

    id: str
    relations: tuple[str, ...]
    train: tuple[Wording, ...] = ()
    reverse: tuple[Wording, ...] = ()
    sentences: Mapping[str, tuple[Wording, ...]] = field(default_factory=dict)
    """Of a paragraph: the wordings of each relation's sentence."""
    questions: Mapping[str, tuple[Wording, ...]] = field(default_factory=dict)
    probes: Mapping[str, tuple[Wording, ...]] = field(default_factory=dict)
    """Held-out wordings by probe type."""


def kinds_of(spec: Spec) -> list[Kind]:
    """All kinds, in the order of their ids; UserError naming the key for a wording that is none."""
    told = {relation for passage in spec.passages.values() for relation in passage.relations}
    kinds = [_relation(name, spec) for name in spec.relations if name not in told]
    kinds += [_passage(name, spec) for name in spec.passages]
    return sorted(kinds, key=lambda kind: kind.id)


def chain_wordings(spec: Spec) -> dict[str, list[Wording]]:
    """The wordings of each chain: they name the first subject and ask for the last answer."""
    return {
        name: [
            parse_wording(
                template,
                f"chains.{name}.probes[{index}]",
                {spec.subject: SUBJECT, spec.relations[chain.hops[-1]].variable: chain.hops[-1]},
                (SUBJECT, chain.hops[-1]),
                (chain.hops[-1],),
            )
            for index, template in enumerate(chain.probes)
        ]
        for name, chain in sorted(spec.chains.items())
    }


def _relation(name: str, spec: Spec) -> Kind:
    relation, key = spec.relations[name], f"relations.{name}"
    return Kind(
        name,
        (name,),
        train=_parse(relation.train, f"{key}.train", spec, [name], name),
        reverse=_parse(relation.reverse, f"{key}.reverse", spec, [name], SUBJECT),
        questions=_questions([name], spec),
        probes=_merged([_probes(relation.probes, key, spec, [name])]),
    )


def _passage(name: str, spec: Spec) -> Kind:
    passage, key = spec.passages[name], f"passages.{name}"
    relations = passage.relations
    train = tuple(
        parse_wording(
            template, f"{key}.train[{index}]", _variables(spec, relations), (SUBJECT, *relations), relations
        )
        for index, template in enumerate(passage.train)
    )
    sentences = {}
    if not passage.train:
        for relation in relations:
            where = f"relations.{relation}.train"
            sentences[relation] = _parse(spec.relations[relation].train, where, spec, [relation], relation)
            for index, wording in enumerate(sentences[relation]):
                if wording.texts[0] or wording.places[0] != SUBJECT:
                    raise UserError(
                        f"{where}[{index}]: is a sentence of {key}, where a pronoun may stand for the "
                        f"subject: it must begin with {{{spec.subject}}}"
                    )
    own = [_probes(spec.relations[name].probes, f"relations.{name}", spec, [name]) for name in relations]
    return Kind(
        name,
        tuple(relations),
        train=train,
        sentences=sentences,
        questions=_questions(relations, spec),
        probes=_merged([*own, _probes(passage.probes, key, spec, relations)]),
    )


def _questions(relations: Sequence[str], spec: Spec) -> dict[str, tuple[Wording, ...]]:
    return {
        name: _parse(spec.relations[name].questions, f"relations.{name}.questions", spec, [name], name)
        for name in relations
    }


def _probes(
    probes: Mapping[str, Sequence[str]], key: str, spec: Spec, relations: Sequence[str]
) -> dict[str, tuple[Wording, ...]]:
    parsed = {}
    for probe_type in PROBE_TYPES:
        variables = _variables(spec, relations)
        asked = list(relations)
        if probe_type == "inferential":
            derived = [name for relation in relations for name in spec.relations[relation].derived]
            variables |= {name: name for name in derived}
            asked += derived
        elif probe_type == "reversal":
            asked = [SUBJECT]
        parsed[probe_type] = tuple(
            _probe(template, f"{key}.probes.{probe_type}[{index}]", variables, asked, relations)
            for index, template in enumerate(probes.get(probe_type, ()))
        )
    return parsed


def _probe(
    template: str, key: str, variables: Mapping[str, str], asked: Sequence[str], relations: Sequence[str]
) -> Wording:
    """With one relation its answer must be there, unless a conclusion is; with several, any of them."""
    needs = [SUBJECT]
    if len(relations) == 1 and len(variables) == 2:
        needs += relations
    wording = parse_wording(template, key, variables, needs, asked)
    if len(wording.places) < 2:
        raise UserError(f"{key}: names nothing but the subject; it must have an answer too")
    return wording


def _parse(
    templates: Sequence[str], key: str, spec: Spec, relations: Sequence[str], asked: str
) -> tuple[Wording, ...]:
    variables = _variables(spec, relations)
    return tuple(
        parse_wording(template, f"{key}[{index}]", variables, list(variables.values()), (asked,))
        for index, template in enumerate(templates)
    )


def _variables(spec: Spec, relations: Sequence[str]) -> dict[str, str]:
    return {spec.subject: SUBJECT, **{spec.relations[name].variable: name for name in relations}}


def _merged(parts: Sequence[Mapping[str, tuple[Wording, ...]]]) -> dict[str, tuple[Wording, ...]]:
    merged: dict[str, tuple[Wording, ...]] = {}
    for part in parts:
        for probe_type, wordings in part.items():
            merged[probe_type] = (*merged.get(probe_type, ()), *wordings)
    return merged
