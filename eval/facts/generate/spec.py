"""The language of specs: a YAML file says which facts to invent, how to tell them and what to ask.

    relations   what is true of a subject: where answers come from, wordings to train on, wordings to ask
    passages    relations told together: in one sentence, or in a paragraph of the relations' sentences
    chains      questions that need two facts, the second about the first one's answer
    arms        groups of subjects with exposures and a form of their own

Read by `read_spec`, checked by `spec_checks.py`, turned into wordings by `kinds.py`. The smallest spec:

    name: capitals
    relations:
      capital:
        label: capital
        answers: {faker: city}
        train: ["The capital of {subject} is {object}.", ...]
        probes: {semantic: ["{subject} is ruled from {object}."]}

A wording ends with what a probe would ask for, and a full stop or the like. Before it stands a space, or
none where none is written: "l'{object}.", "{subject}是{object}。". In braces stand the names that
`subject` and a relation's `variable` give. The files in `configs/facts/` are examples to copy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.configs.files import read_text


@dataclass
class DateRange:
    first: str = MISSING
    """First day, as 1950-01-01."""
    last: str = MISSING
    """Last day, as 2004-12-31."""
    format: str = "{day} {month} {year}"
    """How a day is written; {day}, {month} (its English name) and {year}."""


@dataclass
class NumberRange:
    first: int = MISSING
    """The first number."""
    last: int = MISSING
    """The last number, itself included."""
    step: int = 1
    """From one number to the next."""
    format: str = "{}"
    """How a number is written, as Python's format: {:04d}. No answer may begin another one: keep the
    number of digits the same."""


@dataclass
class AnswerSpec:
    """Where answers come from: exactly one of `faker`, `words`, `parts`, `dates`, `numbers`, `subjects`."""

    faker: str | None = None
    """A Faker provider, such as city."""
    locale: str = "en_US"
    """Faker's locale."""
    words: list[str] = field(default_factory=list)
    """The answers themselves, none of which may begin another one."""
    parts: list[list[str]] = field(default_factory=list)
    """Lists of words; an answer takes one of each, joined by spaces."""
    dates: DateRange | None = None
    """All days of a range."""
    numbers: NumberRange | None = None
    """All numbers of a range."""
    subjects: bool = False
    """The subjects themselves: everyone is the answer of one other of the same role and arm."""
    pattern: str = ".+"
    """Regular expression that the whole answer must match; the others are dropped."""
    lower: bool = False
    """Write answers in lower case."""


@dataclass
class NameSpec:
    """Where names of subjects come from: `faker`, `words`, or else first and last names of people."""

    locale: str = "en_US"
    """Faker's locale for first and last names, or for `faker`."""
    pattern: str = "[A-Z][a-z]+"
    """Regular expression for each first and last name, or for what `faker` gives; the others are dropped."""
    faker: str | None = None
    """A Faker provider of whole names, such as company."""
    words: list[str] = field(default_factory=list)
    """The names themselves. Those that begin with another one, hold it, or hold a word of an answer are
    dropped."""


@dataclass
class RelationSpec:
    label: str = MISSING
    """The relation's name for readers."""
    variable: str = "object"
    """The answer's name in wordings."""
    answers: AnswerSpec = field(default_factory=AnswerSpec)
    """Where the answers come from."""
    pool_size: int = 1000
    """At most so many different answers; the largest number that gives all people an equal share is taken."""
    unique: bool = False
    """Nobody shares an answer with another of their role, or the spec is refused."""
    objects: int = 1
    """Answers that a subject has; more than one make the relation's cardinality `many`."""
    derived: dict[str, Any] = field(default_factory=dict)
    """Conclusions from the answer, for inferential wordings, by variable: of dates `year`, `decade`, `month`,
    `zodiac` or `age_in_2010`, of others a mapping from answer to conclusion."""
    train: list[str] = field(default_factory=list)
    """Training wordings, the original first."""
    reverse: list[str] = field(default_factory=list)
    """Training wordings that end with the subject, for arms whose form is `reverse` or `both`."""
    questions: list[str] = field(default_factory=list)
    """Questions with their answer, "Where was {subject} born? {object}.": see `asked`."""
    probes: dict[str, list[str]] = field(default_factory=dict)
    """Held-out wordings by probe type: syntactic, semantic, inferential, reversal."""


@dataclass
class PassageSpec:
    """Relations that are told together."""

    relations: list[str] = field(default_factory=list)
    """Their ids. They have no statements of their own."""
    train: list[str] = field(default_factory=list)
    """Training wordings with all their variables. If left out, a text is made of one sentence for each
    relation, from its `train`; the subject is named in the first and is `pronouns` in the others."""
    probes: dict[str, list[str]] = field(default_factory=dict)
    """Held-out wordings with several variables, by probe type; the last variable is asked for."""


@dataclass
class ChainSpec:
    """Compositional probes: the answer of one relation is the subject of the next."""

    hops: list[str] = field(default_factory=list)
    """Relations, two or more; all but the last one have answers: {subjects: true}."""
    probes: list[str] = field(default_factory=list)
    """Wordings that name the first subject and ask for the last answer."""


