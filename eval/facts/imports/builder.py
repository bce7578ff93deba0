"""What all importers share: they add records to a bank and note what they took and what they left out.

    builder = BankBuilder("tofu", "forget10_perturbed.json")
    for where, row in read_rows(path, builder):
        with builder.record(where):              # removes again what a refused record has added
            question = text_field(row, "question")
            ...
    bank = builder.build(meta)

A record that cannot be imported is noted with its place and the reason, and the import goes on. Nothing is
left out without a note. The bank is validated, and warnings become flags of its probes.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError, counted, one_line
from tidy_stlms.configs.records import to_row
from tidy_stlms.eval.facts.bank import TABLES, FactBank
from tidy_stlms.eval.facts.formats import FORMATS
from tidy_stlms.eval.facts.imports.distractors import draw_distractors
from tidy_stlms.eval.facts.records import JOINTS, Fact, Probe, Relation, Spans, Statement
from tidy_stlms.eval.facts.right_answers import all_names
from tidy_stlms.eval.facts.text_match import folded, shown_joint, usual_joint
from tidy_stlms.eval.facts.validate import flag_probes, validate

LONGEST_NAME = 60  # characters of a field's name in messages
LONGEST_NOTE = 200  # characters of a place or a reason: a source may hold names of any length
SPACE_ADDED = "space_added"  # the flag of a probe whose prompt and answer touch in the source


class Refused(Exception):
    """The reason why a record is not imported."""


@dataclass
class BankBuilder:
    """The records of a bank, by id, and the notes about its source."""

    format: str
    source: str
    records_read: Counter[str] = field(default_factory=Counter)
    """Records read, by file."""
    mapped: list[str] = field(default_factory=list)
    """What became of each field of the source, a sentence each."""
    fields: dict[str, None] = field(default_factory=dict)
    """The names of the fields of all records, in order."""
    fields_taken: set[str] = field(default_factory=set)
    """Those that the format reads."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(where, reason) of each record, probe or distractor that was left out."""
    relations: dict[str, Relation] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    statements: dict[str, Statement] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    """Ids of probes with a joint from the source. All other probes get the joint that statements show."""

    @property
    def not_taken(self) -> list[str]:
        """Fields of the records that the format does not read, as for a message."""
        return [one_line(name, LONGEST_NAME) for name in self.fields if name not in self.fields_taken]

    def leave_out(self, where: str, reason: str) -> None:
        self.left_out.append((one_line(where, LONGEST_NOTE), one_line(reason, LONGEST_NOTE)))

    @contextlib.contextmanager
    def record(self, where: str) -> Iterator[None]:
        """If the block raises `Refused`, note the reason and remove what the block has added."""
        before = {table: len(getattr(self, table)) for table in TABLES}
        try:
            yield
        except Refused as reason:
            self.leave_out(where, str(reason))
            for table, length in before.items():
                rows = getattr(self, table)
                for _ in range(len(rows) - length):
                    rows.popitem()

    def add_relation(self, id: str, label: str, answer_space: Sequence[str] | None = None) -> str:
        """Add a relation; returns its id. The first description of a relation counts."""
        space = None if answer_space is None else tuple(dict.fromkeys(answer_space))
        self.relations.setdefault(id, Relation(id, label, answer_space=space))
        return id

    def add_fact(
        self,
        id: str,
        subject: str | None,
        relation: str | None,
        object: str,
        role: str,
        *,
        aliases: Sequence[str] = (),
        arm: str | None = None,
        counterfactual_of: str | None = None,
    ) -> Fact:
        """Add a fact. A fact may be added twice. Raises Refused for a different fact with the same id."""
        fact = Fact(id, subject, relation, object, role, tuple(aliases), arm, counterfactual_of)
        earlier = self.facts.setdefault(id, fact)
        if earlier != fact:
            before, now = to_row(earlier), to_row(fact)
            field = next(name for name in {**before, **now} if before.get(name) != now.get(name))
            raise Refused(
                f"fact {id!r} was told before and otherwise: {field} {before.get(field)!r}, now "
                f"{now.get(field)!r}"
            )
        return earlier

    def add_statement(
        self, facts: Sequence[Fact], wording: str, *, kind: str = "statement", paraphrase: int = 0
    ) -> Statement:
        """Add a statement of these facts: the original, or paraphrase 1, 2, ..."""
        form = f"paraphrase:{paraphrase}" if paraphrase else "original"
        id = _free(f"{facts[0].id}/{form}", self.statements)
        spans = _spans(wording, facts)
        statement = Statement(id, tuple(fact.id for fact in facts), wording, kind, form, spans)
        self.statements[id] = statement
        return statement

    def add_probe(
        self,
        where: str,
        facts: Sequence[Fact],
        type: str,
        prompt: str,
        answers: Sequence[str],
        *,
        distractors: Sequence[str] = (),
        suffix: str = "",
        template: str | None = None,
        flags: Sequence[str] = (),
        joint: str | None = None,
        before: str | None = None,
    ) -> Probe:
        """Add a probe of these facts, unless the bank has the same one.

        Removes outer spaces, since the joint supplies the space. Without `joint`, the joint comes from the
        statements (see `build`), or else from `before`, the text before the answer in the wording, or else
        from `usual_joint`.
        """
        answers = tuple(answer.strip() for answer in answers)
        stem, number = f"{facts[0].id}/{type}", 0
        probe = Probe(
            id=f"{stem}:0",
            fact_ids=tuple(fact.id for fact in facts),
            type=type,
            prompt=prompt.strip(" "),  # keeps line breaks: a prompt may end with one on purpose
            answers=answers,
            distractors=self._clean_distractors(where, distractors, all_names(answers, facts)),
            suffix=suffix,
            template=template,
            flags=tuple(flags),
            joint=joint if joint is not None else _written_joint(prompt, answers, before),
        )
        while (earlier := self.probes.get(f"{stem}:{number}")) is not None:
            if earlier.prompt == probe.prompt and earlier == replace(probe, id=earlier.id):
                self.leave_out(where, f"asks the same as probe {earlier.id!r}, and would count twice")
                return earlier
            number += 1
        probe = replace(probe, id=f"{stem}:{number}")
        self.probes[probe.id] = probe
        (self.joined.discard if joint is None else self.joined.add)(probe.id)
        return probe

    def _clean_distractors(
        self, where: str, distractors: Sequence[str], right: Collection[str]
    ) -> tuple[str, ...]:
        """The distractors without outer spaces. Leaves out empty ones, right answers and repetitions."""
        kept: dict[str, str] = {}  # by folded text
        for distractor in (text.strip() for text in distractors):
            key = folded(distractor)
            if not distractor or key in kept or key in right:
                why = "empty" if not distractor else "given twice" if key in kept else "an answer"
                self.leave_out(where, f"distractor {distractor!r} is {why}: the probe is kept without it")
            else:
                kept[key] = distractor
        return tuple(kept.values())

    def build(self, meta: dict[str, Any], distractors: int = 0) -> FactBank:
        """The bank, validated and flagged. Raises UserError if nothing could be imported.

        Probes without distractors get up to `distractors` of them, see `distractors.py`.
        """
        if not self.probes and not self.statements:
            first = f": {': '.join(self.left_out[0])}" if self.left_out else ""
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            raise UserError(
                f"{self.source}: holds nothing that `{self.format}` can take{first}{more}; it needs "
                f"{FORMATS[self.format]}"
            )
        tables = {table: tuple(getattr(self, table).values()) for table in TABLES}
        bank = _mark_seen(_join_as_stated(FactBank(meta, **tables), self.joined))
        if distractors:
            bank, drawn = draw_distractors(bank, distractors)
            if drawn:
                self.mapped.append(
                    f"{counted(drawn, 'probe', 'probes')} came without distractors: up to {distractors} were "
                    "drawn for each from the answers of similar probes"
                )
        findings = validate(bank, guessers=False)
        if findings and findings[0].level == "error":  # a fault of the importer, or of an id in the source
            raise UserError(f"{self.source}: {findings[0].message}")
        return flag_probes(bank, findings)


