"""What models recall, as tables: by probe type, relation and arm, beyond control facts, by the token."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.report.study_cells import Cell, Column, StudyTable, count, label, mark_best, measured
from eval.report.study_groups import (
    CORRECTED,
    DIGITS,
    JUDGED,
    LEVEL,
    LOWER_IS_BETTER,
    TOKEN_METRICS,
    Study,
    models_of,
    ordered,
    roles_of,
    tokenizer_groups,
)
from eval.report.tables import SHOWN, TYPES

MEANING = {
    "binding": "Binding: the log-probability of a subject’s own answer beyond that of the same answer for "
    "control subjects.",
    "familiarity": "Familiarity: the log-probability of injected answers beyond that of answers never read, "
    "both for control subjects.",
}


def overview_tables(study: Study) -> list[StudyTable]:
    """One table a role: figures that may be compared between any models, by probe type."""
    return _recall_tables(
        study, "recall", "recall", "Recall of {role} facts", Column("probe", numeric=False), TYPES
    )


def relation_tables(study: Study) -> list[StudyTable]:
    column = Column("relation", numeric=False)
    return _recall_tables(study, "by_relation", "relations", "Recall by relation, {role} facts", column)


def arm_tables(study: Study) -> list[StudyTable]:
    column = Column("arm", numeric=False)
    return _recall_tables(study, "by_arm", "arms", "Recall by arm, {role} facts", column, leave_out=("none",))


def token_tables(study: Study) -> list[StudyTable]:
    """Perplexity, token rank and the like: a table for each tokenizer and role."""
    tables = []
    for tokenizer, models in tokenizer_groups(study).items():
        shared = {name: by_role for name, by_role in study.get("recall", {}).items() if name in models}
        for role in roles_of(shared):
            table = _recall_table(
                study, shared, role, Column("probe", numeric=False), TYPES, TOKEN_METRICS, ()
            )
            if table:
                note = "Figures by the token: they hold among models of this tokenizer and nowhere else."
                title = f"Figures by the token, {role} facts, tokenizer {tokenizer}"
                key = f"tokens-{tokenizer}-{role}"
                tables.append(
                    replace(table, key=key, section="tokens", title=title, note=note, comparable=False)
                )
    return tables


def corrected_tables(study: Study) -> list[StudyTable]:
    """What injected facts have beyond control facts; the split of the gain in nats by tokenizer."""
    corrected = study.get("corrected", {})
    note = f"Grey: not significantly different from zero (Welch’s t-test over subjects, p ≥ {LEVEL})."
    accuracy = _differences(study, corrected, ("accuracy_over_control",))
    tables = []
    if accuracy:
        title = "Accuracy of injected facts beyond that of control facts"
        tables.append(replace(accuracy, key="corrected-accuracy", title=title, note=note))
    for tokenizer, models in tokenizer_groups(study).items():
        table = _differences(
            study, {name: corrected[name] for name in models if name in corrected}, tuple(MEANING)
        )
        if table:
            shown = [name for name in MEANING if CORRECTED[name] in table.header]
            title = f"{' and '.join(shown).capitalize()}, tokenizer {tokenizer}"
            words = " ".join([*(MEANING[name] for name in shown), note])
            key = f"corrected-{tokenizer}"
            tables.append(replace(table, key=key, title=title, note=words, comparable=False))
    return tables


def _recall_tables(
    study: Study,
    source: str,
    section: str,
    title: str,
    group: Column,
    order: Sequence[str] = (),
    leave_out: Sequence[str] = (),
) -> list[StudyTable]:
    recall = study.get(source, {})
    tables = []
    for role in roles_of(recall):
        table = _recall_table(study, recall, role, group, order, SHOWN, leave_out)
        if table:
            named = replace(table, key=f"{section}-{role}", section=section, title=title.format(role=role))
            tables.append(named)
    return tables


def _recall_table(
    study: Study,
    recall: Mapping[str, Any],
    role: str,
    group: Column,
    order: Sequence[str],
    metrics: Mapping[str, str],
    leave_out: Sequence[str],
) -> StudyTable | None:
    """`{model: {role: {group: {metric: entry}}}}` as rows by group and model."""
    models = [model for model in models_of(study) if role in recall.get(model, {})]
    groups = ordered((name for model in models for name in recall[model][role]), order)
    groups = [name for name in groups if name not in leave_out]
    shown = [
        metric
        for metric in metrics
        if any(metric in recall[model][role].get(name, {}) for model in models for name in groups)
    ]
    rows: list[tuple[Cell, ...]] = []
    for name in groups:
        entries = {model: recall[model][role][name] for model in models if name in recall[model][role]}
        own = [
            (
                label(name),
                label(model),
                *(measured(entry.get(metric), digits=DIGITS.get(metric, 2)) for metric in shown),
                count(max((figure["n"] for figure in entry.values()), default=None)),
            )
            for model, entry in entries.items()
        ]
        if role in JUDGED:
            for column, metric in enumerate(shown, 2):
                own = mark_best(own, column, metric in LOWER_IS_BETTER)
                own = _judge_best(study, own, column, (role, name, metric))
        rows += own
    if not (rows and shown):
        return None
    columns = (
        group,
        Column("model", numeric=False),
        *(Column(metrics[metric]) for metric in shown),
        Column("n", note="probes"),
    )
    return StudyTable("", "", "", columns, rows, n_labels=2)


def _judge_best(
    study: Study, rows: list[tuple[Cell, ...]], column: int, asked: tuple[str, str, str]
) -> list[tuple[Cell, ...]]:
    """Say of a group's best whether the comparisons tell it from every other model of the group."""
    p_values = {
        frozenset((entry["a"], entry["b"])): entry.get("p_holm")
        for entry in study.get("comparisons", [])
        if (entry["role"], entry["type"], entry["metric"]) == asked
    }
    winners = [row[1].figure for row in rows if row[column].best]
    others = [row[1].figure for row in rows if row[column].figure and not row[column].best]
    tested = [p_values.get(frozenset((winner, other))) for winner in winners for other in others]
    if any(p is not None and p >= LEVEL for p in tested):
        verdict = False
    elif tested and all(p is not None for p in tested):
        verdict = True
    else:
        return rows
    return [
        (*row[:column], replace(row[column], significant=verdict), *row[column + 1 :])
        if row[column].best
        else row
        for row in rows
    ]


def _differences(study: Study, corrected: Mapping[str, Any], names: Sequence[str]) -> StudyTable | None:
    models = [model for model in models_of(study) if model in corrected]
    kinds = ordered((kind for model in models for kind in corrected[model]), TYPES)
    shown = [
        name
        for name in names
        if any(entry.get(name) for model in models for entry in corrected[model].values())
    ]
    if not shown:
        return None
    rows = [
        (label(kind), label(model), *(_unlike_zero(corrected[model][kind].get(name)) for name in shown))
        for kind in kinds
        for model in models
        if any(corrected[model].get(kind, {}).get(name) for name in shown)
    ]
    columns = (
        Column("probe", numeric=False),
        Column("model", numeric=False),
        *(Column(CORRECTED[name]) for name in shown),
    )
    return StudyTable("", "corrected", "", columns, rows, n_labels=2)


def _unlike_zero(entry: Mapping[str, Any] | None) -> Cell:
    return replace(measured(entry, signed=True), significant=entry["p"] < LEVEL if entry else None)