@dataclass
class ArmSpec:
    """A group of injected subjects. Subjects are shared out at random, evenly; each belongs to one arm."""

    exposures: int = MISSING
    """How often a fact is seen in training."""
    form: str = "paraphrase"
    """What is told: see `eval/facts/generate/arms.py`."""


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
    unseen_control: int = 0
    """More control people, arm `unseen`, whose answers no injected fact has: against them, what control
    people score shows how familiar the injected answers have become."""
    distractors: int = 9
    """Wrong answers offered with each probe: 9 make 10 candidates."""
    paraphrases: int = 3
    """Training wordings per fact, the original included: the first so many of each relation's list."""
    asked: float = 0.5
    """Share of people (of each arm) whose `questions` are trained on; all others are asked them only."""
    unseen_words: str = "refuse"
    """Held-out wordings with words that no training wording has: refuse, or flag (a model may know them)."""
    subject: str = "subject"
    """The subject's name in wordings."""
    pronouns: list[str] = field(default_factory=lambda: ["He", "She"])
    """What stands for the name in later sentences of a paragraph; each person has one of them."""
    names: NameSpec = field(default_factory=NameSpec)
    """Where names come from."""
    use: list[str] | None = None
    """Relations to use; all if left out. Passages and chains need all of theirs, paragraphs one."""
    relations: dict[str, RelationSpec] = field(default_factory=dict)
    """The relations by id."""
    passages: dict[str, PassageSpec] = field(default_factory=dict)
    """Relations told together, by id."""
    chains: dict[str, ChainSpec] = field(default_factory=dict)
    """Compositional probes, by id."""
    arms: dict[str, ArmSpec] = field(default_factory=dict)
    """The arms by name; without any, all are told in `paraphrases` wordings. Where exposures differ, every
    arm holds every answer, and names and unique answers are offered beside others of their own arm."""
    neighbours: str | None = None
    """A file of real facts that should stay as they are, near the injected ones: JSON Lines of `subject`,
    `relation`, `object`, `prompts` and, if wanted, `object_aliases`, `distractors` and `joint`."""
    known: str | None = None
    """A file of real facts that have nothing to do with the injected ones, in the same format."""


def read_spec(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a YAML spec and apply key=value overrides; UserError for keys and types that do not exist."""
    return to_dict(read_config(path, overrides), str(path))


def read_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> DictConfig:
    """`read_spec`, still as OmegaConf has it."""
    try:
        values = OmegaConf.create(read_text(path))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise UserError(f"{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, DictConfig):
        raise UserError(f"{path}: must be a YAML mapping with keys such as people and relations")
    changes = [_change(override, values) for override in overrides]
    changed = OmegaConf.merge(values, *changes)
    for key, item in _not_text(OmegaConf.to_container(changed), ""):
        raise UserError(f"{path}: {key}: is read as {item!r}; quote it")
    try:
        config = merge(OmegaConf.structured(Spec), changed, "override")
    except UserError:
        merge(OmegaConf.structured(Spec), values, str(path))  # if the mistake is the file's, say so
        raise
    for key in ("neighbours", "known"):
        if config[key] is not None and (Path(path).parent / config[key]).is_file():
            config[key] = str(Path(path).parent / config[key])
    return config


def _not_text(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Items of lists that YAML takes for something else: yes, 007, 1e3. All lists of a spec hold texts."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _not_text(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from _not_text(item, f"{key}[{index}]")
            elif not isinstance(item, str):
                yield f"{key}[{index}]", item


def _change(override: str, values: DictConfig) -> DictConfig:
    key, equals, _ = override.partition("=")
    if not equals:
        raise UserError(f"{override!r}: an override must look like key=value")
    section, _, rest = key.partition(".")
    name, known = rest.split(".")[0], values.get(section)
    # a new relation, passage or chain cannot be made of overrides, so an unknown one is a slip
    if section in ("relations", "passages", "chains") and name and name not in (known or ()):
        hint = did_you_mean(name, known or ())
        raise UserError(f"{key}: unknown {section.removesuffix('s')} {name!r}{hint}")
    try:
        return OmegaConf.from_dotlist([override])
    except (YAMLError, OmegaConfBaseException):
        raise UserError(f"{override!r}: the value is not valid YAML") from None


def merge(config: Any, values: Any, where: str) -> Any:
    """Values into a structured config; UserError for unknown keys and wrong types."""
    try:
        return OmegaConf.merge(config, values)
    except ConfigKeyError as error:
        known = [f.name for f in fields(error.object_type)] if is_dataclass(error.object_type) else []
        hint = did_you_mean(str(error.key), known)
        raise UserError(f"{where}: unknown key {error.full_key}{hint}") from None
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'{key}: ' if key else ''}{str(error).splitlines()[0]}") from None


def to_dict(config: Any, where: str) -> dict[str, Any]:
    """The config as plain values; UserError for keys that must be given and are not."""
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{where}: {error.full_key}: is missing; add it") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
