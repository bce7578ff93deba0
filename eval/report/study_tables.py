"""The tables of a study (`stlm recall --out`, summary.json) as data, for terminal, Markdown and HTML.

Figures that depend on the tokenizer are only in tables whose models share one. To add a table, write a
function that makes `StudyTable`s from a study, and name it in `study_tables`.

for table in study_tables(read_study("results/comparison")):
    print(table.title)
    print(table.markdown())
"""

from collections.abc import Sequence
from dataclasses import replace

from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.compare import HELDOUT_ROLE, Comparison, is_comparable
from tidy_stlms.eval.recall.exposures import DosePoint
from tidy_stlms.eval.recall.groups import CONTROL, in_order
from tidy_stlms.eval.recall.statistics import LEVEL
from tidy_stlms.eval.report.cells import (
    Cell,
    Column,
    StudyTable,
    count,
    estimated,
    label,
    mark_best,
    measured,
    number,
    p_value,
    sample_size,
)
from tidy_stlms.eval.report.model_tables import model_tables
from tidy_stlms.eval.report.order import (
    DIGITS,
    LOWER_IS_BETTER,
    NAMES,
    NO_MERIT,
    groups_of,
    models_of,
    ordered,
    rank_in,
    tokenizer_groups,
)
from tidy_stlms.eval.report.study_recall_tables import (
    corrected_tables,
    overview_tables,
    relation_tables,
    token_tables,
)
from tidy_stlms.eval.study.benchmarks import TOO_LONG, Score, TaskResult
from tidy_stlms.eval.study.study import Study
from tidy_stlms.eval.styles import ROLLING

COMPARED = (
    "accuracy",
    "accuracy_over_control",
    "exact_match",
    "candidate_rank",
    "bits_per_byte",
    "logprob",
    "binding",
    "subject_shift",
    "answer_familiarity",
)  # the study compares more figures, too many for a page


def study_tables(study: Study) -> list[StudyTable]:
    """All tables that the study has data for, in reading order."""
    makers = (
        overview_tables,
        corrected_tables,
        comparison_tables,
        relation_tables,
        dose_tables,
        heldout_tables,
        benchmark_tables,
        token_tables,
        model_tables,
    )
    return [table for make in makers for table in make(study)]


def comparison_tables(study: Study, metrics: Sequence[str] = COMPARED) -> list[StudyTable]:
    """Paired differences between models, a table for each of the metrics."""
    tables = []
    for metric in metrics:
        comparisons = [comparison for comparison in _comparisons(study) if comparison.metric == metric]
        if comparisons:
            title = f"Differences between models in {NAMES[metric]}"
            tables.append(_comparison_table(f"comparisons-{metric}", "comparisons", title, comparisons))
    return tables


def _comparisons(study: Study, heldout: bool = False) -> list[Comparison]:
    tokenizer = {info.model: info.tokenizer for info in study.models}
    comparisons = [
        comparison
        for comparison in study.comparisons
        if is_comparable(comparison.metric) or tokenizer[comparison.a] == tokenizer[comparison.b]
        if (comparison.role == HELDOUT_ROLE) == heldout
    ]
    groups = in_order([*groups_of(study.recall), *(comparison.role for comparison in comparisons)])
    return sorted(comparisons, key=lambda each: (groups.index(each.role), rank_in(PROBE_TYPES, each.type)))


def _comparison_table(key: str, section: str, title: str, comparisons: Sequence[Comparison]) -> StudyTable:
    columns = (
        Column("role", numeric=False),
        Column("probe", numeric=False),
        Column("A", numeric=False),
        Column("B", numeric=False),
        Column("B − A", note="paired over the same probes"),
        Column("p", note="corrected for the number of comparisons (Holm)"),
        Column("n", note="probes"),
    )
    note = (
        "Paired over the same probes; p after Holm’s correction. "
        f"Grey: p of {LEVEL} or more. Bold: the better model of a pair, where it is not grey."
    )
    comparable = is_comparable(comparisons[0].metric)
    rows = [_comparison_row(comparison) for comparison in comparisons]
    # models are not among the groups: a bold one must not be left out because the row above has it too
    return StudyTable(key, section, title, columns, rows, note, comparable, n_labels=4, n_groups=2)


def _comparison_row(comparison: Comparison) -> tuple[Cell, ...]:
    metric, significant = comparison.metric, comparison.p_holm < LEVEL
    difference = measured(
        comparison.difference,
        comparison.low,
        comparison.high,
        digits=3 if comparison.role == HELDOUT_ROLE else DIGITS.get(metric, 2),
        signed=True,
        note=sample_size(comparison.n),
    )
    b_is_better = (comparison.difference > 0) != (metric in LOWER_IS_BETTER)
    is_merit = comparison.role not in NO_MERIT and metric != "subject_shift"
    winner = ("b" if b_is_better else "a") if significant and is_merit else None
    return (
        label(comparison.role),
        label(comparison.type),
        replace(label(comparison.a), best=winner == "a"),
        replace(label(comparison.b), best=winner == "b"),
        replace(difference, significant=significant),
        replace(p_value(comparison.p_holm), significant=significant),
        count(comparison.n),
    )


def dose_tables(study: Study) -> list[StudyTable]:
    """Recall against the number of exposures; log-probabilities in a table for each tokenizer."""
    points = study.dose_response
    accuracy = [point for point in points if is_comparable(point.metric)]
    tables = [_dose_table(study, "doses", "Recall against exposures", accuracy)] if accuracy else []
    for tokenizer, models in tokenizer_groups(study).items():
        by_token = [point for point in points if not is_comparable(point.metric) and point.model in models]
        if by_token:
            title = f"Log-probability against exposures, tokenizer {tokenizer}"
            tables.append(
                replace(_dose_table(study, f"doses-{tokenizer}", title, by_token), comparable=False)
            )
    return tables


