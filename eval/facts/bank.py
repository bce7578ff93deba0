"""The fact bank: the facts, the statements to train on and the probes, in a folder of JSON Lines.

    bank.json         {schema, name, license, seed, provenance, versions, sha256, ...}
    relations.jsonl   Relation      facts.jsonl    Fact
    statements.jsonl  Statement     probes.jsonl   Probe

Fields that hold their default stay out of the lines. Banks are made by `facts/generate/`, by
`facts/imports/` or by hand, and read by `load_bank` of `facts/validate.py`, which also checks them.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import flush, read_json, temporary_file, to_json, whole_folder, write_json
from tidy_stlms.configs.records import Record, read_records, to_row
from tidy_stlms.eval.facts.records import Fact, Probe, Relation, Statement
from tidy_stlms.eval.rows import ROWS, kind_of
from tidy_stlms.eval.run_folder import FACTS

SCHEMA = 1

_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_canonically = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

TABLES: dict[str, type[Record]] = {
    "relations": Relation,
    "facts": Fact,
    "statements": Statement,
    "probes": Probe,
}


class FactBank(msgspec.Struct, frozen=True, dict=True):  # a dict for the cached properties
    """The records of a bank in the order of its files, with lookups and the content's hash."""

    meta: dict[str, Any]
    """What bank.json says, without its schema and hash."""
    relations: Sequence[Relation]
    facts: Sequence[Fact]
    statements: Sequence[Statement]
    probes: Sequence[Probe]

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
                # line by line, since a bank of 100,000 facts is half a gigabyte of text
                with (temporary / f"{table}.jsonl").open("w", encoding="utf-8") as file:
                    for record in getattr(self, table):
                        file.write(_encode(to_row(record)) + "\n")

    def replace_probes(self, folder: str | Path) -> None:
        """Write only the probes and the new hash, to a folder that holds the bank's other files already."""
        folder = Path(folder)
        probes = "".join(to_json(to_row(probe)) + "\n" for probe in self.probes)
        meta = to_json({"schema": SCHEMA, **self.meta, "sha256": self.sha256}, indent=2) + "\n"
        # Both files are on the disk before either is renamed, the hash last: a kill in between only makes the
        # bank look edited.
        with (
            temporary_file(folder / "probes.jsonl", probes) as new_probes,
            temporary_file(folder / "bank.json", meta) as new_meta,
        ):
            new_probes.replace(folder / "probes.jsonl")
            new_meta.replace(folder / "bank.json")
            flush(folder)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content. Does not depend on the order of lines and keys, on `meta`, or on flags."""
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

    def asked_for(self, probe: Probe) -> tuple[str, str | None]:
        """What the probe asks for: ("object", relation), ("subject", relation) or ("template", template).

        The last is for answers that are neither object nor subject of the probe's facts, such as conclusions.
        """
        for fact in (self.fact_by_id[fact_id] for fact_id in reversed(probe.fact_ids)):
            if probe.answers[0] == fact.object:
                return "object", fact.relation
            if probe.answers[0] == fact.subject:
                return "subject", fact.relation
        return "template", probe.template

    def is_stated(self, probe: Probe, answer: str | None = None) -> bool:
        """Whether prompt and answer (the first one when left out) occur word for word in a statement of the
        probe's facts."""
        text = probe.text(answer)
        return any(text in statement.text for statement in self.statements_about(probe))

    def statements_about(self, probe: Probe) -> Iterator[Statement]:
        """The statements of the probe's facts; one that states several of them comes once for each."""
        return (statement for fact_id in probe.fact_ids for statement in self.statements_of(fact_id))

    def subject_of(self, probe: Probe) -> str:
        """The subject of the probe's first fact, or the fact's id if it has none: the unit of resampling."""
        fact = self.fact_by_id[probe.fact_ids[0]]
        return fact.id if fact.subject is None else fact.subject

    @cached_property
    def _statements_by_fact(self) -> dict[str, list[Statement]]:
        index = defaultdict(list)
        for statement in self.statements:
            for fact_id in statement.fact_ids:
                index[fact_id].append(statement)
        return dict(index)


def read_bank(folder: str | Path) -> tuple[FactBank, str | None]:
    """The bank in a folder, and the hash that its bank.json records, if any.

    Checks nothing but each line's fields and types; UserError, naming the file and the line or its id, for a
    mistake in them.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    recorded_hash = meta.pop("sha256", None)
    tables: dict[str, Any] = {
        table: read_records(folder / f"{table}.jsonl", record_type, by_hand=True)
        for table, record_type in TABLES.items()
    }
    return FactBank(meta, **tables), recorded_hash


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "bank.json"
    if not path.is_file():
        if (folder / FACTS / path.name).is_file():
            raise UserError(f"{folder}: not a fact bank, but a run; its bank is {folder / FACTS}")
        raise UserError(f"{folder}: not a fact bank (it holds no bank.json); {_how_to_make_one(folder)}")
    meta = read_json(path)
    if not isinstance(meta, dict):
        raise UserError(f"{path}: must be a JSON object, got {shown(meta)}")
    for name in ("name", "license"):
        if not isinstance(meta.get(name), str | None):
            raise UserError(f"{path}: field {name!r} must be text, got {shown(meta[name])}")
    schema = meta.pop("schema", SCHEMA)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {shown(schema)} is not known, this version reads schema {SCHEMA}")
    return meta


def _how_to_make_one(path: Path) -> str:
    kind = kind_of(path)
    if kind in ROWS and path.is_file():
        format = "csv" if kind in (".csv", ".tsv") else "jsonl"
        return f"make one of this file with `stlm facts import {format} {path} --out DIR`"
    return (
        "make one with `stlm facts generate SPEC.yaml --out DIR`, or of another project's files with "
        "`stlm facts import FORMAT SOURCE --out DIR`"
    )


def _canonical_lines(records: Iterable[Any]) -> Iterable[bytes]:
    for record in records:
        row = to_row(record)
        row.pop("flags", None)
        # the id comes first, so that lines sort by it
        yield f"{record.id}\t{_encode_canonically(row)}\n".encode()
