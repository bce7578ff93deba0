"""Banks made of other people's files: `stlm facts import FORMAT SOURCE --out DIR`.

    bank, draft = import_bank("bear", "BEAR/BEAR", ImportOptions())
    draft.read, draft.mapped, draft.left_out    # the report

A format is a file of this folder that fills a `Draft`; to add one, write it and name it below.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.imports.draft import Draft
from tidy_stlms.eval.facts.imports.source_files import DATA_FILES, Record, data_file, once, read_records
from tidy_stlms.eval.facts.records import ROLES
from tidy_stlms.eval.hub import writing_hub_cache

FOLDERS = ("tidy", "bear")  # formats of several files that belong together
RECORDS = ("fictional-knowledge", "counterfact", "tofu", "csv", "jsonl")
FORMATS = FOLDERS + RECORDS
# options that mean something to some formats only
MEANT_FOR = {
    "columns": ("csv", "jsonl"),
    "people": ("tidy",),
    "control": ("tidy",),
    "seed": ("tidy",),
    "config": RECORDS,
    "split": RECORDS,
}


@dataclass
class ImportOptions:
    name: str | None = None
    """The bank's name; the source's when left out."""
    license: str | None = None
    """The bank's licence; what the dataset's authors state when left out, if they do."""
    role: str | None = None
    """Role of the facts, where the format leaves it open; each format has its own."""
    config: str | None = None
    """Which subset: of several data files of a folder, or of a Hub dataset."""
    split: str | None = None
    """Which split of a Hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    columns: dict[str, str] = field(default_factory=dict)
    """csv, jsonl: our field -> the source's column."""
    distractors: int = 9
    """Wrong answers drawn for probes that come without any; 0 for none."""
    people: int = 16
    """tidy, bare templates: people whose facts are injected."""
    control: int | None = None
    """tidy, bare templates: people whose facts never are; as many when left out."""
    seed: int = 0
    """tidy, bare templates."""


def import_bank(format: str, source: str, options: ImportOptions) -> tuple[FactBank, Draft]:
    """Read `source`, a file, a folder or the id of a Hub dataset; the bank, and the report of what it holds.

    Raises UserError for a source that cannot be read at all, or that holds nothing to take.
    """
    from tidy_stlms.eval.facts.imports import bear, counterfact, fictional, table, tidy, tofu

    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS) or f"; known are {', '.join(FORMATS)}"
        raise UserError(f"{format}: no such format{hint}")
    _check(options, format, source)
    draft = Draft(format, source)
    role = options.role or "injected"
    if format == "tidy":
        control = options.people if options.control is None else options.control
        folder = _local(source, options)
        tidy.read(folder, draft, options.role, people=options.people, control=control, seed=options.seed)
    elif format == "bear":
        bear.read(_local(source, options), draft, options.role or "known")
    else:
        name, records = _records(source, options, draft)
        if format == "fictional-knowledge":
            fictional.read(records, draft, role)
        elif format == "counterfact":
            counterfact.read(records, draft, role)
        elif format == "tofu":
            tofu.read(records, draft, options.role or tofu.role_of(name))
        else:
            table.read(records, draft, role, options.columns)
    license = options.license or {
        "bear": bear.LICENSE,
        "fictional-knowledge": fictional.LICENSE,
        "counterfact": counterfact.LICENSE,
        "tofu": tofu.LICENSE,
    }.get(format)
    chosen = {key: value for key, value in dataclasses.asdict(options).items() if value not in (None, {})}
    meta: dict[str, Any] = {
        "name": options.name or Path(source).stem,
        **({"license": license} if license else {}),
        "provenance": "imported",
        "source": {"format": format, "source": source, "options": chosen},
    }
    return draft.bank(meta, options.distractors), draft


def _check(options: ImportOptions, format: str, source: str) -> None:
    """UserError for an option that is wrong, or that would be passed over without a word."""
    if options.role is not None and options.role not in ROLES:
        raise UserError(f"--role {options.role}: must be one of {', '.join(ROLES)}")
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
    """A file or folder: the one that is named, or a Hub dataset's, downloaded."""
    if Path(source).exists():
        return Path(source)
    from tidy_stlms.eval.facts.hub import download

    return download(_hub_id(source), options.revision)


def _records(source: str, options: ImportOptions, draft: Draft) -> tuple[str, Iterator[tuple[str, Record]]]:
    """The subset's name, and its records."""
    if Path(source).exists():
        path = data_file(Path(source), options.config)
        return path.stem, read_records(path, draft)
    rows = _dataset(_hub_id(source), options)
    numbered = ((f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
    return options.config or source.rpartition("/")[2], once(numbered, source, draft)


def _hub_id(source: str) -> str:
    from tidy_stlms.eval.facts.hub import REPO_ID

    repo_id = source.removeprefix("hub:")
    if not REPO_ID.fullmatch(repo_id) or repo_id.lower().endswith((*DATA_FILES, ".txt")):
        raise UserError(f"{source}: no such file or folder, and not the id of a Hub dataset (owner/name)")
    return repo_id


@writing_hub_cache()
def _dataset(repo_id: str, options: ImportOptions) -> Any:
    import datasets

    try:
        loaded = datasets.load_dataset(
            repo_id, options.config, split=options.split, revision=options.revision
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{repo_id}: cannot be loaded from the Hub: {reason}") from None
    if options.split is None:
        if len(loaded) != 1:
            raise UserError(f"{repo_id}: has several splits; choose one with --split: {', '.join(loaded)}")
        loaded = next(iter(loaded.values()))
    return loaded
