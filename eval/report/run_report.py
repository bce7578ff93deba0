"""A run's summary.json, report.md with its plots, and model card.

Everything is read from the run folder, so that a run that was interrupted and resumed has the same report as
one that was not.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import read_jsonl, write_json, write_whole
from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.configs.records import read_records, to_row
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.summary import chance_of
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.recall.groups import Doses, treatment_groups
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import ProbeResult, Summary
from tidy_stlms.eval.report.card import run_card
from tidy_stlms.eval.report.run_in_words import FIGURES, facts_of_the_run, reading_guide
from tidy_stlms.eval.report.run_summary import LogRow, RunRecall, RunSummary
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.eval.run_folder import (
    CARD,
    CONFIG,
    FACTS,
    FIGURES_FOLDER,
    METRICS_LOG,
    PLAN,
    RECALL_LOG,
    REPORT,
    SUMMARY,
    has_plan,
    read_plan,
    read_run_config,
)


def write_run_report(
    folder: Path, *, steps: int, tokens: int, tokens_per_second: float | None, parameters: int
) -> RunSummary:
    """Write summary.json, figures/*.png, report.md and README.md (the model card); return the summary."""
    metrics, results = _read_log(folder / METRICS_LOG), _read_results(folder / RECALL_LOG)
    bank = load_bank(folder / FACTS, flag=False) if (folder / FACTS).exists() else None
    doses = doses_of_facts(bank, [folder]) if bank is not None else {}
    summary = RunSummary(
        steps=steps,
        tokens=tokens,
        train_loss=_last(metrics, "loss"),
        eval_loss=_last(metrics, "eval_loss"),
        eval_bits_per_byte=_last(metrics, "eval_bits_per_byte"),
        tokens_per_second=tokens_per_second or _last(metrics, "tokens_per_second"),
        parameters=parameters,
        recall=RunRecall(
            before=_recall_at(0, results, doses),
            after=_recall_at(steps, results, doses),
        ),
    )
    config = read_run_config(folder)
    figures = _draw(folder, metrics, bank, treatment_groups(results, doses))
    write_whole(folder / REPORT, _report(folder, config, summary, bank, figures))
    write_whole(folder / CARD, run_card(folder, bank, summary=summary))
    write_json(folder / SUMMARY, to_row(summary))  # last: if it is there, report and card are too
    return summary


def _recall_at(step: int, results: Sequence[ProbeResult], doses: Doses) -> Summary:
    """The estimates of the evaluation after `step` optimizer steps; empty if there was none."""
    return summarise([result for result in results if result.step == step], doses=doses)


def _draw(
    folder: Path, metrics: Sequence[LogRow], bank: FactBank | None, treatments: Mapping[str, str]
) -> list[str]:
    """Draw what there is data for; returns the names of files in figures/."""
    from tidy_stlms.eval.report.run_figures import plot_loss, plot_rank_and_bits, plot_recall

    drawn = []
    if any("loss" in row for row in metrics):
        plot_loss(metrics, folder / FIGURES_FOLDER / "loss.png")
        drawn.append("loss.png")
    if bank is not None:
        exposures = np.array([], dtype=np.int64)
        if has_plan(folder):
            exposures = read_plan(folder)["step"].to_numpy()
        plot_recall(metrics, exposures, folder / FIGURES_FOLDER / "recall.png", chance_of(bank), treatments)
        plot_rank_and_bits(metrics, folder / FIGURES_FOLDER / "rank_and_bits.png", treatments)
        drawn += ["recall.png", "rank_and_bits.png"]
    return drawn


def _report(
    folder: Path, config: dict[str, Any], summary: RunSummary, bank: FactBank | None, figures: list[str]
) -> str:
    lines = [f"# {markdown_text(folder.name)}", "", *facts_of_the_run(folder, config, summary, bank), ""]
    if bank is not None:
        table = recall_table(summary.recall.after, summary.recall.before)
        lines += ["## Recall", "", table.markdown(), reading_guide(bank), ""]
    lines += ["## Curves", ""]
    for file in figures:
        lines += [f"![{FIGURES[file]}](figures/{file})", "", FIGURES[file], ""]
    lines += [f"Files: {', '.join(_files(folder))}.", ""]
    return "\n".join(lines)


def _files(folder: Path) -> Iterator[str]:
    """The run's files that hold its figures, each with its meaning."""
    yield f"`{CONFIG}` (all settings)"
    if has_plan(folder):
        yield f"`{PLAN}` (every exposure)"
    if (folder / RECALL_LOG).exists():
        yield f"`{RECALL_LOG}` (a line for each probe and evaluation)"
    yield f"`{METRICS_LOG}` (curves)"
    yield f"`{SUMMARY}`"


def _read_log(path: Path) -> list[LogRow]:
    rows = read_jsonl(path) if path.exists() else []
    for number, row in enumerate(rows, 1):
        if type(row.get("step")) is not int:
            raise UserError(f"{path}: row {number}: field 'step' must be a whole number; restore the line")
        for key, value in row.items():
            if not isinstance(value, int | float | None):
                raise UserError(
                    f"{path}: row {number}: field {shown(key)} must be a number; restore the line"
                )
    return rows


def _read_results(path: Path) -> Sequence[ProbeResult]:
    results = read_records(path, ProbeResult) if path.exists() else ()
    for number, result in enumerate(results, 1):
        if result.step is msgspec.UNSET:
            raise UserError(f"{path}: row {number}: field 'step' is missing; restore the line")
    return results


def _last(rows: Sequence[LogRow], key: str) -> Any:
    return next((row[key] for row in reversed(rows) if key in row), None)
