"""The tables of a study (`stlm recall --out`, summary.json) as data, for terminal, Markdown and HTML.

Figures that depend on the tokenizer are only in tables whose models share one. To add a table, write a
function that makes `StudyTable`s from a study, and name it in `study_tables`.

for table in study_tables(read_json("results/comparison/summary.json")):
    print(table.title)
    print(table.markdown())
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidy_stlms.eval.recall.compare import is_comparable
from tidy_stlms.eval.recall.groups import CONTROL, in_order
from tidy_stlms.eval.recall.statistics import LEVEL
from tidy_stlms.eval.report.cells import (
    Cell,
    Column,
    StudyTable,
    count,
    label,
    mark_best,
    measured,
    number,
    p_value,
)
from tidy_stlms.eval.report.order import (
    DIGITS,
    LOWER_IS_BETTER,
    NAMES,
    NO_MERIT,
    TYPES,
    Study,
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
        entries = [entry for entry in _comparisons(study) if entry["metric"] == metric]
        if entries:
            title = f"Differences between models in {NAMES[metric]}"
            tables.append(_comparison_table(f"comparisons-{metric}", "comparisons", title, entries))
    return tables


def _comparisons(study: Study, heldout: bool = False) -> list[dict]:
    tokenizer = {model["model"]: model.get("tokenizer") for model in study["models"]}
    entries = [
        entry
        for entry in study.get("comparisons", [])
        if is_comparable(entry["metric"]) or tokenizer[entry["a"]] == tokenizer[entry["b"]]
        if (entry["role"] == "heldout") == heldout
    ]
    groups = in_order([*groups_of(study.get("recall", {})), *(entry["role"] for entry in entries)])
    return sorted(entries, key=lambda entry: (groups.index(entry["role"]), rank_in(TYPES, entry["type"])))


def _comparison_table(key: str, section: str, title: str, entries: list[dict]) -> StudyTable:
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
    comparable = is_comparable(entries[0]["metric"])
    rows = [_comparison_row(entry) for entry in entries]
    # models are in no group: a bold one must not be left out because the row above has it too
    return StudyTable(key, section, title, columns, rows, note, comparable, n_labels=4, n_groups=2)


def _comparison_row(entry: dict) -> tuple[Cell, ...]:
    p, metric = entry.get("p_holm"), entry["metric"]
    significant = p is not None and p < LEVEL
    digits = 3 if entry["role"] == "heldout" else DIGITS.get(metric, 2)
    difference = measured(entry, key="difference", signed=True, digits=digits)
    b_is_better = (entry["difference"] > 0) != (metric in LOWER_IS_BETTER)
    is_merit = entry["role"] not in NO_MERIT and metric != "subject_shift"
    winner = ("b" if b_is_better else "a") if significant and is_merit else None
    return (
        label(entry["role"]),
        label(entry["type"]),
        replace(label(entry["a"]), best=winner == "a"),
        replace(label(entry["b"]), best=winner == "b"),
        replace(difference, significant=significant),
        replace(p_value(p), significant=significant),
        count(entry.get("n")),
    )


def dose_tables(study: Study) -> list[StudyTable]:
    """Recall against the number of exposures; log-probabilities in a table for each tokenizer."""
    entries = study.get("dose_response", [])
    groups = tokenizer_groups(study)
    accuracy = [entry for entry in entries if is_comparable(entry["metric"])]
    tables = [_dose_table(study, "doses", "Recall against exposures", accuracy)] if accuracy else []
    for tokenizer, models in groups.items():
        by_token = [
            entry for entry in entries if not is_comparable(entry["metric"]) and entry["model"] in models
        ]
        if by_token:
            title = f"Log-probability against exposures, tokenizer {tokenizer}"
            tables.append(
                replace(_dose_table(study, f"doses-{tokenizer}", title, by_token), comparable=False)
            )
    return tables


def _dose_table(study: Study, key: str, title: str, entries: list[dict]) -> StudyTable:
    metrics = ordered((entry["metric"] for entry in entries), tuple(NAMES))
    models = models_of(study)
    rows_of: dict[tuple[str, str, bool, int, str], dict[str, dict]] = {}
    for entry in entries:
        role, exposures = entry["role"], entry["exposures"]
        row_key = (entry["type"], entry["model"], role != CONTROL, exposures, role)
        rows_of.setdefault(row_key, {})[entry["metric"]] = entry
    # control facts first within each probe type and model, then by exposures
    row_keys = sorted(rows_of, key=lambda key: (rank_in(TYPES, key[0]), rank_in(models, key[1]), key[2:]))
    rows = [
        (
            label(kind),
            label(model),
            label(role),
            count(exposures),
            *(measured(by_metric.get(metric)) for metric in metrics),
            count(max(entry["n"] for entry in by_metric.values())),
        )
        for kind, model, is_injected, exposures, role in row_keys
        if (by_metric := rows_of[kind, model, is_injected, exposures, role])
    ]
    columns = (
        Column("probe", numeric=False),
        Column("model", numeric=False),
        Column("facts", numeric=False, note="control facts, or the arm of injected ones"),
        Column("exposures"),
        *(Column(NAMES.get(metric, metric), metric=metric) for metric in metrics),
        Column("n", note="probes"),
    )
    note = (
        "Facts grouped by how often training showed them. Control facts are other people’s, and never shown."
    )
    return StudyTable(key, "doses", title, columns, rows, note, n_labels=3, n_groups=2)


def heldout_tables(study: Study) -> list[StudyTable]:
    """Bits per byte of held-out documents."""
    heldout = study.get("heldout", {})
    rows: list[tuple[Cell, ...]] = []
    for model in models_of(study):
        if (entry := heldout.get(model)) is None:
            continue
        bits = _failure(entry) or measured(entry, key="bits_per_byte", digits=3)
        rows.append((label(model), bits, count(entry.get("n_documents")), count(entry.get("n_bytes"))))
    if not rows:
        return []
    columns = (Column("model", numeric=False), Column("bits/byte"), Column("documents"), Column("bytes"))
    failures = [
        f"{model} failed: {entry['error']}."
        for model, entry in heldout.items()
        if entry.get("error") is not None
    ]
    note = " ".join(["Lower is better; resampled by document.", *failures])
    title = "Text that was held out"
    rows = mark_best(rows, 1, lower_is_better=True)
    tables = [StudyTable("heldout", "heldout", title, columns, rows, note)]
    if entries := _comparisons(study, heldout=True):
        title = "Differences between models in bits/byte of held-out text"
        tables.append(_comparison_table("heldout-differences", "heldout", title, entries))
    return tables


def benchmark_tables(study: Study) -> list[StudyTable]:
    """Public benchmarks and linear probes: a row for each task and metric, a column for each model."""
    results = study.get("benchmarks", {})
    models = [model for model in models_of(study) if model in results]
    tasks = list(dict.fromkeys(task for model in models for task in results[model]))
    rows = []
    for task in tasks:
        entries = {model: results[model].get(task, {}) for model in models}
        names = [name for entry in entries.values() for name, value in entry.items() if _is_score(value)]
        for name in dict.fromkeys(names or [""]):
            cells = tuple(_score(entries[model], name) for model in models)
            best = mark_best([(cell,) for cell in cells], 0, _lower_scores_win(name))
            rows.append((label(task), label(name), *(cell for (cell,) in best)))
    if not rows:
        return []
    columns = (
        Column("task", numeric=False),
        Column("metric", numeric=False),
        *(Column(model) for model in models),
    )
    note = "± one standard error where the task gives one; bold: the best, whether or not by chance."
    failures = [
        f"{task} failed on {model}: {entry['error']}."
        for model in models
        for task, entry in results[model].items()
        if entry.get("error") is not None
    ]
    note = " ".join([note, *failures])
    return [StudyTable("benchmarks", "benchmarks", "Benchmarks", columns, rows, note, n_labels=2)]


def model_tables(study: Study) -> list[StudyTable]:
    """What was measured, on what, and what failed."""
    rows = [
        (
            label(model["model"], note=str(model.get("path") or "")),
            count(model.get("parameters")),
            count(model.get("step")),
            label(model.get("tokenizer")),
            label(" ".join(str(model[key]) for key in ("device", "dtype") if model.get(key))),
            _decimal(model.get("probes_per_second")),
            label(", ".join(f"{flag} {n:,}" for flag, n in (model.get("flags") or {}).items())),
            label(model.get("error")),
        )
        for model in study["models"]
    ]
    columns = (
        Column("model", numeric=False),
        Column("parameters"),
        Column("step"),
        Column("tokenizer", numeric=False, note="models with the same one may be compared by the token"),
        Column("device", numeric=False),
        Column("probes/s"),
        Column("flagged probes", numeric=False, note="docs/recall.md says what the flags mean"),
        Column("failed with", numeric=False),
    )
    full = [at for at in range(len(columns)) if at == 0 or any(row[at].figure for row in rows)]  # not empty
    return [
        StudyTable(
            "models",
            "models",
            "The models",
            tuple(columns[at] for at in full),
            [tuple(row[at] for at in full) for row in rows],
        )
    ]


def _failure(entry: Mapping[str, Any]) -> Cell | None:
    error = entry.get("error")
    return Cell("failed", note=str(error)) if error is not None else None


def _is_score(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _lower_scores_win(metric: str) -> bool:
    return any(word in metric for word in ("perplexity", "bits_per_byte", "brier", "loss"))


def _score(entry: Mapping[str, Any], metric: str) -> Cell:
    if failure := _failure(entry):
        return failure
    score = entry.get(metric)
    if score is None or score["value"] is None:
        return Cell("")
    error = score.get("stderr")
    return Cell(
        number(score["value"], 3),
        f"±{number(error, 3)}" if error is not None else "",
        value=score["value"],
        low=score["value"] - error if error is not None else None,
        high=score["value"] + error if error is not None else None,
        note=f"n = {entry['n']:,}" if entry.get("n") is not None else "",
    )


def _decimal(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(number(value, 1 if value < 100 else 0), value=value)