def _dose_table(study: Study, key: str, title: str, points: Sequence[DosePoint]) -> StudyTable:
    metrics = ordered((point.metric for point in points), tuple(NAMES))
    models = models_of(study)
    points_of: dict[tuple[str, str, bool, int, str], dict[str, DosePoint]] = {}  # of each row, by metric
    for point in points:
        row_key = (point.type, point.model, point.role != CONTROL, point.exposures, point.role)
        points_of.setdefault(row_key, {})[point.metric] = point
    # control facts first within each probe type and model, then by exposures
    row_keys = sorted(
        points_of, key=lambda key: (rank_in(PROBE_TYPES, key[0]), rank_in(models, key[1]), key[2:])
    )
    rows = [
        (
            label(probe_type),
            label(model),
            label(role),
            count(exposures),
            *(estimated(by_metric.get(metric)) for metric in metrics),
            count(max(point.n for point in by_metric.values())),
        )
        for probe_type, model, is_injected, exposures, role in row_keys
        if (by_metric := points_of[probe_type, model, is_injected, exposures, role])
    ]
    columns = (
        Column("probe", numeric=False),
        Column("model", numeric=False),
        Column("facts", numeric=False, note="control facts, or the arm of injected ones"),
        Column("exposures"),
        *(Column(NAMES.get(metric, metric), metric=metric) for metric in metrics),
        Column("n", note="probes"),
    )
    note = "Facts grouped by how often training showed them. Control facts have other subjects, never shown."
    return StudyTable(key, "doses", title, columns, rows, note, n_labels=3, n_groups=2)


def heldout_tables(study: Study) -> list[StudyTable]:
    """Bits per byte of held-out documents."""
    rows: list[tuple[Cell, ...]] = []
    for model in models_of(study):
        if (estimate := study.heldout.get(model)) is None:
            continue
        bits = measured(estimate.bits_per_byte, estimate.low, estimate.high, digits=3)
        if estimate.error is not None:
            bits = _failure(estimate.error)
        rows.append((label(model), bits, count(estimate.n_documents), count(estimate.n_bytes)))
    if not rows:
        return []
    columns = (Column("model", numeric=False), Column("bits/byte"), Column("documents"), Column("bytes"))
    failures = [
        f"{model} failed: {estimate.error}."
        for model, estimate in study.heldout.items()
        if estimate.error is not None
    ]
    rolling = any(estimate.style == ROLLING for estimate in study.heldout.values())
    how = "Windows roll as in lm-eval." if rolling else "Windows of long documents overlap by half."
    note = " ".join(["Lower is better; resampled by document.", how, *failures])
    title = "Text that was held out"
    rows = mark_best(rows, 1, lower_is_better=True)
    tables = [StudyTable("heldout", "heldout", title, columns, rows, note)]
    if comparisons := _comparisons(study, heldout=True):
        title = "Differences between models in bits/byte of held-out text"
        tables.append(_comparison_table("heldout-differences", "heldout", title, comparisons))
    return tables


def benchmark_tables(study: Study) -> list[StudyTable]:
    """Public benchmarks and linear probes: a row for each task and metric, a column for each model."""
    models = [model for model in models_of(study) if model in study.benchmarks]
    tasks = list(dict.fromkeys(task for model in models for task in study.benchmarks[model]))
    rows = []
    for task in tasks:
        results = [study.benchmarks[model].get(task, {}) for model in models]
        names = [name for result in results for name, value in result.items() if isinstance(value, Score)]
        for name in dict.fromkeys(names or [""]):
            cells = tuple(_score(result, name) for result in results)
            if not any(
                TOO_LONG in result for result in results
            ):  # means over different examples cannot be compared
                marked = mark_best([(cell,) for cell in cells], 0, _lower_scores_win(name))
                cells = tuple(cell for (cell,) in marked)
            rows.append((label(task), label(name), *cells))
    if not rows:
        return []
    columns = (
        Column("task", numeric=False),
        Column("metric", numeric=False),
        *(Column(model) for model in models),
    )
    note = (
        "± one standard error where the task gives one; bold: the best, whether or not by chance, unless "
        "examples are left out."
    )
    failures = [
        f"{task} failed on {model}: {result['error']}."
        for model in models
        for task, result in study.benchmarks[model].items()
        if "error" in result
    ]
    left_out = [
        f"{task} on {model}: {result[TOO_LONG]:,} examples are longer than the model's context and left out, "
        f"{result['n']:,} count."
        for model in models
        for task, result in study.benchmarks[model].items()
        if TOO_LONG in result
    ]
    note = " ".join([note, *left_out, *failures])
    return [StudyTable("benchmarks", "benchmarks", "Benchmarks", columns, rows, note, n_labels=2)]


def _failure(error: str) -> Cell:
    return Cell("failed", note=error)


def _lower_scores_win(metric: str) -> bool:
    return any(word in metric for word in ("perplexity", "bits_per_byte", "brier", "loss"))


def _score(result: TaskResult, metric: str) -> Cell:
    """A metric's cell; empty if the task was not run, or its metric has no value."""
    if "error" in result:
        return _failure(str(result["error"]))
    score, n = result.get(metric), result.get("n")
    if not isinstance(score, Score) or score.value is None:
        return Cell("")
    return Cell(
        number(score.value, 3),
        f"±{number(score.stderr, 3)}" if score.stderr is not None else "",
        value=score.value,
        low=score.value - score.stderr if score.stderr is not None else None,
        high=score.value + score.stderr if score.stderr is not None else None,
        note=sample_size(n) if isinstance(n, int) else "",
    )
