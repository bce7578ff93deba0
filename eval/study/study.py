"""A study: several models on the same probes, texts and benchmarks, side by side.

    study = build_study(measurements, request, baseline="outputs/twin")
    write_study("results/comparison", study, results_of(measurements))

`Study` is `summary.json`. `results.jsonl` and `results.csv` hold a line for each model and probe.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import (
    check_writable,
    read_json,
    whole_folder,
    write_json,
    write_jsonl,
    write_whole,
)
from tidy_stlms.configs.records import Output, from_row, to_row
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.summary import chance_of, exact_match_chance
from tidy_stlms.eval.models.identity import versions
from tidy_stlms.eval.recall.compare import Comparison, compare_models
from tidy_stlms.eval.recall.control import CorrectedSummary, corrected_summary
from tidy_stlms.eval.recall.exposures import DosePoint, dose_response, doses_of_facts, exposures_until
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import ProbeResult, Summary
from tidy_stlms.eval.study.benchmarks import TaskResult
from tidy_stlms.eval.study.heldout import HeldoutEstimate, heldout_summary
from tidy_stlms.eval.study.lazy_model import SCORER_VERSION
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.eval.study.request import Measurement, ModelInfo, StudyRequest
from tidy_stlms.eval.study.spreadsheet import to_csv
from tidy_stlms.eval.styles import BEAR_STYLE

SCHEMA = 2  # of summary.json
SUMMARY, RESULTS, TABLE = "summary.json", "results.jsonl", "results.csv"


class BankInfo(Output, frozen=True):
    """The bank of a study."""

    name: str | None
    """The bank's name; null if its bank.json has none."""
    sha256: str
    """Hash of the bank's content."""
    n_facts: int
    """The number of facts."""
    n_probes: int
    """The number of probes."""
    chance: float | None
    """Accuracy of guessing; null if it is not the same for all probes."""
    flags: dict[str, int]
    """The number of probes with each flag of the bank's validator."""
    style: str = "suite"  # SUITE_STYLE: docs/files.md shows literals
    """How the probes were asked: `suite`, or `bear` for the style of BEAR's client."""
    guessable: tuple[str, ...] = ()
    """Which guessers that know no facts beat chance in the bank, a sentence each."""
    chance_exact_match: dict[str, float] = {}
    """Exact match of guessing, by probe type: drawing evenly from the answers of injected facts."""


class Study(Output, frozen=True, omit_defaults=True, kw_only=True):
    """summary.json. Sections without data are left out; those by model hold models that have data."""

    schema: int
    """The version of this format."""
    created: str
    """Date and time in UTC, ISO 8601."""
    scorer: str
    """The version of the scorer; figures of different versions may differ."""
    versions: dict[str, str] = {}
    """The versions of the packages that computed the figures."""
    bank: BankInfo | None = None
    """The bank that recall was measured on; null without recall."""
    models: tuple[ModelInfo, ...]
    """The models, in the order of the tables."""
    recall: dict[str, Summary] = {}
    """By model, group of facts, probe type and metric."""
    by_relation: dict[str, Summary] = {}
    """By model, group of facts, relation and metric."""
    corrected: dict[str, CorrectedSummary] = {}
    """Control-corrected figures by model, group of facts, probe type and name."""
    comparisons: tuple[Comparison, ...] = ()
    """Differences between two models."""
    dose_response: tuple[DosePoint, ...] = ()
    """Recall against exposures, for models that belong to a run with a plan."""
    heldout: dict[str, HeldoutEstimate] = {}
    """Bits per byte of held-out text, by model."""
    benchmarks: dict[str, dict[str, TaskResult]] = {}
    """By model, task (`probe:TASK` for a linear probe) and metric. A task also has `n`, its number of
    examples. If present, `n_too_long` is the number of further examples, left out because they are longer
    than the model's context. A task that failed has only `error`, one line."""
    prompts: dict[str, tuple[PromptResult, ...]] = {}
    """By model, in the order of the prompts."""


