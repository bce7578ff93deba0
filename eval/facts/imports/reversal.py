"""The reversal curse: facts about people, stated in one direction and asked in both (Berglund et al. 2023,
arXiv:2309.12288).

Files of JSON Lines with `prompt` and `completion`, whose names say what they are:

    p2d_prompts_train.jsonl         statements: the person comes first, then the description
    p2d_prompts_test.jsonl          other wordings in the same direction        -> semantic
    p2d_reverse_prompts_test.jsonl  the description comes first: who is it?     -> reversal
    d2p_*.jsonl, both_*.jsonl       people stated description first; people stated both ways

The records of one person become one fact, whose subject is what the statements name first.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports.builder import BankBuilder, listed
from tidy_stlms.eval.facts.imports.people import People, names_at_start, repeated_names
from tidy_stlms.eval.facts.imports.recognise import refuse_document
from tidy_stlms.eval.facts.imports.source_files import checked_text, read_rows, text_field
from tidy_stlms.eval.facts.records import Fact
from tidy_stlms.eval.facts.text_match import replace_words

REVERSAL_LICENSE = "mit"
STATED = "memorization"  # the type of records that training states
LONGEST_NAME = 5  # words
STOPS = ".!? "
PERSON_FIRST, DESCRIPTION_FIRST = "p2d", "d2p"
GROUP_ENDS = re.compile(r"_?(reverse|prompts|train|test|validation)")
MAPPED = (
    "prompt, completion of *train* -> a statement of both; the first of each person and direction -> "
    "memorization, its other wordings are paraphrases",
    "*test* -> semantic, *reverse* -> reversal; of people stated both ways, who it is -> reversal",
    "a person -> one fact, with what the statements name first as its subject: the person in p2d and both, "
    "the description in d2p; other completions about the person -> other names of the description",
    "white space between prompt and completion -> joint; words after the name -> suffix",
)


@dataclass(frozen=True)
class Example:
    """A record."""

    where: str
    group: str
    type: str
    prompt: str
    joint: str
    answer: str
    statement: str


@dataclass(frozen=True)
class About:
    """An example, and the person it is about."""

    example: Example
    name: str
    asks_name: bool
    """Whether the answer is the name; else it is the description."""


def import_reversal(source: Path, builder: BankBuilder, role: str | None, type: str | None) -> None:
    """Import a folder or a single file. `type` is the probe type of files whose names do not say it.

    Without a `role`, facts are injected if a file states any, or else known.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for path, group, probe_type in _files(source, type, builder):
        refuse_document(path, builder.format)
        groups[group] += _examples(path, group, probe_type, builder)
    stated = any(example.type == STATED for examples in groups.values() for example in examples)
    builder.mapped += MAPPED
    builder.fields_taken.update(("prompt", "completion"))
    for group, examples in groups.items():
        _add_group(group, examples, builder, role or ("injected" if stated else "known"))


def _files(source: Path, type: str | None, builder: BankBuilder) -> Iterator[tuple[Path, str, str]]:
    """The files with their groups and types. Files whose names say no type are left out."""
    if source.is_file():
        group, of_name = _group_and_type(source.stem)
        probe_type = type or of_name
        if probe_type is None:
            raise UserError(
                f"{source}: its name says neither train nor test nor reverse; say what its records are "
                f"with --type (with {STATED}, they become statements too)"
            )
        yield source, group, probe_type
        return
    folders = sorted({path.parent for path in source.rglob("*.jsonl") if _group_and_type(path.stem)[1]})
    if len(folders) > 1:
        raise UserError(f"{source}: holds several datasets; give one of {listed(folders)}")
    paths = sorted((folders[0] if folders else source).glob("*.jsonl"))
    if not paths:
        raise UserError(f"{source}: holds no JSON Lines file, such as p2d_prompts_train.jsonl")
    stems = {path.stem for path in paths}
    for path in paths:
        group, of_name = _group_and_type(path.stem)
        probe_type = of_name or type
        if reason := _repeats(path.stem, stems):
            builder.leave_out(path.name, reason)
        elif probe_type is None:
            builder.leave_out(path.name, "its name says neither train nor test nor reverse; give --type")
        else:
            yield path, group, probe_type


