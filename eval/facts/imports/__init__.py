"""Makes banks from the files of other projects: `stlm facts import FORMAT SOURCE --out DIR`.

    bank, builder = import_bank("bear", "BEAR/BEAR", ImportOptions())
    builder.records_read, builder.mapped, builder.left_out    # the report

A format is a file of this folder, or the folder `tidy/`. It adds records to a `BankBuilder`. To add a format,
write its file, name it in `FORMATS` (`eval/facts/formats.py`) and call it in `_add_source`.
"""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.formats import FORMATS, ROW_FORMATS
from tidy_stlms.eval.facts.imports.builder import BankBuilder
from tidy_stlms.eval.facts.imports.recognise import refuse_document
from tidy_stlms.eval.facts.imports.source_files import DATA_FILES, Row, data_file, read_rows, unique_rows
from tidy_stlms.eval.facts.records import PROBE_TYPES, ROLES
from tidy_stlms.eval.hub import writing_hub_cache

# Options that only some formats use.
MEANT_FOR = {
    "columns": ("csv", "jsonl"),
    "people": ("tidy",),
    "control": ("tidy",),
    "seed": ("tidy",),
    "type": ("reversal-curse",),
    "config": ROW_FORMATS,
    "split": ROW_FORMATS,
}


@dataclass
class ImportOptions:
    name: str | None = None
    """The bank's name; the source's when left out."""
    license: str | None = None
    """The bank's licence; what the dataset's authors state when left out, if they do."""
    role: str | None = None
    """Role of the facts; the format's default when left out."""
    config: str | None = None
    """The subset to import: a data file of a folder, by its stem, or a configuration of a Hub dataset."""
    split: str | None = None
    """The split of a Hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    columns: dict[str, str] = field(default_factory=dict)
    """For csv and jsonl: the source's column for each of our fields."""
    distractors: int = 9
    """Distractors drawn for probes that have none; 0 for none."""
    people: int = 16
    """For templates of `tidy` alone: the number of people with injected facts."""
    control: int | None = None
    """For templates of `tidy` alone: the number of control people; `people` when left out."""
    seed: int = 0
    """For templates of `tidy` alone: decides names and values."""
    type: str | None = None
    """For `reversal-curse` only: the probe type of records in files whose names do not say it."""


def import_bank(format: str, source: str, options: ImportOptions) -> tuple[FactBank, BankBuilder]:
    """Make a bank from `source`: a file, a folder or the id of a Hub dataset.

    Returns the bank, and the builder, which lists the fields and records that were taken and left out.
    Raises UserError for a source that cannot be read at all, or that has nothing to import.
    """
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS) or f"; known are {', '.join(FORMATS)}"
        raise UserError(f"{format}: no such format{hint}")
    _check(options, format, source)
    builder = BankBuilder(format, source)
    license = _add_source(builder, options)
    chosen = {key: value for key, value in dataclasses.asdict(options).items() if value not in (None, {})}
    meta: dict[str, Any] = {
        "name": options.name or Path(os.path.abspath(source)).stem,
        **({"license": license} if license else {}),
        "provenance": "imported",
        "source": {"format": format, "source": source, "options": chosen},
    }
    return builder.build(meta, options.distractors), builder


