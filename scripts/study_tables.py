"""A study on the terminal: tables with the models as columns, or as lists where there is no room for that.

Bold is the best of a row; grey is what may well be chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import UnsetType
from rich.text import Text

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.recall.groups import is_injected
from tidy_stlms.eval.recall.statistics import LEVEL
from tidy_stlms.eval.report.cells import Cell, StudyTable, label
from tidy_stlms.eval.report.study_recall_tables import corrected_tables, overview_tables
from tidy_stlms.eval.report.study_tables import (
    benchmark_tables,
    comparison_tables,
    dose_tables,
    heldout_tables,
)
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.eval.study.study import Study
from tidy_stlms.scripts.tables import fits, print_recall_table, print_rows, row_table
from tidy_stlms.scripts.terminal import Terminal, literal

SHOWN_STEPS = 3  # of what is said after a prompt
MOST_DIFFERENCES = 24  # rows of comparisons or doses; more are a matter for the report
SHOWN_DIFFERENCES = ("accuracy", "accuracy_over_control")


def print_study(console: Terminal, study: Study, bank: FactBank | None, baseline: str | None) -> None:
    """Print the results of a study, section by section."""
    recalled = list(study.recall)
    if len(recalled) == 1:
        from tidy_stlms.eval.report.run_table import recall_table

        recall = recall_table(study.recall[recalled[0]])
        print_recall_table(console, recall, f"Recall of {recalled[0]}")
    elif recalled:
        _print_overview(console, study, baseline)
    if recalled and bank is not None:
        console.print(_guide(study, bank))
    if flags := _flags(study):
        console.print(f"Flags of probes: {flags}")
    for table in corrected_tables(study):
        _print_corrected(console, table)
    _print_doses(console, study)
    _print_differences(console, study)
    for table in (*heldout_tables(study), *benchmark_tables(study)):
        _print_table(console, table)
        console.print(table.note, style="dim")
    _print_prompts(console, study)


def _guide(study: Study, bank: FactBank) -> str:
    """How the figures of recall are read."""
    from tidy_stlms.eval.report.run_in_words import reading_guide
    from tidy_stlms.eval.report.study_content import style_in_words

    return style_in_words(study) or reading_guide(bank)


@dataclass(frozen=True)
class _PivotRow:
    """A metric under its labels, such as the probe type, and the cell of each model."""

    labels: tuple[str, ...]
    metric: str
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Pivot:
    """A table of one row a model, turned round: one column a model, one row a metric."""

    models: tuple[str, ...]
    rows: list[_PivotRow]


def _pivot(table: StudyTable) -> _Pivot:
    """The last label of `table` is the model."""
    at_model = table.n_labels - 1
    rows_of: dict[tuple[str, ...], dict[str, tuple[Cell, ...]]] = {}
    for row in table.rows:
        labels = tuple(cell.figure for cell in row[:at_model])
        rows_of.setdefault(labels, {})[row[at_model].figure] = row
    models = tuple(dict.fromkeys(row[at_model].figure for row in table.rows))
    pivot_rows = []
    for labels, row_of in rows_of.items():
        for at, column in enumerate(table.columns):
            if column.metric is None:
                continue
            cells = tuple(row_of[model][at] if model in row_of else label("") for model in models)
            if any(cell.figure for cell in cells):
                pivot_rows.append(_PivotRow(labels, column.metric, column.name, cells))
    return _Pivot(models, pivot_rows)


def _print_overview(console: Terminal, study: Study, baseline: str | None) -> None:
    for table in overview_tables(study):
        pivot = _pivot(table)
        if baseline in pivot.models:
            rows = [_greyed(study, pivot.models, table.facts, baseline, row) for row in pivot.rows]
            pivot = replace(pivot, rows=rows)
        _print(console, table.title, pivot)
    if baseline is not None:
        grey = f"not significantly different from {baseline}"
    else:
        grey = "best, but not significantly above every other model"
    words = f"Bold: best of the row. Grey: {grey} (paired permutation test by subject, Holm, p ≥ {LEVEL})."
    console.print(words, style="dim")


def _greyed(
    study: Study, models: Sequence[str], facts: str | None, baseline: str | None, row: _PivotRow
) -> _PivotRow:
    """The row of a probe type, with those figures greyed that may be equal to the baseline's."""
    (probe_type,) = row.labels
    p_values = {
        comparison.b: comparison.p_holm
        for comparison in study.comparisons
        if comparison.a == baseline
        and (comparison.role, comparison.type, comparison.metric) == (facts, probe_type, row.metric)
    }
    cells = tuple(
        replace(cell, significant=p_values[model] < LEVEL if model in p_values else None)
        for model, cell in zip(models, row.cells, strict=True)
    )
    return replace(row, cells=cells)