def _group_and_type(stem: str) -> tuple[str, str | None]:
    words = stem.lower().replace("-", "_")
    group = GROUP_ENDS.split(words)[0]
    if "train" in words:
        return group, STATED
    if "reverse" in words or "validation" in words:
        return group or PERSON_FIRST, "reversal"
    return group, "semantic" if "test" in words else None


def _repeats(stem: str, stems: set[str]) -> str | None:
    """Why a file is not read, if it repeats the records of another one."""
    if stem.endswith("_randomized"):
        return (
            "not read: its completions are other people's, to measure chance; distractors are drawn instead"
        )
    if stem.startswith("validation") and "p2d_reverse_prompts_test" in stems:
        return "not read: the first words of the answers in p2d_reverse_prompts_test.jsonl"
    if stem.startswith("all_") and sum("train" in other for other in stems) > 1:
        return "not read: the records of the other train files"
    return None


def _examples(path: Path, group: str, probe_type: str, builder: BankBuilder) -> Iterator[Example]:
    for where, row in read_rows(path, builder):
        example = None
        with builder.record(where):
            prompt = row.get("prompt")
            if not (prompt == "" and probe_type == STATED):  # some statements are a completion alone
                prompt = text_field(row, "prompt")
            completion = text_field(row, "completion")
            text, joint = _joined(prompt, completion)
            statement = (prompt + completion).strip()
            # the full stop ends the sentence, and is not part of the answer
            answer = checked_text(completion.strip().rstrip(STOPS), "the completion without its full stop")
            example = Example(where, group, probe_type, text, joint, answer, statement)
        if example is not None:
            yield example


def _joined(prompt: str, completion: str) -> tuple[str, str]:
    """The prompt and the joint: the white space between prompt and completion.

    A line break belongs to the prompt, and nothing is added after it.
    """
    text = prompt.rstrip()
    space = prompt[len(text) :] + completion[: len(completion) - len(completion.lstrip())]
    return (text + space.rstrip(" "), "") if space.strip(" ") else (text, space[:1])


def _add_group(group: str, examples: list[Example], builder: BankBuilder, role: str) -> None:
    people = People(_names(group, examples))
    by_name: dict[str, list[About]] = defaultdict(list)
    alone = []
    for example in examples:
        about = _about(example, group, people)
        if about is None:
            alone.append(example)
        else:
            by_name[about.name].append(about)
    label = {PERSON_FIRST: "description", DESCRIPTION_FIRST: "person"}.get(group, "description or person")
    relation = builder.add_relation(group or "completion", label)
    wordings = _shared_wordings(by_name)
    for name, abouts in by_name.items():
        _add_person(name, relation, abouts, wordings, builder, role)
    for number, example in enumerate(alone):
        with builder.record(example.where):
            fact = builder.add_fact(f"{relation}/{number}", None, relation, example.answer, role)
            if example.type == STATED:
                builder.add_statement([fact], example.statement)
            _add_probe(fact, example, None, [example.answer], builder)
    builder.mapped.append(
        f"{relation}: {len(examples):,} records are about {len(by_name):,} people"
        + (f"; {len(alone):,} name nobody, and are a fact each" if alone else "")
    )


def _names(group: str, examples: list[Example]) -> list[str]:
    """The people of a group: their names are completions, or occur in several prompts."""
    asks_name = [example for example in examples if _asks_name(group, example.type) is not False]
    texts = [example.answer for example in asks_name]
    if group not in (PERSON_FIRST, DESCRIPTION_FIRST):  # a name has capitals, and prompts have it too
        prompts = [example.prompt for example in examples]
        held = People(text for text in dict.fromkeys(texts) if _is_name(text))
        texts = [name for prompt in prompts if (name := held.named_in(prompt)) is not None]
    names = names_at_start(texts)
    return names or repeated_names([e.prompt for e in examples if _asks_name(group, e.type) is not True])


