"""The spec of a bank of invented people: a YAML file, its keys, and the checks on it.

Read by `generate.py`; `configs/facts/people.yaml` is the example to copy.
"""

import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from configs.errors import UserError
from configs.files import read_text
from eval.facts.rows import did_you_mean
from eval.facts.wordings import parse_wording

# the types of probe a relation can have wordings for, and what such a probe asks for.
# memorization needs no wording of its own: it is the first training wording up to the answer
PROBE_WORDINGS = {"syntactic": "object", "semantic": "object", "reversal": "subject"}


@dataclass
class DateRange:
    first: str = MISSING
    """First day, as 1950-01-01."""
    last: str = MISSING
    """Last day, as 2004-12-31."""
    format: str = "{day} {month} {year}"
    """How a day is written; {day}, {month} (its English name) and {year}."""


@dataclass
class AnswerSpec:
    """Where answers come from: exactly one of `faker`, `words` and `dates`."""

    faker: str | None = None
    """A Faker provider, such as city."""
    locale: str = "en_US"
    """Faker's locale."""
    words: list[str] = field(default_factory=list)
    """The answers themselves."""
    dates: DateRange | None = None
    """All days of a range."""
    pattern: str = ".+"
    """Regular expression that the whole answer must match; the others are dropped."""
    lower: bool = False
    """Write answers in lower case."""


@dataclass
class NameSpec:
    locale: str = "en_US"
    """Faker's locale for first and last names."""
    pattern: str = "[A-Z][a-z]+"
    """Regular expression for first and for last names."""


@dataclass
class RelationSpec:
    label: str = MISSING
    """The relation's name for readers."""
    answers: AnswerSpec = field(default_factory=AnswerSpec)
    """Where the answers come from."""
    pool_size: int = 1000
    """At most so many different answers; the largest number that gives all people an equal share is taken."""
    train: list[str] = field(default_factory=list)
    """Training wordings, the original first."""
    probes: dict[str, list[str]] = field(default_factory=dict)
    """Held-out wordings by probe type: syntactic, semantic, reversal."""


@dataclass
class Spec:
    name: str = MISSING
    """The bank's name."""
    license: str = "cc0-1.0"
    """The bank's licence."""
    seed: int = 0
    """Everything drawn depends on it and on the spec alone."""
    people: int = 16
    """People whose facts are injected."""
    control: int | None = None
    """People whose facts never are; as many as are injected if left out."""
    distractors: int = 9
    """Wrong answers offered with each probe: 9 make 10 candidates."""
    paraphrases: int = 3
    """Training wordings per fact, the original included: the first so many of each relation's list."""
    unseen_words: str = "refuse"
    """Held-out wordings with words that no training wording has: refuse, or flag (a model may know them)."""
    names: NameSpec = field(default_factory=NameSpec)
    """Where names come from."""
    use: list[str] | None = None
    """Relations to use; all if left out."""
    relations: dict[str, RelationSpec] = field(default_factory=dict)
    """The relations by id."""


def read_spec(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a YAML spec and apply key=value overrides; UserError for keys and types that do not exist."""
    try:
        values = OmegaConf.create(read_text(path))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise UserError(f"{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, DictConfig):
        raise UserError(f"{path}: must be a YAML mapping with keys such as people and relations")
    config = _merge(OmegaConf.structured(Spec), values, str(path))
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise UserError(f"{override!r}: an override must look like key=value")
        relation = key.split(".")[1] if key.startswith("relations.") else None
        # a new relation cannot be made of overrides, so an unknown one is a slip
        if relation is not None and relation not in config.relations:
            raise UserError(f"{key}: unknown relation {relation!r}{did_you_mean(relation, config.relations)}")
        try:
            change = OmegaConf.from_dotlist([override])
        except (YAMLError, OmegaConfBaseException):
            raise UserError(f"{override!r}: the value is not valid YAML") from None
        config = _merge(config, change, "override")
    return _to_dict(config, str(path))


def check_spec(values: dict[str, Any]) -> Spec:
    """The spec as a dataclass, `use` applied; UserError, naming the key, for what does not fit together."""
    config = _merge(OmegaConf.structured(Spec), values, "spec")
    _to_dict(config, "spec")
    spec = OmegaConf.to_object(config)
    assert isinstance(spec, Spec)
    if spec.unseen_words not in ("refuse", "flag"):
        raise UserError(f"unseen_words: must be refuse or flag, got {spec.unseen_words!r}")
    for name, least in (("people", 1), ("distractors", 1), ("paraphrases", 1)):
        if getattr(spec, name) < least:
            raise UserError(f"{name}: must be at least {least}, got {getattr(spec, name)}")
    if spec.people <= spec.distractors:
        raise UserError(f"people: must be more than distractors={spec.distractors}, got {spec.people}")
    if spec.control is not None and spec.control != 0 and spec.control <= spec.distractors:
        raise UserError(f"control: must be 0 or more than distractors={spec.distractors}, got {spec.control}")
    for name in spec.use or ():
        if name not in spec.relations:
            raise UserError(f"use: unknown relation {name!r}{did_you_mean(name, spec.relations)}")
    if spec.use is not None:
        spec.relations = {name: spec.relations[name] for name in spec.use}
    if not spec.relations:
        raise UserError("relations: at least one is needed")
    for name, relation in spec.relations.items():
        _check_relation(relation, f"relations.{name}", spec)
    return spec


def _check_relation(relation: RelationSpec, key: str, spec: Spec) -> None:
    if len(relation.train) < spec.paraphrases:
        raise UserError(
            f"{key}.train: holds {len(relation.train)} wordings, paraphrases={spec.paraphrases} needs as many"
        )
    for index, template in enumerate(relation.train):
        parse_wording(template, f"{key}.train[{index}]", "object")
    for probe_type, templates in relation.probes.items():
        if probe_type not in PROBE_WORDINGS:
            hint = did_you_mean(probe_type, PROBE_WORDINGS) or f", must be one of {', '.join(PROBE_WORDINGS)}"
            raise UserError(f"{key}.probes.{probe_type}: unknown type of probe{hint}")
        for index, template in enumerate(templates):
            parse_wording(template, f"{key}.probes.{probe_type}[{index}]", PROBE_WORDINGS[probe_type])
    answers = relation.answers
    if sum((answers.faker is not None, bool(answers.words), answers.dates is not None)) != 1:
        raise UserError(f"{key}.answers: needs exactly one of faker, words and dates")
    for where, pattern in ((f"{key}.answers", answers.pattern), ("names", spec.names.pattern)):
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{where}.pattern: not a regular expression ({error})") from None


def _merge(config: Any, values: Any, where: str) -> Any:
    try:
        return OmegaConf.merge(config, values)
    except ConfigKeyError as error:
        known = [f.name for f in fields(error.object_type)] if is_dataclass(error.object_type) else []
        hint = did_you_mean(str(error.key), known)
        raise UserError(f"{where}: unknown key {error.full_key}{hint}") from None
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'{key}: ' if key else ''}{str(error).splitlines()[0]}") from None


def _to_dict(config: Any, where: str) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{where}: {error.full_key}: is missing; add it") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
