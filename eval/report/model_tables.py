"""Tables of what the models of a study are, how they were asked, and what the self-check found."""

from tidy_stlms.eval.report.cells import Cell, Column, StudyTable, count, label, number
from tidy_stlms.eval.study.request import ModelInfo
from tidy_stlms.eval.study.study import Study

NOTE_ON_PREFIX = (
    "Prefix: the special token before each text. A model that is not asked as in training may know more than "
    "its figures show."
)
SELF_CHECK = {
    "lookahead": "earlier tokens, when the last one is another",
    "padding": "with padding in front, against without",
    "shared_prompt": "an answer after a cached prompt, against both in one pass",
    "generation": "generation with the cache, against without",
}
NOTE_ON_SELF_CHECK = (
    "; ".join(f"{name.replace('_', ' ')}: {what}" for name, what in SELF_CHECK.items())
    + ". Largest differences on two short texts, divided by the largest logit if that is above 1. Rounding "
    "gives about 1e-6 in float32, 1e-2 in bfloat16. no: the model’s code fails at this, or gives no number."
)


def model_tables(study: Study) -> list[StudyTable]:
    """What was measured, on what, and what failed."""
    rows = [
        (
            label(info.model, note=info.path),
            count(info.parameters),
            count(info.step),
            label(info.tokenizer),
            label(f"{info.device} {info.dtype}"),
            label(info.attention),
            label(info.packing),
            _prefix_cell(info),
            _decimal(info.probes_per_second),
            label(", ".join(f"{flag} {n:,}" for flag, n in (info.flags or {}).items())),
            label(info.error),
        )
        for info in study.models
    ]
    columns = (
        Column("model", numeric=False),
        Column("parameters"),
        Column("step"),
        Column("tokenizer", numeric=False, note="models with the same one may be compared by the token"),
        Column("device", numeric=False),
        Column("attention", numeric=False),
        Column("packing", numeric=False, note="how documents of a row were read in training"),
        Column("prefix", numeric=False, note="the special token before each text"),
        Column("probes/s"),
        Column("flagged probes", numeric=False, note="docs/recall.md says what the flags mean"),
        Column("failed with", numeric=False),
    )
    # a column without any figure is left out
    filled = [index for index in range(len(columns)) if index == 0 or any(row[index].figure for row in rows)]
    return [
        StudyTable(
            "models",
            "models",
            "The models",
            tuple(columns[index] for index in filled),
            [tuple(row[index] for index in filled) for row in rows],
            NOTE_ON_PREFIX if any(info.prefix_as_trained is False for info in study.models) else "",
        ),
        *_self_check_tables(study),
    ]


def _prefix_cell(info: ModelInfo) -> Cell:
    words = {True: "as in training", False: "not as in training"}
    shown = " (not as in training)" if info.prefix_as_trained is False else ""
    note = words.get(info.prefix_as_trained, "") if info.prefix_as_trained is not None else ""
    return label(f"{info.prefix}{shown}" if info.prefix else None, note=note)


def _self_check_tables(study: Study) -> list[StudyTable]:
    """What the self-check found, for models that were loaded."""
    rows = [
        (label(info.model), *(_difference(getattr(info.self_check, name)) for name in SELF_CHECK))
        for info in study.models
        if info.self_check is not None
    ]
    columns = (
        Column("model", numeric=False),
        *(Column(name.replace("_", " "), note=note) for name, note in SELF_CHECK.items()),
    )
    title = "Self-check: differences of logits that should be equal"
    return [StudyTable("self_check", "models", title, columns, rows, NOTE_ON_SELF_CHECK)] if rows else []


def _difference(value: float | None) -> Cell:
    return Cell("no") if value is None else Cell(f"{value:.0e}" if value else "0", value=value)


def _decimal(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(number(value, 1 if value < 100 else 0), value=value)
