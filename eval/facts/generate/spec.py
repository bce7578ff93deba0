"""The language of specs: a YAML file says which facts to invent, how to state them and what to ask.

    relations   what is said of a subject: where answers come from, templates to train on, templates to ask
    passages    relations stated together: in one sentence, or in a paragraph of the relations' sentences
    chains      questions that need two facts, the second about the first one's answer
    arms        groups of subjects with exposures and a form of their own

Read by `read_spec` and checked by `spec_checks.py`; `topics.py` parses the templates. The smallest spec:

    name: capitals
    relations:
      capital:
        label: capital
        answers: {faker: city}
        train: ["The capital of {subject} is {object}.", ...]
        probes: {semantic: ["{subject} is ruled from {object}."]}

A template ends with what a probe would ask for, and a full stop or the like. Before it stands a space, or
none where none is written: "l'{object}.", "{subject}是{object}。". In braces stand the names that
`subject` and a relation's `variable` give. The files in `configs/facts/` are examples to copy.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from tidy_stlms.configs.errors import UserError, did_you_mean, shown
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.references import check_references, escape, resolve
from tidy_stlms.configs.value_types import find_mismatch
from tidy_stlms.configs.yaml_files import parse_override, read_mapping, walk


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
    """The last number, included."""
    step: int = 1
    """The distance from one number to the next."""
    format: str = "{}"
    """How a number is written, as Python's format: {:04d}. No answer may begin another one, so give all of
    them the same number of digits."""


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
    """Lists of words. An answer has one word of each list, joined by spaces."""
    dates: DateRange | None = None
    """All days of a range."""
    numbers: NumberRange | None = None
    """All numbers of a range."""
    subjects: bool = False
    """The subjects themselves: each is the answer of one other subject of the same role and arm."""
    pattern: str = ".+"
    """Regular expression that the whole answer must match. Others are dropped."""
    lower: bool = False
    """Write answers in lower case."""


@dataclass
class NameSpec:
    """Where names of subjects come from: `faker`, `words`, or else first and last names of people."""

    locale: str = "en_US"
    """Faker's locale for first and last names, or for `faker`."""
    pattern: str = "[A-Z][a-z]+"
    """Regular expression for each first and last name, or for what `faker` gives. Others are dropped."""
    faker: str | None = None
    """A Faker provider of whole names, such as company."""
    words: list[str] = field(default_factory=list)
    """The names themselves. Those that begin with another name, contain one, or contain a word of an answer
    are dropped."""


@dataclass
class RelationSpec:
    label: str = MISSING
    """The relation's name for readers."""
    variable: str = "object"
    """The answer's name in templates."""
    answers: AnswerSpec = field(default_factory=AnswerSpec)
    """Where the answers come from."""
    pool_size: int = 1000
    """At most so many different answers are drawn: the largest number that each cohort of injected subjects
    (those of one arm, with or without trained questions) can have equally often."""
    unique: bool = False
    """No two subjects of a role share an answer, or the spec is refused."""
    objects: int = 1
    """Answers of each subject. More than one make the relation's cardinality `many`."""
    derived: dict[str, Any] = field(default_factory=dict)
    """Conclusions from the answer, for inferential templates, by variable: of dates `year`, `decade`,
    `month`, `zodiac` or `age_in_2010`, of other answers a mapping from answer to conclusion."""
    train: list[str] = field(default_factory=list)
    """Trained templates, the original first."""
    reverse: list[str] = field(default_factory=list)
    """Trained templates that end with the subject, for arms whose form is `reverse` or `both`."""
    questions: list[str] = field(default_factory=list)
    """Questions with their answer, "Where was {subject} born? {object}.": the trained questions of the share
    `asked` of the subjects."""
    probes: dict[str, list[str]] = field(default_factory=dict)
    """Held-out templates by probe type: syntactic, semantic, inferential, reversal."""


@dataclass
class PassageSpec:
    """Relations that are stated together."""

    relations: list[str] = field(default_factory=list)
    """Their ids. They have no statements of their own."""
    train: list[str] = field(default_factory=list)
    """Trained templates with all of their variables. Without any, a text has one sentence for each relation,
    from its `train`. The first sentence names the subject, the others have one of `pronouns`."""
    probes: dict[str, list[str]] = field(default_factory=dict)
    """Held-out templates with several variables, by probe type. The last variable is asked for."""


@dataclass
class ChainSpec:
    """Compositional probes: the answer of one relation is the subject of the next."""

    hops: list[str] = field(default_factory=list)
    """Two relations or more. All but the last one have answers: {subjects: true}."""
    probes: list[str] = field(default_factory=list)
    """Templates that name the first subject and ask for the last answer."""


@dataclass
class ArmSpec:
    """A group of injected subjects. Subjects are shared out at random and evenly. Each belongs to one arm."""

    exposures: int = MISSING
    """The exposures of each fact."""
    form: str = "paraphrase"
    """Which statements a fact has: see `eval/facts/generate/arms.py`."""


