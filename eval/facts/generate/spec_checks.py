"""Checks of a spec before anything is drawn. Each mistake is one line that names the key."""

import re
from dataclasses import replace
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean, shown
from tidy_stlms.eval.facts.generate.arms import check_arms
from tidy_stlms.eval.facts.generate.spec import PassageSpec, RelationSpec, Spec, to_spec
from tidy_stlms.eval.facts.generate.topics import SUBJECT, TEMPLATE_TYPES

SOURCES = ("faker", "words", "parts", "dates", "numbers", "subjects")
DATE_PARTS = re.compile(r"year|decade|month|zodiac|age_in_\d{4}")


def check_spec(values: dict[str, Any], where: str = "spec") -> Spec:
    """The spec as a dataclass, without what `use` leaves out; UserError, naming the key, for a mistake."""
    spec = to_spec(values, where)
    _check_numbers(spec)
    _check_relation_names(spec)
    spec = _used_part(spec)
    for name, relation in spec.relations.items():
        _check_relation(relation, f"relations.{name}", spec)
    _check_passages(spec)
    _check_chains(spec)
    _check_patterns(spec)
    check_arms(spec)
    return spec


def _check_numbers(spec: Spec) -> None:
    if spec.new_words not in ("refuse", "flag"):
        raise UserError(f"new_words: must be refuse or flag, got {spec.new_words!r}")
    for name, least in (("people", 1), ("distractors", 1), ("paraphrases", 1)):
        if getattr(spec, name) < least:
            raise UserError(f"{name}: must be at least {least}, got {getattr(spec, name)}")
    if spec.people <= spec.distractors:
        raise UserError(f"people: must be more than distractors={spec.distractors}, got {spec.people}")
    for name in ("control", "unseen_control"):
        size = getattr(spec, name)
        if size is not None and size != 0 and size <= spec.distractors:
            raise UserError(f"{name}: must be 0 or more than distractors={spec.distractors}, got {size}")
    if not 0 <= spec.asked <= 1:
        raise UserError(f"asked: must be a share from 0 to 1, got {spec.asked}")
    if not spec.pronouns:
        raise UserError("pronouns: at least one is needed")


def _check_relation_names(spec: Spec) -> None:
    """Whether the relations that other keys name exist."""
    keys = {f"passages.{name}": passage.relations for name, passage in spec.passages.items()}
    keys |= {f"chains.{name}": chain.hops for name, chain in spec.chains.items()}
    keys["use"] = spec.use or []
    for key, relations in keys.items():
        for relation in relations:
            if relation not in spec.relations:
                hint = did_you_mean(relation, spec.relations)
                raise UserError(f"{key}: unknown relation {relation!r}{hint}")


def _used_part(spec: Spec) -> Spec:
    """The spec with the relations that `use` names, and those passages and chains that they suffice for."""
    relations = spec.relations
    if spec.use is not None:
        relations = {name: spec.relations[name] for name in spec.use}
    if not relations:
        raise UserError("relations: at least one is needed")
    passages = {}
    for name, passage in spec.passages.items():
        used = [relation for relation in passage.relations if relation in relations]
        if used and passage.train and len(used) < len(passage.relations):
            missing = next(relation for relation in passage.relations if relation not in used)
            raise UserError(f"use: passages.{name} tells {missing} too; use it as well")
        if used:
            passages[name] = replace(passage, relations=used)
    chains = {name: chain for name, chain in spec.chains.items() if relations.keys() >= {*chain.hops}}
    return replace(spec, relations=relations, passages=passages, chains=chains)


def _check_relation(relation: RelationSpec, key: str, spec: Spec) -> None:
    if key == f"relations.{SUBJECT}":
        raise UserError(f"{key}: a relation cannot have this id; choose another")
    sources = sum(bool(getattr(relation.answers, name)) for name in SOURCES)
    if sources != 1:
        raise UserError(f"{key}.answers: needs exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}")
    if not all(relation.answers.parts):
        raise UserError(f"{key}.answers.parts: a list is empty")
    if relation.objects < 1:
        raise UserError(f"{key}.objects: must be at least 1, got {relation.objects}")
    if relation.objects > 1 and (relation.unique or relation.answers.subjects):
        raise UserError(
            f"{key}.objects: cannot be {relation.objects} where each answer belongs to one subject"
        )
    for probe_type in relation.probes:
        _check_probe_type(probe_type, f"{key}.probes")
    if relation.variable == spec.subject:
        raise UserError(f"{key}.variable: {relation.variable!r} is the subject's name")
    for name, rule in relation.derived.items():
        where = f"{key}.derived.{name}"
        if isinstance(rule, str) and relation.answers.dates is not None:
            if not DATE_PARTS.fullmatch(rule):
                raise UserError(f"{where}: must be year, decade, month, zodiac or age_in_2010, got {rule!r}")
        elif not isinstance(rule, dict):
            raise UserError(f"{where}: must map answers to conclusions, got {shown(rule)}")
        if name in (spec.subject, SUBJECT, relation.variable) or name in spec.relations:
            raise UserError(f"{where}: stands for something else already; choose another name")


def _check_probe_type(probe_type: str, key: str) -> None:
    if probe_type not in TEMPLATE_TYPES:
        hint = did_you_mean(probe_type, TEMPLATE_TYPES) or f", must be one of {', '.join(TEMPLATE_TYPES)}"
        raise UserError(f"{key}.{probe_type}: unknown type of probe{hint}")


def _check_passages(spec: Spec) -> None:
    passage_of: dict[str, str] = {}
    for name, passage in spec.passages.items():
        key = f"passages.{name}"
        if name in spec.relations:
            raise UserError(f"{key}: a relation has this id; choose another")
        variables: set[str] = set()
        for relation in passage.relations:
            if relation in passage_of:
                raise UserError(f"{key}: {relation} is told by passages.{passage_of[relation]} already")
            passage_of[relation] = name
            _check_passage_relation(relation, passage, key, variables, spec)
        for probe_type in passage.probes:
            _check_probe_type(probe_type, f"{key}.probes")


def _check_passage_relation(
    name: str, passage: PassageSpec, key: str, variables: set[str], spec: Spec
) -> None:
    """Check one relation of a passage, and add its variables to those of the relations before it."""
    relation = spec.relations[name]
    if relation.objects > 1:
        raise UserError(f"{key}: {name} has several objects, a passage tells one of each")
    for variable in (relation.variable, *relation.derived):
        if variable in variables:
            raise UserError(f"{key}: {{{variable}}} of {name} is another relation's too; rename it")
        variables.add(variable)
    if passage.train and (relation.train or relation.reverse):
        raise UserError(f"relations.{name}.train: {key} tells it in wordings of its own; remove one")


def _check_chains(spec: Spec) -> None:
    for name, chain in spec.chains.items():
        if len(chain.hops) < 2:
            raise UserError(f"chains.{name}.hops: needs two relations at least")
        for hop in chain.hops[:-1]:
            if not spec.relations[hop].answers.subjects:
                raise UserError(
                    f"chains.{name}.hops: {hop} leads to no subject; give it answers: {{subjects: true}}"
                )
        if spec.relations[chain.hops[-1]].objects > 1:
            raise UserError(f"chains.{name}.hops: {chain.hops[-1]} has several objects")


def _check_patterns(spec: Spec) -> None:
    patterns = {f"relations.{name}.answers": item.answers.pattern for name, item in spec.relations.items()}
    for key, pattern in {**patterns, "names": spec.names.pattern}.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{key}.pattern: not a regular expression ({error})") from None