def build_study(
    measurements: Sequence[Measurement], request: StudyRequest, *, baseline: str | None = None
) -> Study:
    """The study of these models. `baseline` is the label of the model to compare the others with."""
    bank, seed = request.bank, request.seed
    with_recall = [measurement for measurement in measurements if measurement.results]
    results = {measurement.name.label: measurement.results for measurement in with_recall}
    documents = {
        measurement.name.label: measurement.documents for measurement in measurements if measurement.documents
    }
    runs = [measurement.name.run for measurement in with_recall if measurement.name.run is not None]
    doses = doses_of_facts(bank, runs) if bank is not None else None
    return Study(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scorer=SCORER_VERSION,
        versions=versions(),
        bank=None if bank is None else _bank_info(bank, request, results.values()),
        models=tuple(measurement.info for measurement in measurements),
        recall={label: summarise(of_model, doses=doses, seed=seed) for label, of_model in results.items()},
        by_relation={
            label: summarise(of_model, by="relation", doses=doses, seed=seed)
            for label, of_model in results.items()
        },
        corrected={
            label: summary
            for label, of_model in results.items()
            if (summary := corrected_summary(of_model, doses))
        },
        comparisons=tuple(
            compare_models(
                results,
                {measurement.name.label: measurement.info.tokenizer for measurement in with_recall},
                baseline=baseline,
                heldout=documents,
                doses=doses,
                seed=seed,
            )
        ),
        dose_response=tuple(_dose_response(with_recall, request)),
        heldout=_heldout(measurements, documents, request),
        benchmarks=_benchmarks(measurements, request),
        prompts={
            measurement.name.label: tuple(measurement.prompts)
            for measurement in measurements
            if measurement.prompts
        },
    )


def results_of(measurements: Sequence[Measurement]) -> list[ProbeResult]:
    """The results of all models, with their `model`."""
    return [
        replace(result, model=measurement.name.label)
        for measurement in measurements
        for result in measurement.results
    ]


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise UserError if a study cannot be written to `out`: a file, a folder in use, no permission."""
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
    study: Study,
    results: Sequence[ProbeResult],
    *,
    report: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write summary.json, results.jsonl and results.csv as a whole folder; `report` may write more into it.

    Raises UserError if another command has written results there since `check_out`, unless `overwrite` is
    set.
    """
    lines = [to_row(result) for result in results]
    with whole_folder(out, replace=overwrite) as folder:
        write_json(folder / SUMMARY, to_row(study))
        write_jsonl(folder / RESULTS, lines)
        write_whole(folder / TABLE, to_csv(lines))
        if report is not None:
            report(folder)


def read_study(folder: Path) -> Study:
    """Read the study in a folder of `write_study`; UserError for a file that is missing or damaged."""
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict):
        raise UserError(f"{folder / SUMMARY}: holds no study")
    return from_row(Study, summary, str(folder / SUMMARY))


def _bank_info(bank: FactBank, request: StudyRequest, results: Iterable[Sequence[ProbeResult]]) -> BankInfo:
    chance, style = chance_of(bank), request.style
    if style == BEAR_STYLE:  # which may offer more candidates than the bank
        shares = {1 / len(each.candidates) for of_model in results for each in of_model}
        chance = shares.pop() if len(shares) == 1 else None
    return BankInfo(
        name=bank.meta.get("name"),
        sha256=bank.sha256,
        n_facts=len(bank.facts),
        n_probes=len(bank.probes),
        chance=chance,
        flags=dict(Counter(flag for probe in bank.probes for flag in probe.flags)),
        style=style,
        guessable=tuple(request.guessable),
        chance_exact_match={} if style == BEAR_STYLE else exact_match_chance(bank),
    )


def _dose_response(measurements: Sequence[Measurement], request: StudyRequest) -> list[DosePoint]:
    points: list[DosePoint] = []
    for measurement in measurements:
        name = measurement.name
        if request.bank is None or name.run is None:
            continue
        exposures = exposures_until(name.run, name.step, request.bank)
        if exposures:
            points += dose_response(measurement.results, exposures, model=name.label, seed=request.seed)
    return points


def _heldout(
    measurements: Sequence[Measurement], documents: Mapping[str, Sequence[Any]], request: StudyRequest
) -> dict[str, HeldoutEstimate]:
    style, seed = request.heldout_style, request.seed
    estimates = {
        label: heldout_summary(scores, style=style, seed=seed) for label, scores in documents.items()
    }
    failed = {
        measurement.name.label: HeldoutEstimate(error=measurement.errors["heldout"])
        for measurement in measurements
        if "heldout" in measurement.errors
    }
    return estimates | failed


def _benchmarks(
    measurements: Sequence[Measurement], request: StudyRequest
) -> dict[str, dict[str, TaskResult]]:
    """The results of each model by task; if all of them failed, the error stands at every task."""
    tasks = [*request.benchmarks, *(f"probe:{task}" for task in request.linear_probes)]
    by_model: dict[str, dict[str, TaskResult]] = {}
    for measurement in measurements:
        error = measurement.errors.get("benchmarks")
        failed: dict[str, TaskResult] = {} if error is None else {task: {"error": error} for task in tasks}
        if results := failed | measurement.benchmarks:
            by_model[measurement.name.label] = results
    return by_model