def _print_corrected(console: Terminal, table: StudyTable) -> None:
    is_titled = sum(column.metric is not None for column in table.columns) == 1
    _print(console, table.title, _pivot(table), is_titled)
    console.print(table.note, style="dim")


def _print(console: Terminal, title: str, pivot: _Pivot, is_titled: bool = False) -> None:
    """With intervals where there is room for them, else without. `is_titled`: the title names the only
    metric."""
    header = ["", *([] if is_titled else [""]), *_short(pivot.models)]
    n_labels = len(header) - len(pivot.models)
    for shown in (pivot, _without_intervals(pivot)):
        rows: list[list[Text]] = []
        labels_before = None
        for row in shown.rows:
            group = "" if row.labels == labels_before else ", ".join(row.labels)
            rows.append([*map(literal, [group, row.name][:n_labels]), *map(_text, row.cells)])
            labels_before = row.labels
        if fits(console, row_table(title, header, rows, n_labels)):
            break
    print_rows(console, title, header, rows, n_labels)


def _without_intervals(pivot: _Pivot) -> _Pivot:
    rows = [replace(row, cells=tuple(replace(cell, interval="") for cell in row.cells)) for row in pivot.rows]
    return replace(pivot, rows=rows)


def _short(models: Sequence[str]) -> list[str]:
    """The models' labels, without the folder if all stand in the same one."""
    folders = {model.rpartition("/")[0] for model in models}
    return [model.rpartition("/")[2] for model in models] if len(folders) == 1 else list(models)


def _print_differences(console: Terminal, study: Study) -> None:
    tables = comparison_tables(study, SHOWN_DIFFERENCES)
    if sum(len(table.rows) for table in tables) > MOST_DIFFERENCES:
        n = f"{len(study.comparisons):,}"
        words = f"{n} differences between models: see the report of --out, or name a --baseline."
        console.print(words)
        return
    for table in tables:
        _print_table(console, table)


def _print_doses(console: Terminal, study: Study) -> None:
    """Recall against exposures, where injected facts were shown more or less often."""
    if len({point.exposures for point in study.dose_response if is_injected(point.role)}) < 2:
        return
    table = dose_tables(study)[0]
    if len(table.rows) > MOST_DIFFERENCES:
        console.print("Recall against exposures: see the report of --out.")
        return
    _print_table(console, table)


def _print_table(console: Terminal, table: StudyTable) -> None:
    rows = [tuple(_text(cell) for cell in row) for row in table.rows]
    print_rows(console, table.title, table.header, rows, table.n_labels)


def _flags(study: Study) -> str:
    """Flags of probes, of the bank and of the models' tokenizers, counted."""
    counts = study.bank.flags if study.bank is not None else {}
    counts_by_model: dict[str, list[str]] = {}
    for info in study.models:
        for flag, n in (info.flags or {}).items():
            if flag not in counts:
                counts_by_model.setdefault(flag, []).append(
                    f"{n:,}" if len(study.models) == 1 else f"{n:,} of {info.model}"
                )
    parts = [f"{flag} {n:,}" for flag, n in counts.items()]
    return "; ".join([*parts, *(f"{flag} {', '.join(each)}" for flag, each in counts_by_model.items())])


def _print_prompts(console: Terminal, study: Study) -> None:
    n_prompts = max(map(len, study.prompts.values()), default=0)
    for number in range(n_prompts):
        results = {model: of_model[number] for model, of_model in study.prompts.items()}
        first = next(iter(results.values()))
        right = f"  [{first.answer}]" if first.answer is not None else ""
        console.print(f"\n{first.sentence} ...{right}", style="bold")
        for model, result in results.items():
            console.print(f"  {model}: {result.generation!r}{_rating(result)}")
            for at, top in enumerate(result.top_tokens[:SHOWN_STEPS], 1):
                tokens = "  ".join(f"{text!r} {p:.3f}" for text, p in top)
                console.print(f"    {at}  {tokens}", style="dim")


def _rating(result: PromptResult) -> str:
    if isinstance(result.answer_token_ranks, UnsetType) or isinstance(result.answer_perplexity, UnsetType):
        return ""
    ranks = ", ".join(f"{rank:g}" for rank in result.answer_token_ranks)
    return f"; the answer's tokens rank {ranks}, its perplexity is {result.answer_perplexity:,.2f}"


def _text(cell: Cell) -> Text:
    style = " ".join(["bold"] * cell.best + ["dim"] * (cell.significant is False))
    return literal(cell.text, style)