def _asks_name(group: str, probe_type: str) -> bool | None:
    """Whether completions are names; None if only their texts show it."""
    if group not in (PERSON_FIRST, DESCRIPTION_FIRST):
        return None
    return (group == DESCRIPTION_FIRST) != (probe_type == "reversal")


def _is_name(text: str) -> bool:
    words = text.split()
    return len(words) <= LONGEST_NAME and all(word[0].isupper() for word in words)


def _about(example: Example, group: str, people: People) -> About | None:
    asks_name = _asks_name(group, example.type)
    opening = people.opening(example.answer) if asks_name is not False else None
    if opening is not None:
        return About(example, opening, True)
    named = people.named_in(example.prompt) if asks_name is not True else None
    return None if named is None else About(example, named, False)


def _shared_wordings(by_name: dict[str, list[About]]) -> set[str]:
    """The wordings of prompts that are used for at least half of the people.

    Answers to one wording fit each other's grammar, so distractors are drawn among them.
    """
    people_of: dict[str, set[str]] = defaultdict(set)
    for name, abouts in by_name.items():
        for about in abouts:
            if not about.asks_name:
                people_of[_wording(about)].add(name)
    return {wording for wording, people in people_of.items() if 1 < len(people) >= len(by_name) / 2}


def _wording(about: About) -> str:
    return replace_words(about.example.prompt, about.name, "{subject}") + about.example.joint + "{object}"


def _add_person(
    name: str, relation: str, abouts: list[About], wordings: set[str], builder: BankBuilder, role: str
) -> None:
    """Add a person's fact, statements and probes."""
    told = Counter(about.example.answer for about in abouts if not about.asks_name)
    descriptions = [text for text, _ in told.most_common()]
    person_first = bool(descriptions) and relation != DESCRIPTION_FIRST
    subject, object = (name, descriptions[0]) if person_first else (next(iter(descriptions), None), name)
    aliases = descriptions[1:] if person_first else []
    fact = builder.add_fact(f"{relation}/{name}", subject, relation, object, role, aliases=aliases)
    stated = [about for about in abouts if about.example.type == STATED]
    for number, about in enumerate(stated):
        builder.add_statement([fact], about.example.statement, paraphrase=number)
    asked = [about for about in abouts if about.example.type != STATED]
    for about in (*_first_of_each_direction(stated), *asked):
        with builder.record(about.example.where):
            if about.asks_name:
                answers, template = [name], None
            else:
                # wordings of the object are aliases of the fact; it has none for those of its subject
                wordings_of_subject = [] if person_first else descriptions
                answers = list(dict.fromkeys((about.example.answer, *wordings_of_subject)))
                template = _wording(about) if _wording(about) in wordings else None
            backwards = about.asks_name == person_first
            is_reversal = backwards and about.example.type == "semantic"
            suffix = about.example.answer.removeprefix(name) if about.asks_name else ""
            _add_probe(
                fact, about.example, "reversal" if is_reversal else None, answers, builder, suffix, template
            )


def _first_of_each_direction(stated: list[About]) -> list[About]:
    """The statements that become memorization probes: those that end with the answer come first."""
    by_length = sorted(stated, key=lambda about: about.asks_name and about.example.answer != about.name)
    return list({about.asks_name: about for about in reversed(by_length)}.values())


def _add_probe(
    fact: Fact,
    example: Example,
    probe_type: str | None,
    answers: list[str],
    builder: BankBuilder,
    suffix: str = "",
    template: str | None = None,
) -> None:
    if example.prompt:
        builder.add_probe(
            example.where,
            [fact],
            probe_type or example.type,
            example.prompt,
            answers,
            suffix=suffix,
            template=template,
            joint=example.joint,
        )
