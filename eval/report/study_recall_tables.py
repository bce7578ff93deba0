"""Tables of recall: by probe type, by relation, corrected by control facts, by the token."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.control import CorrectedEstimate, CorrectedSummary
from tidy_stlms.eval.recall.groups import ROLES, facts_in_words, in_order
from tidy_stlms.eval.recall.results import Summary
from tidy_stlms.eval.recall.statistics import LEVEL
from tidy_stlms.eval.report.cells import Cell, Column, StudyTable, count, estimated, label, mark_best
from tidy_stlms.eval.report.order import (
    CORRECTED,
    DIGITS,
    LOWER_IS_BETTER,
    NO_MERIT,
    SHOWN,
    TOKEN_METRICS,
    groups_of,
    models_of,
    ordered,
    rank_in,
    tokenizer_groups,
)
from tidy_stlms.eval.study.study import Study

MEANING = {
    "subject_shift": "Subject shift: log-probability of the wrong candidates beyond that of the same ones "
    "for control subjects; more where the name is familiar, less where the right answer took their share.",
    "binding": "Binding: the same of a subject’s own answer, minus the subject shift.",
    "answer_familiarity": "Answer familiarity: log-probability of injected answers beyond that of answers "
    "never read, both for control subjects.",
}
UNSURE = (
    "Intervals and p-values are of a t-test clustered by subject and control subject. "
    f"Grey: not significantly different from zero (p ≥ {LEVEL}, not corrected for the number of figures)."
)
EXPOSED = "Exposures are those in the run that the facts belong to; to other models these facts are new."


def overview_tables(study: Study) -> list[StudyTable]:
    """A table for each group of facts: metrics that may be compared between any models, by probe type."""
    column = Column("probe", numeric=False)
    return _recall_tables(study, study.recall, "recall", "Recall of {facts}", column, PROBE_TYPES)


def relation_tables(study: Study) -> list[StudyTable]:
    column = Column("relation", numeric=False)
    return _recall_tables(study, study.by_relation, "relations", "Recall by relation, {facts}", column)


def token_tables(study: Study) -> list[StudyTable]:
    """Perplexity, token rank and the like: a table for each tokenizer and group."""
    tables = []
    for tokenizer, models in tokenizer_groups(study).items():
        shared = {name: by_group for name, by_group in study.recall.items() if name in models}
        for number, group in enumerate(groups_of(shared), 1):
            table = _recall_table(
                study, shared, group, Column("probe", numeric=False), PROBE_TYPES, TOKEN_METRICS
            )
            if table:
                note = "Figures by the token: they hold among models of this tokenizer and nowhere else."
                title = f"Figures by the token, {facts_in_words(group)}, tokenizer {tokenizer}"
                key = f"tokens-{tokenizer}-{_key(group, number)}"
                tables.append(
                    replace(table, key=key, section="tokens", title=title, note=note, comparable=False)
                )
    return tables


def corrected_tables(study: Study) -> list[StudyTable]:
    """How much more models recall of injected facts than of control facts; in nats by tokenizer."""
    accuracy = _differences(study, study.corrected, ("accuracy_over_control",))
    tables = []
    if accuracy:
        title = "Accuracy of injected facts beyond that of control facts"
        tables.append(replace(accuracy, key="corrected-accuracy", title=title, note=UNSURE))
    for tokenizer, models in tokenizer_groups(study).items():
        shared = {name: study.corrected[name] for name in models if name in study.corrected}
        for parts in (("subject_shift", "binding"), ("answer_familiarity",)):
            names = [name for name in parts if _is_there(shared, name)]  # BEAR's style has no subject shift
            if table := _differences(study, shared, names):
                title = " and ".join(name.replace("_", " ") for name in names).capitalize()
                tables.append(
                    replace(
                        table,
                        key=f"corrected-{tokenizer}-{names[0]}",
                        title=f"{title}, tokenizer {tokenizer}",
                        note=" ".join([*(MEANING[name] for name in names), UNSURE]),
                        comparable=False,
                    )
                )
    return tables


def _is_there(summaries: Mapping[str, CorrectedSummary], name: str) -> bool:
    return any(
        name in figures
        for by_group in summaries.values()
        for by_type in by_group.values()
        for figures in by_type.values()
    )


def _recall_tables(
    study: Study,
    recall: Mapping[str, Summary],
    section: str,
    title: str,
    column: Column,
    order: Sequence[str] = (),
) -> list[StudyTable]:
    """A table for each group of facts; `recall` has the estimates by model."""
    tables = []
    for number, group in enumerate(groups_of(recall), 1):
        table = _recall_table(study, recall, group, column, order, SHOWN)
        if table:
            key, named = f"{section}-{_key(group, number)}", title.format(facts=facts_in_words(group))
            note = EXPOSED if group not in ROLES and len(models_of(study)) > 1 else ""
            tables.append(replace(table, key=key, section=section, title=named, note=note))
    return tables


def _key(group: str, number: int) -> str:
    """A group in the key of a table. A treatment has its number, as an arm's name may hold any character."""
    return group if group in ROLES else f"injected-{number}"


