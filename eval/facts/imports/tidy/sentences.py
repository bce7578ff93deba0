"""Tidy-STLMs' injected sentences and their test cases.

A template that matches a sentence gives its subject, its relations and its facts. A test case that was made
from the same template belongs to this sentence. Any other test case belongs to the sentence with which it
shares the most rare words.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidy_stlms.configs.errors import shown
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
from tidy_stlms.eval.facts.imports.recognise import odd_line, refuse_other_text
from tidy_stlms.eval.facts.imports.source_files import checked_text, read_lossy
from tidy_stlms.eval.facts.imports.tidy.cases import TestCase, add_probe
from tidy_stlms.eval.facts.imports.tidy.templates import CaseTemplate, FactTemplate, FilledTemplate, fill
from tidy_stlms.eval.facts.records import Fact
from tidy_stlms.eval.facts.text_match import folded, words_in

# A word that occurs in more sentences than this does not tell them apart.
COMMON = 100


@dataclass(frozen=True)
class Sentence:
    """An injected sentence; `filled` if it was made from a template."""

    line: str
    filled: FilledTemplate | None = None


def read_sentences(path: Path, builder: BankBuilder) -> list[tuple[str, str]]:
    """(where, sentence) of each line. Repeated lines are left out: they are one statement.

    Raises UserError for another kind of text, such as a Markdown document. A few such lines are left out.
    """
    lines = [(number, line) for number, line in enumerate(read_lossy(path).split("\n"), 1) if line.strip()]
    refuse_other_text(path, [line for _, line in lines], builder.format)
    where_of: dict[str, str] = {}
    for number, line in lines:
        where = f"{path.name}, line {number}"
        builder.records_read[path.name] += 1
        with builder.record(where):
            sentence = checked_text(line, "the line").strip()
            if (kind := odd_line(sentence)) is not None:
                raise Refused(f"not a sentence, but {kind}: {shown(sentence)}")
            if sentence in where_of:
                raise Refused(
                    f"the same as {where_of[sentence]}; how often it is injected is the run's to say"
                )
            where_of[sentence] = where
    return [(where, sentence) for sentence, where in where_of.items()]


def add_sentences(
    lines: list[tuple[str, str]],
    templates: list[FactTemplate],
    cases: list[TestCase],
    builder: BankBuilder,
    role: str,
) -> None:
    """Add the sentences as statements and the test cases as probes.

    Without test cases, the probes come from the test cases of the templates.
    """
    sentences = _add_statements(lines, templates, builder, role)
    if not cases:
        for sentence in sentences:
            if sentence.filled is not None:
                add_template_probes(sentence.filled, builder)
    unexplained = _add_case_probes(sentences, cases, builder)
    for number, sentence in enumerate(sentences):
        if sentence.filled is None:
            _add_without_template(sentence.line, f"sentence-{number}", unexplained[number], builder, role)
    by_template = sum(sentence.filled is not None for sentence in sentences)
    builder.mapped.append(
        f"{len(sentences):,} sentences -> statements of role {role}; {by_template:,} were made from a "
        "template, which gives their relation, their subject and a fact for each other variable; the object "
        "of the others is what most of their test cases ask for"
    )
    if cases:
        builder.mapped.append(
            "sentence, answer (or prompt, completion) -> a probe of the type it stands under, of the "
            "sentence that its template or its words tell"
        )
    elif by_template:
        builder.mapped.append(
            "test_cases -> probes of the type they stand under, of every sentence made from their template"
        )


def add_filled(
    line: str, template: FactTemplate, values: dict[str, str], id: str, builder: BankBuilder, role: str
) -> FilledTemplate:
    """Add a statement made from a template, with its facts."""
    facts = {}
    for variable in template.objects:
        relation = builder.add_relation(template.relation(variable), template.wording)
        facts[variable] = builder.add_fact(
            f"{id}/{relation}", values[template.subject], relation, values[variable], role
        )
    _state(line, list(facts.values()), builder)
    return FilledTemplate(template, values, facts)


def add_template_probes(filled: FilledTemplate, builder: BankBuilder) -> None:
    """Add the test cases of the template, with its values."""
    template, values = filled.template, filled.values
    for case in template.cases:
        prompt, answer = fill(case.prompt, values, capital=True), fill(case.answer, values)
        filled_case = TestCase(f"{template.name}, {case.type}", case.type, template.name, prompt, answer)
        facts = template.facts_of(case, filled.facts)
        add_probe(filled_case, facts, case.type, builder, case.wording)


def _add_statements(
    lines: list[tuple[str, str]], templates: list[FactTemplate], builder: BankBuilder, role: str
) -> list[Sentence]:
    """Add the sentences that templates match. All others get their facts later, from their test cases."""
    sentences: list[Sentence] = []
    for number, (where, line) in enumerate(lines):
        with builder.record(where):
            matches = [(template, values) for template in templates if (values := template.match(line))]
            if matches:
                template, values = max(matches, key=lambda match: match[0].literal_length)
                filled = add_filled(line, template, values, f"sentence-{number}", builder, role)
                sentences.append(Sentence(line, filled))
            else:
                sentences.append(Sentence(line))
    return sentences


def _add_case_probes(
    sentences: list[Sentence], cases: list[TestCase], builder: BankBuilder
) -> dict[int, list[TestCase]]:
    """Add the test cases of sentences with a template.

    Returns the test cases of all other sentences, by the index of the sentence.
    """
    templated = {
        key: (sentence.filled, case)
        for sentence in sentences
        if sentence.filled is not None
        for key, case in _expected_cases(sentence.filled)
    }
    index = WordIndex([sentence.line for sentence in sentences])
    unexplained: dict[int, list[TestCase]] = defaultdict(list)
    for case in cases:
        with builder.record(case.where):
            if match := templated.get(_key(case.prompt, case.answer)):
                filled, template = match
                facts = filled.template.facts_of(template, filled.facts)
                add_probe(case, facts, case.type or template.type, builder, template.wording)
                continue
            number = index.best(f"{case.prompt} {case.answer}")
            if number is None:
                raise Refused("no injected sentence that it could be about")
            nearest = sentences[number].filled
            if nearest is None:
                unexplained[number].append(case)
            else:
                facts = list(nearest.facts.values())
                in_answer = [fact for fact in facts if folded(fact.object) in folded(case.answer)]
                add_probe(case, in_answer or facts, case.type or "memorization", builder)
    return unexplained


def _expected_cases(filled: FilledTemplate) -> Iterator[tuple[tuple[str, str], CaseTemplate]]:
    """The test cases that a template makes with these values, by `_key`."""
    for case in filled.template.cases:
        yield _key(fill(case.prompt, filled.values), fill(case.answer, filled.values)), case


def _key(prompt: str, answer: str) -> tuple[str, str]:
    # folded: a sentence begins with a capital, and the value in the test case may have none
    return folded(prompt.strip()), folded(answer.strip())


def _add_without_template(line: str, id: str, cases: list[TestCase], builder: BankBuilder, role: str) -> None:
    """Add a sentence without a template as one fact. Its object is the most frequent answer of its cases."""
    answers = Counter(case.answer.strip() for case in cases)
    object = max(answers, key=lambda answer: (answers[answer], len(answer))) if answers else line
    kinds = {case.kind for case in cases if case.kind is not None}
    relation = builder.add_relation(kind := kinds.pop(), kind) if len(kinds) == 1 else None
    fact = builder.add_fact(id, None, relation, object, role)
    _state(line, [fact], builder)
    for case in cases:
        add_probe(case, [fact], case.type or "memorization", builder)


def _state(line: str, facts: list[Fact], builder: BankBuilder) -> None:
    passage = ". " in line.rstrip(".")
    builder.add_statement(facts, line, kind="passage" if passage else "statement")


class WordIndex:
    """Finds the sentence that shares the most rare words with a text, such as names."""

    def __init__(self, sentences: list[str]):
        self.sentences_with: dict[str, list[int]] = defaultdict(list)
        for number, sentence in enumerate(sentences):
            for word in set(words_in(folded(sentence))):
                self.sentences_with[word].append(number)

    def best(self, text: str) -> int | None:
        """The index of the sentence with the highest score, the sum of 1 / frequency over shared words.

        None if two sentences share the highest score, or if the best has fewer than two words in common with
        the text or a score below 1.
        """
        scores: dict[int, float] = defaultdict(float)
        n_shared: Counter[int] = Counter()
        for word in sorted(set(words_in(folded(text)))):
            numbers = self.sentences_with.get(word, [])
            for number in numbers if len(numbers) <= COMMON else ():
                scores[number] += 1 / len(numbers)
                n_shared[number] += 1
        ranked = sorted(scores, key=lambda number: -scores[number])[:2]
        if not ranked or n_shared[ranked[0]] < 2 or scores[ranked[0]] < 1:
            return None
        return None if len(ranked) == 2 and scores[ranked[1]] == scores[ranked[0]] else ranked[0]
