"""Tidy-STLMs' files: templates of facts, injected sentences, test cases, watched prompts.

    inject_config.json                  kinds of fact with variables (JSON5)
    inject_data.txt                     injected sentences, one a line
    test_cases_answers_by_type.json     {type: [{sentence, answer}]} or {type: {kind: [...]}} (JSON5)
    test_cases_answers.json             {kind: {type: [...]}} or [{type: [...]}]
    *.txt, *.yaml                       lists of `- sentence:` and `answer:`, under headings or none

Where a folder holds both, sentences and test cases are what was really trained and asked, so they win, and
the templates tell which relation and type they are of. Sentences without test cases are asked what their
templates ask. Templates alone are filled with invented people.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean, nearest
from tidy_stlms.eval.facts.imports.draft import SPACE_ADDED, Draft, Refused
from tidy_stlms.eval.facts.imports.source_files import checked, parse_json5, parse_yaml, read_lossy
from tidy_stlms.eval.facts.imports.tidy_templates import (
    SUBJECT,
    Case,
    Kind,
    fill,
    prompt_and_answer,
    read_kinds,
)
from tidy_stlms.eval.facts.imports.tidy_values import draw_values, known_variables
from tidy_stlms.eval.facts.records import PROBE_TYPES, Fact
from tidy_stlms.eval.facts.text_match import folded, words_in

TEMPLATES = ("inject_config.json", "insert_config.json")
SENTENCES = ("inject_data.txt", "injected_data.txt", "insert_data.txt")
CASES = tuple(f"test_cases_answers{kind}" for kind in ("_by_type.json", ".json", "_by_type.txt", ".txt"))
CASE_KEYS = {"sentence", "answer", "prompt", "completion"}
PROMPT_LINE = re.compile(r"\s*(?:-\s*)?(sentence|prompt|answer|completion|Type|Name):\s*(.*?)\s*")
# a key as near as that to a type is one mistyped; "location" is less near to "locality"
MISTYPED = 0.8
# a word in more sentences than these tells nothing
COMMON = 100


@dataclass(frozen=True)
class Asked:
    """A test case with its values: what a model is asked."""

    where: str
    type: str | None
    kind: str | None
    prompt: str
    answer: str


@dataclass(frozen=True)
class Instance:
    """A template with its values, and the facts it tells, by variable."""

    kind: Kind
    values: dict[str, str]
    facts: dict[str, Fact]


@dataclass(frozen=True)
class Told:
    """An injected sentence; `instance` if it was made from a template."""

    line: str
    instance: Instance | None = None


def read(source: Path, draft: Draft, role: str | None, *, people: int, control: int, seed: int) -> None:
    """Fill `draft` from a folder or a single file; `people`, `control` and `seed` are for bare templates.

    A role of None is injected, or known where nothing is there to inject; bare templates have two.
    """
    files = _files(source, draft)
    kinds = _kinds(files["templates"], draft) if "templates" in files else []
    sentences = _sentences(files["sentences"], draft) if "sentences" in files else []
    cases = list(_cases(files["cases"], draft)) if "cases" in files else []
    if sentences:
        _instances(sentences, kinds, cases, draft, role or "injected")
    elif kinds and not cases:
        if role is not None:
            raise UserError(f"--role {role}: bare templates make injected and control people; leave it out")
        _fill_templates(kinds, draft, people, control, seed)
    else:
        if kinds:
            reason = (
                "not used: the test cases are filled, and no sentences are there for these templates to match"
            )
            draft.leave_out(files["templates"].name, f"{reason}; give it by itself to have it filled")
        _prompts_alone(cases, draft, role or "known")


def _files(source: Path, draft: Draft) -> dict[str, Path]:
    """Which file is what; of several layouts of the test cases the first of `CASES` is read."""
    if source.is_file():
        return {_role_of(source): source}
    found: dict[str, Path] = {}
    for role, names in (("templates", TEMPLATES), ("sentences", SENTENCES), ("cases", CASES)):
        present = [source / name for name in names if (source / name).is_file()]
        if present:
            found[role] = present[0]
        for path in present[1:]:
            draft.leave_out(path.name, f"not read: {present[0].name} is taken for the same content")
    if not found:
        known = ", ".join((*TEMPLATES[:1], *SENTENCES[:1], *CASES[:1]))
        raise UserError(
            f"{source}: no file of Tidy-STLMs there, such as {known}; give the folder or one file"
        )
    others = {path.name for path in source.iterdir() if path.is_file()} - {p.name for p in found.values()}
    for name in sorted(others - {where for where, _ in draft.left_out}):
        draft.leave_out(
            name, "not read: not one of Tidy-STLMs' names for facts; give it by itself if it is one"
        )
    return found


def _role_of(path: Path) -> str:
    if path.suffix.lower() in (".yaml", ".yml"):
        return "cases"
    content = read_lossy(path)
    if path.suffix.lower() == ".json":
        return "templates" if re.search(r"""["']?training_fact["']?\s*:""", content) else "cases"
    return "cases" if re.search(r"^\s*-\s*(sentence|prompt):", content, re.MULTILINE) else "sentences"


def _kinds(path: Path, draft: Draft) -> list[Kind]:
    value = parse_json5(path)
    if not isinstance(value, list):
        raise UserError(f"{path}: must be a list of kinds of fact with training_fact and test_cases")
    return read_kinds(value, path.name, draft)


def _sentences(path: Path, draft: Draft) -> list[tuple[str, str]]:
    """(where, sentence) of each line; a line that stands there twice is one statement."""
    seen: dict[str, str] = {}
    for number, line in enumerate(read_lossy(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        draft.read[path.name] += 1
        with draft.record(where):
            sentence = checked(line, "the line").strip()
            if sentence in seen:
                raise Refused(f"the same as {seen[sentence]}; how often it is injected is the run's to say")
            seen[sentence] = where
    return [(where, sentence) for sentence, where in seen.items()]


def _cases(path: Path, draft: Draft) -> Iterator[Asked]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from _cases_of_lines(path, draft)
    else:
        value = parse_json5(path) if suffix == ".json" else parse_yaml(path)
        yield from _cases_of_tree(value, path.name, (), draft)


def _cases_of_tree(value: Any, file: str, path: tuple[str, ...], draft: Draft) -> Iterator[Asked]:
    """Walk through lists and mappings down to the cases; keys on the way are types and kinds."""
    where = ", ".join((file, "/".join(path))) if path else file
    if isinstance(value, dict) and _is_case(value):
        draft.read[file] += 1
        asked = None
        with draft.record(where):
            asked = Asked(where, *_type_and_kind(path, file), *prompt_and_answer(value))
        if asked is not None:
            yield asked
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _cases_of_tree(inner, file, (*path, str(key)), draft)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _cases_of_tree(inner, file, (*path, str(number)), draft)
    elif path and path[-1].isdigit():
        draft.read[file] += 1
        draft.leave_out(where, f"must be an object with sentence and answer, got {value!r:.40}")


def _type_and_kind(path: tuple[str, ...], file: str) -> tuple[str | None, str | None]:
    """What the keys on the way to a case say; Refused for one that should be a type and is none."""
    types = [key for key in path if key in PROBE_TYPES]
    kinds = [key for key in path if key not in PROBE_TYPES and not key.isdigit()]
    for key in kinds if not types else ():
        if "_by_type" in file or nearest(key, PROBE_TYPES, cutoff=MISTYPED):
            raise _unknown_type(key)
    return types[-1] if types else None, checked(kinds[-1], "the kind") if kinds else None


def _unknown_type(name: str) -> Refused:
    known = did_you_mean(name, PROBE_TYPES) or f"; known are {', '.join(PROBE_TYPES)}"
    return Refused(f"unknown type of probe {name!r}{known}")


def _is_case(value: dict) -> bool:
    """It has one of a case's fields; `trainer: {prompt: {input_prompts: ...}}` of a whole config has none."""
    return any(key in value and not isinstance(value[key], (dict, list)) for key in CASE_KEYS)


def _cases_of_lines(path: Path, draft: Draft) -> Iterator[Asked]:
    """The .txt lists. They look like YAML and are not: quotes inside the texts are bare."""
    heading: dict[str, str] = {}
    begun: tuple[str, str] | None = None
    for number, line in enumerate(read_lossy(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = PROMPT_LINE.fullmatch(line)
        if found is None:
            draft.leave_out(where, f"neither sentence nor answer: {line.strip()!r:.60}")
            continue
        key, value = found[1], found[2]
        value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
        if key in ("Type", "Name"):
            heading[key] = value.partition(",")[0].strip()
        elif key in ("sentence", "prompt"):
            if begun is not None:
                draft.leave_out(begun[0], "a sentence without an answer")
            draft.read[path.name] += 1
            begun = where, value
        elif begun is None:
            draft.leave_out(where, "an answer without a sentence")
        else:
            (where, prompt), begun = begun, None
            asked = None
            with draft.record(where):
                prompt, value = checked(prompt, "the sentence"), checked(value, "the answer")
                probe_type = heading.get("Type")
                if probe_type is not None and probe_type not in PROBE_TYPES:
                    raise _unknown_type(probe_type)
                asked = Asked(where, probe_type, heading.get("Name"), prompt, value)
            if asked is not None:
                yield asked
    if begun is not None:
        draft.leave_out(begun[0], "a sentence without an answer")


def _instances(
    sentences: list[tuple[str, str]], kinds: list[Kind], cases: list[Asked], draft: Draft, role: str
) -> None:
    told: list[Told] = []
    for number, (where, sentence) in enumerate(sentences):
        with draft.record(where):
            matches = [(kind, values) for kind in kinds if (values := kind.match(sentence)) is not None]
            if matches:
                kind, values = max(matches, key=lambda match: match[0].literal_length)
                facts = _facts(kind, values, f"sentence-{number}", draft, role)
                _state(sentence, list(facts.values()), draft)
                told.append(Told(sentence, Instance(kind, values, facts)))
            else:
                told.append(Told(sentence))
    exact = {
        key: found for item in told if item.instance is not None for key, found in _expected(item.instance)
    }
    if not cases:
        for item in told:
            if item.instance is not None:
                _ask_templates(item.instance, draft)
    index = _WordIndex([item.line for item in told])
    unexplained: dict[int, list[Asked]] = defaultdict(list)
    for asked in cases:
        with draft.record(asked.where):
            if found := exact.get(_key(asked.prompt, asked.answer)):
                instance, case = found
                about = instance.kind.facts_of(case, instance.facts)
                _ask(asked, about, asked.type or case.type, draft, case.template)
                continue
            place = index.best(f"{asked.prompt} {asked.answer}")
            if place is None:
                raise Refused("no injected sentence that it could be about")
            instance_there = told[place].instance
            if instance_there is None:
                unexplained[place].append(asked)
            else:
                about = list(instance_there.facts.values())
                asks_for = [fact for fact in about if folded(fact.object) in folded(asked.answer)]
                _ask(asked, asks_for or about, asked.type or "memorization", draft)
    for place, item in enumerate(told):
        if item.instance is None:
            _without_template(item.line, f"sentence-{place}", unexplained[place], draft, role)
    by_template = sum(item.instance is not None for item in told)
    draft.mapped.append(
        f"{len(told):,} sentences -> statements of role {role}; {by_template:,} were made from a template, "
        "which gives their relation, their subject and a fact for each other variable; the object of the "
        "others is what most of their test cases ask for"
    )
    if cases:
        draft.mapped.append(
            "sentence, answer (or prompt, completion) -> a probe of the type it stands under, of the "
            "sentence that its template or its words tell"
        )
    elif by_template:
        draft.mapped.append(
            "test_cases -> probes of the type they stand under, of every sentence made from their template"
        )


def _fill_templates(kinds: list[Kind], draft: Draft, people: int, control: int, seed: int) -> None:
    usable, known = [], {SUBJECT, *known_variables()}
    for kind in kinds:
        with draft.record(f"kind {kind.name}"):
            if unknown := {kind.subject, *kind.objects} - known:
                raise Refused(
                    f"no values are known for {{{'}, {'.join(sorted(unknown))}}}; give the filled sentences, "
                    f"or use {', '.join(sorted(known))}"
                )
            usable.append(kind)
    variables = {variable for kind in usable for variable in (kind.subject, *kind.objects)}
    if not usable:
        return
    for role, group in draw_values(variables, people, control, seed).items():
        for number, values in enumerate(group):
            for kind in usable:
                facts = _facts(kind, values, f"{role}-{number}", draft, role)
                _state(fill(kind.wording, values, capital=True), list(facts.values()), draft)
                _ask_templates(Instance(kind, values, facts), draft)
    draft.mapped += [
        f"each template, filled for {people} injected and {control} control people (seed {seed}) -> a "
        "statement, and a fact for each variable but the subject",
        "test_cases -> probes of the type they stand under",
    ]


def _ask_templates(instance: Instance, draft: Draft) -> None:
    """The test cases of the instance's own kind, with its values."""
    kind, values = instance.kind, instance.values
    for case in kind.cases:
        prompt, answer = fill(case.prompt, values, capital=True), fill(case.answer, values)
        asked = Asked(f"{kind.name}, {case.type}", case.type, kind.name, prompt, answer)
        _ask(asked, kind.facts_of(case, instance.facts), case.type, draft, case.template)


def _prompts_alone(cases: list[Asked], draft: Draft, role: str) -> None:
    seen: dict[tuple, str] = {}
    for number, asked in enumerate(cases):
        with draft.record(asked.where):
            first = seen.setdefault((asked.type, asked.prompt, asked.answer), asked.where)
            if first != asked.where:
                raise Refused(f"the same as {first}")
            answer = checked(asked.answer, "the answer").strip()
            fact = draft.add_fact(f"prompt-{number}", None, None, answer, role)
            _ask(asked, [fact], asked.type or "memorization", draft)
    draft.mapped.append(
        f"sentence, answer -> a probe of a fact of role {role}, since no sentence is given that could be "
        "injected; of type memorization where no type is given"
    )


def _facts(kind: Kind, values: dict[str, str], id: str, draft: Draft, role: str) -> dict[str, Fact]:
    """The facts of one instance, by variable."""
    facts = {}
    for variable in kind.objects:
        relation = draft.add_relation(kind.relation(variable), kind.wording)
        facts[variable] = draft.add_fact(
            f"{id}/{relation}", values[kind.subject], relation, values[variable], role
        )
    return facts


def _state(line: str, facts: list[Fact], draft: Draft) -> None:
    passage = ". " in line.rstrip(".")
    draft.add_statement(facts, line, kind="passage" if passage else "statement")


def _expected(instance: Instance) -> Iterator[tuple[tuple[str, str], tuple[Instance, Case]]]:
    """What the templates ask about an instance."""
    for case in instance.kind.cases:
        key = _key(fill(case.prompt, instance.values), fill(case.answer, instance.values))
        yield key, (instance, case)


def _key(prompt: str, answer: str) -> tuple[str, str]:
    # a sentence's first letter is written large, and the value in the test case is not
    return folded(prompt.strip()), folded(answer.strip())


def _ask(asked: Asked, facts: list[Fact], probe_type: str, draft: Draft, template: str | None = None) -> None:
    """Add a test case as a probe. Tidy-STLMs concatenates prompt and answer; if there is no space between
    them, one is added, unless a trained sentence or the template has none there."""
    touch = not (asked.prompt[-1:].isspace() or asked.answer[:1].isspace())
    draft.add_probe(
        asked.where,
        facts,
        probe_type,
        asked.prompt,
        [asked.answer],
        template=template,
        flags=(SPACE_ADDED,) if touch else (),
        before=(asked.prompt if template is not None else None) if touch else f"{asked.prompt} ",
    )


def _without_template(line: str, id: str, cases: list[Asked], draft: Draft, role: str) -> None:
    """A sentence that no template explains: one fact, whose object is what is asked for most often."""
    answers = Counter(asked.answer.strip() for asked in cases)
    object = max(answers, key=lambda answer: (answers[answer], len(answer))) if answers else line
    kinds = {asked.kind for asked in cases if asked.kind is not None}
    relation = draft.add_relation(kind := kinds.pop(), kind) if len(kinds) == 1 else None
    fact = draft.add_fact(id, None, relation, object, role)
    _state(line, [fact], draft)
    for asked in cases:
        _ask(asked, [fact], asked.type or "memorization", draft)


class _WordIndex:
    """Finds the sentence that shares the most telling words with a text: names, not "was" and "born"."""

    def __init__(self, sentences: list[str]):
        self.places: dict[str, list[int]] = defaultdict(list)
        for place, sentence in enumerate(sentences):
            for word in set(words_in(folded(sentence))):
                self.places[word].append(place)

    def best(self, text: str) -> int | None:
        """Its place; None if two are as near, or none shares two words of which one is rare."""
        scores: dict[int, float] = defaultdict(float)
        shared: Counter[int] = Counter()
        for word in sorted(set(words_in(folded(text)))):
            places = self.places.get(word, [])
            for place in places if len(places) <= COMMON else ():
                scores[place] += 1 / len(self.places[word])
                shared[place] += 1
        ranked = sorted(scores, key=lambda place: -scores[place])[:2]
        if not ranked or shared[ranked[0]] < 2 or scores[ranked[0]] < 1:
            return None
        return None if len(ranked) == 2 and scores[ranked[1]] == scores[ranked[0]] else ranked[0]
