"""The fact bank: what is injected and what is asked, one folder of JSON Lines with stable ids.

    bank.json         {schema, name, license, seed, provenance, versions, sha256, ...}
    relations.jsonl   Relation      facts.jsonl    Fact
    statements.jsonl  Statement     probes.jsonl   Probe

Fields that hold their default stay out of the lines. Banks are made by `facts/generate/` (or by hand),
read by `FactBank.load` or, with the warnings too, by `load_bank` of `facts/warnings.py`.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, read_jsonl, whole_folder, write_json
from tidy_stlms.eval.facts.integrity import integrity_errors
from tidy_stlms.eval.facts.records import Spans, from_row, many_records, to_row
from tidy_stlms.eval.facts.text_match import join

logger = logging.getLogger(__name__)

SCHEMA = 1

_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_canonically = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Relation:
    id: str
    label: str
    cardinality: str = "one"  # or "many": a subject may have several objects
    inverse: str | None = None  # the id of the relation that leads back
    answer_space: tuple[str, ...] | None = None  # the pool that answers and distractors are drawn from


@dataclass(frozen=True, slots=True)
class Fact:
    id: str
    subject: str | None  # null, like the relation, for the facts of a passage
    relation: str | None
    object: str
    role: str
    object_aliases: tuple[str, ...] = ()
    arm: str | None = None  # of an injected fact, see `arms` in the meta; "unseen" for that control
    counterfactual_of: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A text that states facts. Only statements of facts whose role is "injected" are ever trained on.

    `spans` says where the `subject` stands (first) and the `object`; where several facts are told,
    `object:FACT` by the id of each.
    """

    id: str
    fact_ids: tuple[str, ...]
    text: str
    kind: str = "statement"
    form: str = "original"  # or "paraphrase:1", "paraphrase:2", ..., "reverse"
    spans: Spans = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question about facts. Its text is `prompt` + `joint` + an answer + `suffix`; all `answers` are right.

    `joint` is a space, or "" as in "l'" + "eau"; prompt and answer do not contain it. `seen_verbatim` says
    that prompt and answer stand word for word in one of the facts' own statements, control facts included;
    whether a model has read them is the role's matter.
    `flags` are the validator's remarks, not content: they do not enter the hash.
    """

    id: str
    fact_ids: tuple[str, ...]
    type: str
    prompt: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...] = ()
    suffix: str = ""
    template: str | None = None  # the whole wording, "{subject} was born in {object}.", terminator included
    seen_verbatim: bool = False
    flags: tuple[str, ...] = ()
    joint: str = " "  # one of JOINTS

    def text(self, answer: str | None = None) -> str:
        """The text that is asked about, with `answer` in its place, the first one when left out.

        Prompt and answer are joined as the scorer joins them (`join`): nothing is added
        behind a line break, and a space at the prompt's end counts as the joint.
        """
        context, space = join(self.prompt, self.joint)
        return f"{context}{space}{self.answers[0] if answer is None else answer}{self.suffix}"


TABLES: dict[str, Any] = {"relations": Relation, "facts": Fact, "statements": Statement, "probes": Probe}


@dataclass(frozen=True)
class FactBank:
    meta: dict[str, Any]
    relations: Sequence[Relation]
    facts: Sequence[Fact]
    statements: Sequence[Statement]
    probes: Sequence[Probe]

    @classmethod
    @many_records()
    def load(cls, folder: str | Path, check: bool = True) -> "FactBank":
        """Read a bank; UserError, naming file and line or id, for whatever makes it unusable.

        `check=False` leaves it at the lines' fields and types, so that `validate` can list all errors
        of a broken bank. A bank edited by hand is used as it is, with a warning and its new hash.
        """
        folder = Path(folder)
        meta = _read_meta(folder)
        recorded = meta.pop("sha256", None)
        bank = cls(meta, **{table: _read_table(folder, table) for table in TABLES})
        if check and (errors := integrity_errors(bank)):
            more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
            raise UserError(f"{folder}/{errors[0].message}{more}")
        if recorded is not None and recorded != bank.sha256:
            logger.warning(
                "%s has been edited since its hash was written: going on as sha256 %.12s", folder, bank.sha256
            )
        return bank

    @many_records()
    def save(
        self, folder: str | Path, *, replace: bool = False, beside: dict[str, Any] | None = None
    ) -> None:
        """Write the bank as a folder, whole or not at all.

        Args:
            folder: Where to write; UserError if something is there.
            replace: Replace what is there instead.
            beside: More JSON files for the folder, by name.
        """
        taken = Path(folder).is_file() or (Path(folder).is_dir() and any(Path(folder).iterdir()))
        if taken and not replace:
            raise UserError(f"{folder}: exists already; choose another folder or remove it")
        with whole_folder(folder, replace=replace) as temporary:
            for name, content in (beside or {}).items():
                write_json(temporary / name, content)
            write_json(temporary / "bank.json", {"schema": SCHEMA, **self.meta, "sha256": self.sha256})
            for table in TABLES:
                # line by line, as a bank of 100,000 facts is half a gigabyte of text
                with (temporary / f"{table}.jsonl").open("w", encoding="utf-8") as file:
                    for record in getattr(self, table):
                        file.write(_encode(to_row(record)) + "\n")

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: the order of files, lines and keys, `meta` and flags do not enter."""
        digest = hashlib.sha256(f"schema {SCHEMA}\n".encode())
        for table in TABLES:
            digest.update(f"{table}\n".encode())
            for line in sorted(_canonical_lines(getattr(self, table))):
                digest.update(line)
        return digest.hexdigest()

    @cached_property
    def fact_by_id(self) -> dict[str, Fact]:
        return {fact.id: fact for fact in self.facts}

    def statements_of(self, fact_id: str) -> list[Statement]:
        """The statements that state this fact, in the bank's order."""
        return self._statements_by_fact.get(fact_id, [])

    def injected_facts(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.role == "injected"]

    def role_of(self, probe: Probe) -> str:
        """The role of the probe's first fact."""
        return self.fact_by_id[probe.fact_ids[0]].role

    def is_stated(self, probe: Probe, answer: str | None = None) -> bool:
        """Whether prompt and answer (the first when left out) stand word for word in a statement of the
        probe's own facts."""
        asked = probe.text(answer)
        return any(asked in statement.text for statement in self.statements_about(probe))

    def statements_about(self, probe: Probe) -> Iterator[Statement]:
        """The statements of the probe's facts; one that states several of them comes once for each."""
        return (statement for fact_id in probe.fact_ids for statement in self.statements_of(fact_id))

    def subject_of(self, probe: Probe) -> str:
        """The subject of the probe's first fact, or the fact's id where it has none: what is resampled."""
        fact = self.fact_by_id[probe.fact_ids[0]]
        return fact.id if fact.subject is None else fact.subject

    @cached_property
    def _statements_by_fact(self) -> dict[str, list[Statement]]:
        index = defaultdict(list)
        for statement in self.statements:
            for fact_id in statement.fact_ids:
                index[fact_id].append(statement)
        return dict(index)


def _canonical_lines(records: Iterable[Any]) -> Iterable[bytes]:
    for record in records:
        row = to_row(record)
        row.pop("flags", None)
        # the id first, so that lines sort by it
        yield f"{record.id}\t{_encode_canonically(row)}\n".encode()


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "bank.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: not a fact bank (it holds no bank.json); make one with "
            "`stlm facts generate SPEC.yaml --out DIR`"
        )
    meta = read_json(path)
    if not isinstance(meta, dict):
        raise UserError(f"{path}: must be a JSON object, got {meta!r:.40}")
    schema = meta.pop("schema", SCHEMA)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {schema!r:.40} is not known, this version reads schema {SCHEMA}")
    return meta


def _read_table(folder: Path, table: str) -> tuple[Any, ...]:
    path = folder / f"{table}.jsonl"
    records = []
    for number, row in enumerate(read_jsonl(path), 1):
        name = f"{row['id']!r}" if isinstance(row.get("id"), str) else f"row {number}"
        records.append(from_row(TABLES[table], row, f"{path}: {name}"))
    return tuple(records)