@dataclass
class Spec:
    name: str = MISSING
    """The bank's name."""
    license: str = "cc0-1.0"
    """The bank's licence."""
    seed: int = 0
    """What is drawn depends on it and on the spec alone."""
    people: int = 16
    """Injected subjects."""
    control: int | None = None
    """Control subjects; as many as are injected if left out."""
    unseen_control: int = 0
    """More control subjects, in arm `unseen`, whose answers no injected fact has. Compared with them, the
    accuracy on the other control subjects shows how familiar the injected answers have become."""
    distractors: int = 9
    """Distractors of each probe: 9 make 10 candidates."""
    paraphrases: int = 3
    """Trained wordings of each fact, the original included: the first of each relation's list."""
    asked: float = 0.5
    """Share of subjects (of each arm) with trained questions. The `questions` about the others are probes
    only. Each of the two cohorts needs more people than `distractors`: distractors come from the same
    cohort."""
    new_words: str = "refuse"
    """Held-out templates with words that no trained template has: refuse, or flag (a model may know them)."""
    subject: str = "subject"
    """The subject's name in templates."""
    pronouns: list[str] = field(default_factory=lambda: ["He", "She"])
    """What stands for the name in later sentences of a paragraph. Each subject has one of them."""
    names: NameSpec = field(default_factory=NameSpec)
    """Where names come from."""
    use: list[str] | None = None
    """Relations to use; all if left out. A passage with `train` and a chain need all of their relations, a
    paragraph needs one."""
    relations: dict[str, RelationSpec] = field(default_factory=dict)
    """The relations by id."""
    passages: dict[str, PassageSpec] = field(default_factory=dict)
    """Relations stated together, by id."""
    chains: dict[str, ChainSpec] = field(default_factory=dict)
    """Compositional probes, by id."""
    arms: dict[str, ArmSpec] = field(default_factory=dict)
    """The arms by name. Without any, all facts are stated in `paraphrases` wordings. Answers and names are
    offered beside others of their own arm; where exposures differ, every arm has every answer."""
    neighbours: str | None = None
    """A file of real facts that are close to the injected ones: JSON Lines of `subject`, `relation`,
    `object`, `prompts` and, if wanted, `object_aliases`, `distractors` and `joint`."""
    known: str | None = None
    """A file of real facts that have nothing to do with the injected ones, in the same format."""


def read_spec(path: str | Path, overrides: Sequence[str] = (), seed: int | None = None) -> dict[str, Any]:
    """All values of a YAML spec, with key=value overrides; `seed` replaces the spec's seed.

    References such as `${people}` are resolved. Raises UserError for unknown keys, wrong types, and required
    keys that are missing.
    """
    file_values = read_mapping(path, "must be a YAML mapping with keys such as people and relations")
    check_references(file_values, str(path))
    values = file_values
    for override in overrides:
        change = _parse_override(override, file_values)
        check_references(change, "override")
        with reading(f"{override:.100}"):
            values = OmegaConf.to_container(OmegaConf.merge(values, change))  # type: ignore[assignment]
    for key, item in _items_not_text(values, ""):
        raise UserError(f"{path}: {key}: is read as {shown(item)}; quote it")
    _check_types(file_values, str(path))
    _check_types(values, "override")
    values = resolve(_with_defaults(values, str(path)), str(path))
    to_spec(values, str(path))  # checks the values behind references, and that nothing is missing
    if seed is not None:
        values["seed"] = seed
    for key in ("neighbours", "known"):
        if values[key] is not None and (beside := Path(path).parent / values[key]).is_file():
            values[key] = str(beside)
    return values


def to_spec(values: dict[str, Any], where: str) -> Spec:
    """The values as a dataclass. Texts are taken literally: `${...}` is not a reference here.

    Raises UserError, naming the key, for unknown keys, wrong types, and required keys that are missing.
    """
    _check_types(values, where, is_resolved=True)
    values = escape(values)

    def check(key: str, value: Any) -> None:
        if value == MISSING:
            raise UserError(f"{where}: {key}: is missing; add it")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}: {key}={value}: must be a finite number")

    walk(_with_defaults(values, where), check)
    with reading(where):
        spec = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Spec), OmegaConf.create(values)))
    assert isinstance(spec, Spec)
    return spec


def _check_types(values: dict[str, Any], where: str, *, is_resolved: bool = False) -> None:
    if found := find_mismatch(values, Spec, where, is_resolved=is_resolved):
        raise UserError(f"{where}: {found.key}: must be {found.needed}, got {shown(found.value)}")


def _with_defaults(values: dict[str, Any], where: str) -> dict[str, Any]:
    with reading(where):
        merged = OmegaConf.merge(OmegaConf.structured(Spec), OmegaConf.create(values))
        return OmegaConf.to_container(merged, resolve=False)  # type: ignore[return-value]


def _items_not_text(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Items of lists that YAML takes for something else: yes, 007, 1e3. All lists of a spec hold texts."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _items_not_text(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from _items_not_text(item, f"{key}[{index}]")
            elif not isinstance(item, str):
                yield f"{key}[{index}]", item


def _parse_override(override: str, file_values: dict[str, Any]) -> dict[str, Any]:
    if "=" not in override:
        raise UserError(f"{shown(override)}: an override must look like key=value")
    change = parse_override(override)
    # a new relation, passage or chain cannot be made of overrides, so an unknown one is a slip
    for section in ("relations", "passages", "chains"):
        known, given = file_values.get(section), change.get(section)
        for name in given if isinstance(given, dict) else ():
            if not isinstance(known, dict) or name not in known:
                hint = did_you_mean(name, known if isinstance(known, dict) else ())
                key = override.partition("=")[0]
                raise UserError(f"{key}: unknown {section.removesuffix('s')} {shown(name)}{hint}")
    return change
