"""What all importers share: the bank that grows, and the report of what became of the source.

    draft = Draft("tofu", "forget10_perturbed.json")
    for where, record in read_records(path, draft):
        with draft.record(where):              # what is refused inside leaves nothing behind but its reason
            question = text(record, "question")
            ...
    bank = draft.bank(meta)

A record that cannot be taken is refused with its number and the reason, and the others arrive: nothing is
left out in silence. What is taken is also validated; warnings become flags on the probes.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.records import to_row
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.imports.distractors import draw_wrong_answers, right_for
from tidy_stlms.eval.facts.integrity import integrity_errors
from tidy_stlms.eval.facts.records import JOINTS, Fact, Probe, Relation, Spans, Statement
from tidy_stlms.eval.facts.text_match import folded, shown_joint, usual_joint
from tidy_stlms.eval.facts.warnings import flag_probes

SPACE_ADDED = "space_added"  # the flag of a probe whose prompt and answer touch in the source
TABLES = ("relations", "facts", "statements", "probes")


class Refused(Exception):
    """Why a record is not taken."""


@dataclass
class Draft:
    format: str
    source: str
    read: Counter[str] = field(default_factory=Counter)
    """Records read, by file."""
    mapped: list[str] = field(default_factory=list)
    """What became of which field, a sentence each."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(where, reason) of whatever was not taken."""
    relations: dict[str, Relation] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    statements: dict[str, Statement] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    """Ids of probes that got their joint from the source. The joint of the others is found in statements."""

    def leave_out(self, where: str, reason: str) -> None:
        self.left_out.append((where, reason))

    @contextlib.contextmanager
    def record(self, where: str) -> Iterator[None]:
        """Take back what the block has added if it raises `Refused`, and note the reason."""
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
        """The relation's id; the first to name a relation describes it."""
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
        """The fact of that id; told once more it is the same fact, told otherwise it is refused."""
        fact = Fact(id, subject, relation, object, role, tuple(aliases), arm, counterfactual_of)
        known = self.facts.setdefault(id, fact)
        if known != fact:
            before, now = to_row(known), to_row(fact)
            field = next(name for name in {**before, **now} if before.get(name) != now.get(name))
            raise Refused(
                f"fact {id!r} was told before and otherwise: {field} {before.get(field)!r}, now "
                f"{now.get(field)!r}"
            )
        return known

    def add_statement(
        self, facts: Sequence[Fact], wording: str, *, kind: str = "statement", paraphrase: int = 0
    ) -> Statement:
        """A wording of these facts: the original, or paraphrase 1, 2, ..."""
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
        """A question about these facts; asked before in the very same way, it is not asked once more.

        Removes outer spaces, since the joint supplies the space. Without `joint`, the joint is taken from the
        statements (see `bank`), else from `before`, the wording's text in front of the answer, else from
        `usual_joint`.
        """
        answers = tuple(answer.strip() for answer in answers)
        right, kept = right_for(answers, facts), dict[str, str]()
        for distractor in (text.strip() for text in distractors):
            key = folded(distractor)
            if not distractor or key in kept or key in right:
                why = "empty" if not distractor else "given twice" if key in kept else "an answer"
                self.leave_out(where, f"distractor {distractor!r} is {why}: the probe is kept without it")
            else:
                kept[key] = distractor
        stem, number = f"{facts[0].id}/{type}", 0
        probe = Probe(
            id=f"{stem}:0",
            fact_ids=tuple(fact.id for fact in facts),
            type=type,
            prompt=prompt.strip(" "),  # a line break at its end may be meant
            answers=answers,
            distractors=tuple(kept.values()),
            suffix=suffix,
            template=template,
            flags=tuple(flags),
            joint=joint if joint is not None else _written_joint(prompt, answers, before),
        )
        while (known := self.probes.get(f"{stem}:{number}")) is not None:
            if known.prompt == probe.prompt and known == replace(probe, id=known.id):
                self.leave_out(where, f"asks the same as probe {known.id!r}, and would count twice")
                return known
            number += 1
        probe = replace(probe, id=f"{stem}:{number}")
        self.probes[probe.id] = probe
        (self.joined.discard if joint is None else self.joined.add)(probe.id)
        return probe

    def bank(self, meta: dict[str, Any], distractors: int = 0) -> FactBank:
        """The bank, validated and flagged; UserError if nothing was fit to be taken.

        Probes without wrong answers get up to `distractors`, see `wrong_answers.py`.
        """
        if not self.probes and not self.statements:
            first = f": {': '.join(self.left_out[0])}" if self.left_out else ""
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            raise UserError(f"{self.source}: holds nothing that `{self.format}` can take{first}{more}")
        tables = {table: tuple(getattr(self, table).values()) for table in TABLES}
        bank = _mark_seen(_join_as_stated(FactBank(meta, **tables), self.joined))
        if distractors:
            bank, drawn = draw_wrong_answers(bank, distractors)
            if drawn:
                self.mapped.append(
                    f"{drawn:,} probes came without wrong answers: up to {distractors} were drawn for each "
                    "from the answers to the same kind of question"
                )
        errors = integrity_errors(bank)
        if errors:  # a fault of the importer, or of an id that it took over
            raise UserError(f"{self.source}: {errors[0].message}")
        return flag_probes(bank)


def _spans(wording: str, facts: Sequence[Fact]) -> Spans:
    """Where the subject stands (first), and the objects that stand there exactly once."""
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


def _join_as_stated(bank: FactBank, spared: Collection[str]) -> FactBank:
    """Join prompt and answer as a statement of the probe's facts does that holds both; a space goes first."""

    def joined(probe: Probe) -> Probe:
        found = probe if probe.id in spared else _joined_as_in(bank, probe)
        if not found.joint and SPACE_ADDED in found.flags:
            found = replace(found, flags=tuple(flag for flag in found.flags if flag != SPACE_ADDED))
        return found

    return replace(bank, probes=tuple(map(joined, bank.probes)))


def _joined_as_in(bank: FactBank, probe: Probe) -> Probe:
    texts = [statement.text for statement in bank.statements_about(probe)]
    for form in (str, folded):  # case and normal form may differ, and the text still shows the joint
        told = list(map(form, texts))
        for one in (replace(probe, joint=joint) for joint in JOINTS):
            if any(form(one.text(answer)) in text for answer in probe.answers for text in told):
                return one
    return probe


def _mark_seen(bank: FactBank) -> FactBank:
    """Note which prompts stand, with their answer, word for word in a statement of their own facts."""
    return replace(
        bank,
        probes=tuple(replace(probe, seen_verbatim=bank.is_stated(probe)) for probe in bank.probes),
    )


def _free(id: str, taken: dict[str, Any]) -> str:
    """`id`, its last number raised until nobody has it."""
    if id not in taken:
        return id
    stem, colon, _ = id.rpartition(":")
    stem = stem if colon else id
    number = 1
    while f"{stem}:{number}" in taken:
        number += 1
    return f"{stem}:{number}"
