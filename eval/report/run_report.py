"""A run's summary.json, report.md with its plots, and model card.

Everything is read from the run folder, so that a run that was interrupted and resumed has the same report as
one that was not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tidy_stlms.configs.files import read_jsonl, write_json, write_whole
from tidy_stlms.configs.load import read_config
from tidy_stlms.configs.records import read_records
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.load import load_bank
from tidy_stlms.eval.facts.summary import chance_of
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.recall.groups import Doses, treatment_groups
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.card import run_card
from tidy_stlms.eval.report.run_in_words import FIGURES, facts_of_the_run, reading_guide
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.eval.run_folder import (
    CARD,
    CONFIG,
    FACTS,
    FIGURES_FOLDER,
    METRICS,
    RECALL,
    REPORT,
    SUMMARY,
    has_plan,
    read_plan,
)


def write_run_report(
    folder: Path, *, steps: int, tokens: int, tokens_per_second: float | None, parameters: int
) -> dict:
    """Write summary.json, figures/*.png, report.md and README.md (the model card); return the summary."""
    metrics, results = _read_log(folder / METRICS), _read_results(folder / RECALL)
    bank = load_bank(folder / FACTS, flag=False) if (folder / FACTS).exists() else None
    doses = doses_of_facts(bank, [folder]) if bank is not None else {}
    summary = {
        "steps": steps,
        "tokens": tokens,
        "train_loss": _last(metrics, "loss"),
        "eval_loss": _last(metrics, "eval_loss"),
        "eval_bits_per_byte": _last(metrics, "eval_bits_per_byte"),
        "tokens_per_second": tokens_per_second or _last(metrics, "tokens_per_second"),
        "parameters": parameters,
        "recall": _recall_before_and_after(results, steps, doses),
    }
    config = read_config(folder / CONFIG)
    figures = _draw(folder, metrics, bank, treatment_groups(results, doses))
    write_whole(folder / REPORT, _report(folder, config, summary, bank, figures))
    write_whole(folder / CARD, run_card(folder, bank, summary=summary))
    write_json(folder / SUMMARY, summary)  # last: where it is, report and card are too
    return summary


def _recall_before_and_after(results: Sequence[ProbeResult], last_step: int, doses: Doses) -> dict:
    """`{"before": R, "after": R}` from the evaluations at step 0 and at the end."""
    return {
        name: msgspec.to_builtins(
            summarise([result for result in results if result.step == step], doses=doses)
        )
        for name, step in (("before", 0), ("after", last_step))
    }


def _draw(folder: Path, metrics: list[dict], bank: FactBank | None, treatments: dict[str, str]) -> list[str]:
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


def _report(folder: Path, config: dict, summary: dict, bank: FactBank | None, figures: list[str]) -> str:
    lines = [f"# {folder.name}", "", *facts_of_the_run(folder, config, summary, bank), ""]
    if bank is not None:
        lines += ["## Recall", "", recall_table(summary["recall"]).markdown(), reading_guide(bank), ""]
    lines += ["## Curves", ""]
    for file in figures:
        lines += [f"![{FIGURES[file]}](figures/{file})", "", FIGURES[file], ""]
    lines += ["Files: `config.yaml` (all settings), `plan.parquet` (every exposure), `recall.jsonl` (a line"]
    lines += ["per probe and evaluation), `metrics.jsonl` (curves), `summary.json`.", ""]
    return "\n".join(lines)


def _read_log(path: Path) -> list[dict]:
    return read_jsonl(path) if path.exists() else []


def _read_results(path: Path) -> Sequence[ProbeResult]:
    return read_records(path, ProbeResult) if path.exists() else ()


def _last(rows: list[dict], key: str) -> Any:
    return next((row[key] for row in reversed(rows) if key in row), None)
