"""A comparison of models: what each was measured to recall, put side by side, with what tells them apart.

    study = build_study(measured, asked, baseline="outputs/twin")
    write_study("results/comparison", study, rows_of(measured))

`summary.json` is the study as data; docs/recall.md says what its sections mean. Sections without data are
left out.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import (
    check_writable,
    read_json,
    whole_folder,
    write_json,
    write_jsonl,
    write_whole,
)
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.summary import chance_of
from tidy_stlms.eval.recall.compare import compare_models
from tidy_stlms.eval.recall.control import corrected_summary
from tidy_stlms.eval.recall.exposures import dose_response, doses_of_facts, exposures_until
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.study.heldout import heldout_summary
from tidy_stlms.eval.study.measure import SCORER_VERSION, Asked, Measured

SCHEMA = 2  # of summary.json
SUMMARY, ROWS, TABLE = "summary.json", "results.jsonl", "results.csv"

Report = Callable[[Path, dict[str, Any], Sequence[dict[str, Any]]], None]


def build_study(measured: Sequence[Measured], asked: Asked, *, baseline: str | None = None) -> dict[str, Any]:
    """The study of these models, JSON-serialisable; `baseline` is the label to compare the others with."""
    study: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scorer": SCORER_VERSION,
    }
    if asked.bank is not None:
        study["bank"] = _bank(asked.bank)
    study["models"] = [one.info for one in measured]
    recalled = {one.name.label: one for one in measured if one.rows}
    documents = {one.name.label: one.documents for one in measured if one.documents}
    runs = [one.name.run for one in recalled.values() if one.name.run is not None]
    doses = doses_of_facts(asked.bank, runs) if asked.bank is not None else None
    study |= {
        "recall": _each(recalled, lambda rows: summarise(rows, doses=doses, seed=asked.seed)),
        "by_relation": _each(
            recalled, lambda rows: summarise(rows, by=("role", "relation"), doses=doses, seed=asked.seed)
        ),
        "corrected": _each(recalled, lambda rows: corrected_summary(rows, doses)),
        "comparisons": compare_models(
            {label: one.rows for label, one in recalled.items()},
            {label: one.info["tokenizer"] for label, one in recalled.items()},
            baseline=baseline,
            heldout=documents,
            doses=doses,
            seed=asked.seed,
        ),
        "dose_response": _doses(recalled, asked),
        "heldout": {
            **{label: heldout_summary(rows, seed=asked.seed) for label, rows in documents.items()},
            **_errors(measured, "heldout"),
        },
        "benchmarks": _benchmarks(measured, asked),
        "prompts": {one.name.label: one.prompts for one in measured if one.prompts},
    }
    return {name: section for name, section in study.items() if section}


def rows_of(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each model and probe."""
    return [{"model": one.name.label, **row} for one in measured for row in one.rows]


def check_out(out: Path, *, overwrite: bool) -> None:
    """Make sure that a study can be written to `out`; UserError for a file, a folder that is in use, and
    where nothing can be written."""
    if out.is_file():
        raise UserError(f"{out}: is a file; take another --out")
    check_writable(out)
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{out}: already holds something; take another --out, or --overwrite to replace it")
    summary = read_json(out / SUMMARY) if (out / SUMMARY).is_file() else None
    if not isinstance(summary, dict) or "schema" not in summary or "models" not in summary:
        raise UserError(f"{out}: does not look like results of stlm recall, so it is not replaced")


def write_study(
    out: Path,
    study: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    *,
    report: Report | None = None,
    overwrite: bool = False,
) -> None:
    """Write summary.json, results.jsonl, results.csv and what `report` adds, as a whole folder.

    Raises UserError if another command has written results there since `check_out`, unless `overwrite` is
    set.
    """
    with whole_folder(out, replace=overwrite) as folder:
        write_json(folder / SUMMARY, study)
        write_jsonl(folder / ROWS, rows)
        write_whole(folder / TABLE, _csv(rows))
        if report is not None:
            report(folder, study, rows)


def _bank(bank: FactBank) -> dict[str, Any]:
    return {
        "name": bank.meta.get("name"),
        "sha256": bank.sha256,
        "n_facts": len(bank.facts),
        "n_probes": len(bank.probes),
        "chance": chance_of(bank),
        "flags": dict(Counter(flag for probe in bank.probes for flag in probe.flags)),
    }


def _each(
    recalled: dict[str, Measured], summary: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> dict[str, Any]:
    found = {label: summary(one.rows) for label, one in recalled.items()}
    return {label: value for label, value in found.items() if value}


def _doses(recalled: dict[str, Measured], asked: Asked) -> list[dict[str, Any]]:
    found = []
    for label, one in recalled.items():
        if asked.bank is None or one.name.run is None:
            continue
        exposures = exposures_until(one.name.run, one.name.step, asked.bank)
        if exposures:
            found += [
                {"model": label, **dose} for dose in dose_response(one.rows, exposures, seed=asked.seed)
            ]
    return found


def _benchmarks(measured: Sequence[Measured], asked: Asked) -> dict[str, Any]:
    failed = _errors(measured, "benchmarks")
    found: dict[str, Any] = {}
    for one in measured:
        label = one.name.label
        tasks = [*asked.benchmarks, *(f"probe:{task}" for task in asked.linear_probes)]
        lost = {task: failed[label] for task in tasks if label in failed}
        if results := {**lost, **one.benchmarks}:
            found[label] = results
    return found


def _errors(measured: Sequence[Measured], section: str) -> dict[str, dict[str, str]]:
    return {one.name.label: {"error": one.errors[section]} for one in measured if section in one.errors}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line a row; lists are joined, and what there is not is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(row.get(column)) for column in columns] for row in rows)
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    return "; ".join(map(_csv_part, value)) if isinstance(value, list) else value


def _csv_part(part: Any) -> str:
    """One of a list: [text, probability], a number, or a text, in quotes where it would read as two."""
    if isinstance(part, list):
        text, p = part
        return f"{text!r} {p:.4g}"
    if isinstance(part, str):
        return repr(part) if ";" in part else part
    return f"{part:.6g}"