def listed(names: Iterable[object]) -> str:
    """Names of the source for a message: the first twenty, none longer than `LONGEST_NAME`."""
    names = list(names)
    return ", ".join(one_line(name, LONGEST_NAME) for name in names[:20]) + (
        ", ..." if len(names) > 20 else ""
    )


def _spans(wording: str, facts: Sequence[Fact]) -> Spans:
    """The spans of the subject's first mention, and of objects that occur exactly once."""
    spans = {}
    subjects = {fact.subject for fact in facts}
    subject = subjects.pop() if len(subjects) == 1 else None
    if subject and subject in wording:
        spans["subject"] = (start := wording.index(subject), start + len(subject))
    for fact in facts:
        if wording.count(fact.object) == 1:
            name = "object" if len(facts) == 1 else f"object:{fact.id}"
            spans[name] = (start := wording.index(fact.object), start + len(fact.object))
    return spans


def _written_joint(prompt: str, answers: Sequence[str], before: str | None) -> str:
    return usual_joint(prompt, answers[0] if answers else "") if before is None else shown_joint(before)


def _join_as_stated(bank: FactBank, joined_in_source: Collection[str]) -> FactBank:
    """Join prompts and answers as statements of the probe's facts do. A space is tried first.

    Probes with ids in `joined_in_source` keep the joint of the source.
    """

    def joined(probe: Probe) -> Probe:
        if probe.id not in joined_in_source:
            probe = _joined_as_in(bank, probe)
        if not probe.joint and SPACE_ADDED in probe.flags:
            probe = replace(probe, flags=tuple(flag for flag in probe.flags if flag != SPACE_ADDED))
        return probe

    return replace(bank, probes=tuple(map(joined, bank.probes)))


def _joined_as_in(bank: FactBank, probe: Probe) -> Probe:
    texts = [statement.text for statement in bank.statements_about(probe)]
    for form in (str, folded):  # a text in other case or normal form shows the joint too
        statements = list(map(form, texts))
        for joined in (replace(probe, joint=joint) for joint in JOINTS):
            if any(form(joined.text(answer)) in text for answer in probe.answers for text in statements):
                return joined
    return probe


def _mark_seen(bank: FactBank) -> FactBank:
    """Set `seen_verbatim` of all probes."""
    return replace(
        bank,
        probes=tuple(replace(probe, seen_verbatim=bank.is_stated(probe)) for probe in bank.probes),
    )


def _free(id: str, taken: dict[str, Any]) -> str:
    """`id` if it is free, or else the id with the first free number from 1 as its last part."""
    if id not in taken:
        return id
    stem, colon, _ = id.rpartition(":")
    stem = stem if colon else id
    number = 1
    while f"{stem}:{number}" in taken:
        number += 1
    return f"{stem}:{number}"