def _recall_table(
    study: Study,
    recall: Mapping[str, Summary],
    group: str,
    column: Column,
    order: Sequence[str],
    metrics: Mapping[str, str],
) -> StudyTable | None:
    """Rows by name (a probe type or a relation) and model, of one group of facts."""
    models = [model for model in models_of(study) if group in recall.get(model, {})]
    names = ordered((name for model in models for name in recall[model][group]), order)
    shown = [
        metric
        for metric in metrics
        if any(metric in recall[model][group].get(name, {}) for model in models for name in names)
    ]
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        by_model = {model: recall[model][group][name] for model in models if name in recall[model][group]}
        group_rows = [
            (
                label(name),
                label(model),
                *(estimated(estimates.get(metric), digits=DIGITS.get(metric, 2)) for metric in shown),
                count(max((estimate.n for estimate in estimates.values()), default=None)),
            )
            for model, estimates in by_model.items()
        ]
        if group not in NO_MERIT:
            for column_at, metric in enumerate(shown, 2):
                group_rows = mark_best(group_rows, column_at, metric in LOWER_IS_BETTER)
                group_rows = _judge_best(study, group_rows, column_at, (group, name, metric))
        rows += group_rows
    if not (rows and shown):
        return None
    columns = (
        column,
        Column("model", numeric=False),
        *(Column(metrics[metric], metric=metric) for metric in shown),
        Column("n", note="probes"),
    )
    return StudyTable("", "", "", columns, rows, n_labels=2, facts=group)


def _judge_best(
    study: Study, rows: list[tuple[Cell, ...]], column: int, measured_by: tuple[str, str, str]
) -> list[tuple[Cell, ...]]:
    """Set whether the best of a group is significantly different from every other model of it.

    `measured_by` is the (group of facts, probe type, metric) of the column.
    """
    p_values = {
        frozenset((comparison.a, comparison.b)): comparison.p_holm
        for comparison in study.comparisons
        if (comparison.role, comparison.type, comparison.metric) == measured_by
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


def _differences(
    study: Study, corrected: Mapping[str, CorrectedSummary], names: Sequence[str]
) -> StudyTable | None:
    """Rows by probe type, treatment where these differ, and model."""
    estimates_of = {
        (probe_type, group, model): estimates
        for model in models_of(study)
        for group, by_type in corrected.get(model, {}).items()
        for probe_type, estimates in by_type.items()
        if any(name in estimates for name in names)
    }
    if not estimates_of:
        return None
    groups = in_order(group for _, group, _ in estimates_of)
    models = models_of(study)
    is_split = not set(groups) <= set(ROLES)
    rows = [
        (
            label(probe_type),
            *([label(group)] if is_split else []),
            label(model),
            *(_against_zero(estimates_of[probe_type, group, model].get(name)) for name in names),
        )
        for probe_type, group, model in sorted(
            estimates_of,
            key=lambda key: (rank_in(PROBE_TYPES, key[0]), groups.index(key[1]), models.index(key[2])),
        )
    ]
    columns = (
        Column("probe", numeric=False),
        *([Column("facts", numeric=False)] if is_split else []),
        Column("model", numeric=False),
        *(Column(CORRECTED[name], metric=name) for name in names),
    )
    return StudyTable("", "corrected", "", columns, rows, n_labels=3 if is_split else 2)


def _against_zero(estimate: CorrectedEstimate | None) -> Cell:
    cell = estimated(estimate, signed=True)
    return cell if estimate is None else replace(cell, significant=estimate.p < LEVEL)