def _add_source(builder: BankBuilder, options: ImportOptions) -> str | None:
    """Add the records of the source; returns the licence of the bank."""
    from tidy_stlms.eval.facts.imports.bear import BEAR_LICENSE, import_bear
    from tidy_stlms.eval.facts.imports.counterfact import COUNTERFACT_LICENSE, import_counterfact
    from tidy_stlms.eval.facts.imports.fictional import FICTIONAL_LICENSE, import_fictional
    from tidy_stlms.eval.facts.imports.reversal import REVERSAL_LICENSE, import_reversal
    from tidy_stlms.eval.facts.imports.table import import_table
    from tidy_stlms.eval.facts.imports.tidy.folder import import_tidy
    from tidy_stlms.eval.facts.imports.tofu import TOFU_LICENSE, import_tofu, tofu_role

    license, role = None, options.role or "injected"
    if builder.format == "tidy":
        control = options.people if options.control is None else options.control
        folder = _local(builder.source, options)
        import_tidy(folder, builder, options.role, people=options.people, control=control, seed=options.seed)
    elif builder.format == "bear":
        license = BEAR_LICENSE
        import_bear(_local(builder.source, options), builder, options.role or "known")
    elif builder.format == "reversal-curse":
        license = REVERSAL_LICENSE
        import_reversal(_local(builder.source, options), builder, options.role, options.type)
    else:
        name, rows = _rows(builder, options)
        if builder.format == "fictional-knowledge":
            license = FICTIONAL_LICENSE
            import_fictional(rows, builder, role)
        elif builder.format == "counterfact":
            license = COUNTERFACT_LICENSE
            import_counterfact(rows, builder, role)
        elif builder.format == "tofu":
            license = TOFU_LICENSE
            import_tofu(rows, builder, options.role or tofu_role(name))
        elif builder.format in ("csv", "jsonl"):
            import_table(rows, builder, role, options.columns)
        else:
            raise ValueError(f"no importer for the format {builder.format!r}")
    return options.license or license


def _check(options: ImportOptions, format: str, source: str) -> None:
    """UserError for an option that is wrong, or that the format would ignore."""
    if options.role is not None and options.role not in ROLES:
        raise UserError(f"--role {options.role}: must be one of {', '.join(ROLES)}")
    if options.type is not None and options.type not in PROBE_TYPES:
        hint = did_you_mean(options.type, PROBE_TYPES) or f"; known are {', '.join(PROBE_TYPES)}"
        raise UserError(f"--type {options.type}: no such probe type{hint}")
    for name in ("distractors", "control"):
        if (getattr(options, name) or 0) < 0:
            raise UserError(f"--{name} {getattr(options, name)}: must be 0 or more")
    for name, formats in MEANT_FOR.items():
        if format not in formats and getattr(options, name) != getattr(ImportOptions(), name):
            option = "--column" if name == "columns" else f"--{name}"
            raise UserError(
                f"{option} is for {', '.join(formats)}, and means nothing to {format}; leave it out"
            )
    for name in ("split", "revision"):
        if getattr(options, name) is not None and Path(source).exists():
            raise UserError(f"--{name} is for Hub datasets, and {source} is none; leave it out")


def _local(source: str, options: ImportOptions) -> Path:
    """A file or folder. Downloads a Hub dataset."""
    if Path(source).exists():
        return Path(source)
    from tidy_stlms.eval.facts.hub import download

    return download(_hub_id(source), options.revision)


def _rows(builder: BankBuilder, options: ImportOptions) -> tuple[str, Iterator[tuple[str, Row]]]:
    """The name of the subset, and its rows as (where, fields)."""
    source = builder.source
    if Path(source).exists():
        path = data_file(Path(source), options.config)
        refuse_document(path, builder.format)
        return path.stem, read_rows(path, builder)
    rows = _dataset(_hub_id(source), options)
    numbered = ((f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
    return options.config or source.rpartition("/")[2], unique_rows(numbered, source, builder)


def _hub_id(source: str) -> str:
    from tidy_stlms.eval.facts.hub import REPO_ID

    repo_id = source.removeprefix("hub:")
    if not REPO_ID.fullmatch(repo_id) or repo_id.lower().endswith((*DATA_FILES, ".txt")):
        raise UserError(f"{source}: no such file or folder, and not the id of a Hub dataset (owner/name)")
    return repo_id


@writing_hub_cache()
def _dataset(repo_id: str, options: ImportOptions) -> Any:
    import datasets

    with reading(f"{repo_id}: cannot be loaded from the Hub"):
        loaded = datasets.load_dataset(
            repo_id, options.config, split=options.split, revision=options.revision
        )
    if options.split is None:
        if len(loaded) != 1:
            raise UserError(f"{repo_id}: has several splits; choose one with --split: {', '.join(loaded)}")
        loaded = next(iter(loaded.values()))
    return loaded
