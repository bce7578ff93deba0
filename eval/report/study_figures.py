"""The data behind a study's figures. `draw.py` draws them, for the page and for report.md.

To add a figure, write a function that makes a `StudyFigure` from a study, and call it in `figures_of`. Report
and page then show it in its section.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.recall.compare import is_comparable
from tidy_stlms.eval.recall.exposures import DosePoint
from tidy_stlms.eval.recall.groups import CONTROL, INJECTED, facts_in_words, is_injected
from tidy_stlms.eval.recall.results import Estimate, Summary
from tidy_stlms.eval.report.cells import number
from tidy_stlms.eval.report.order import (
    NAMES,
    groups_of,
    models_of,
    ordered,
    rank_in,
)
from tidy_stlms.eval.report.panels import (
    LONGEST_NAME,
    Axis,
    Bar,
    BarPanel,
    Line,
    LinePanel,
    Mark,
    StudyFigure,
    Ticks,
    short_name,
)
from tidy_stlms.eval.study.study import Study

BAR_METRICS = ("accuracy", "exact_match")

SHARE: Ticks = tuple((tick / 4, text) for tick, text in enumerate(("0", ".25", ".5", ".75", "1")))


def figures_of(study: Study) -> list[StudyFigure]:
    """All figures that the study has data for."""
    return [*bar_figures(study), *step_figures(study), *dose_figures(study)]


# ---- bars -----------------------------------------------------------------------------------------------


def bar_figures(study: Study) -> list[StudyFigure]:
    """A figure for each metric, with a panel for each probe type and a bar for each model.

    If several checkpoints of a run were measured, only the last has a bar.
    """
    recall = study.recall
    models = [model for model in _last_of_each_run(study) if model in recall]
    figures = []
    for metric in BAR_METRICS:
        panels = [
            panel
            for group in groups_of(recall)
            for probe_type in ordered(
                (probe_type for model in models for probe_type in recall[model].get(group, {})), PROBE_TYPES
            )
            if (panel := _bar_panel(recall, models, group, probe_type, metric))
        ]
        if panels:
            name = NAMES[metric].capitalize()
            caption = f"{name} by model and probe type, with 95% intervals."
            if any(bar.control for panel in panels for bar in panel.bars):
                caption += " The thin grey bar is what the same model scores on control facts."
            x, chance = Axis(name, 0, 1, SHARE), _chance(study) if metric == "accuracy" else None
            figures.append(StudyFigure(f"bars-{metric}", "recall", caption, x, None, panels, chance))
    return figures


def _bar_panel(
    recall: Mapping[str, Summary], models: Sequence[str], group: str, probe_type: str, metric: str
) -> BarPanel | None:
    bars = []
    for model in models:
        by_group = recall[model]
        if group == CONTROL and any(
            is_injected(other) and probe_type in by_group[other] for other in by_group
        ):
            continue  # drawn beside injected facts
        if estimate := by_group.get(group, {}).get(probe_type, {}).get(metric):
            on_control = (
                by_group.get(CONTROL, {}).get(probe_type, {}).get(metric) if is_injected(group) else None
            )
            control = _mark(on_control, f"{model}, {probe_type}, {CONTROL} facts") if on_control else None
            bars.append(
                Bar(model, _mark(estimate, f"{model}, {probe_type}, {facts_in_words(group)}"), control)
            )
    return BarPanel(probe_type, group, bars) if bars else None


# ---- lines over training steps --------------------------------------------------------------------------


def step_figures(study: Study) -> list[StudyFigure]:
    """Accuracy over training steps: a panel for each run of which two or more checkpoints were measured, or
    for each treatment of its facts."""
    groups = [group for group in groups_of(study.recall) if is_injected(group)] or [INJECTED]
    runs = _checkpoints(study)
    panels = [
        LinePanel(_steps_title(run, group, len(runs)), lines)
        for run, checkpoints in runs.items()
        for group in groups
        if (lines := _step_lines(study.recall, checkpoints, group))
    ]
    if not panels:
        return []
    steps = [mark.x for panel in panels for line in panel.lines for mark in line.marks]
    caption = "Accuracy over training steps, with 95% intervals: injected facts solid, control facts dashed."
    x, y = Axis("training step", *_whole_range([0, *steps])), Axis("accuracy", 0, 1, SHARE)
    return [StudyFigure("steps", "steps", caption, x, y, panels, _chance(study))]


def _step_lines(
    recall: Mapping[str, Summary], checkpoints: Sequence[tuple[int, str]], group: str
) -> list[Line]:
    lines: dict[tuple[str, str], list[Mark]] = {}
    for step, model in checkpoints:
        for role in (group, CONTROL):
            for probe_type, metrics in recall[model].get(role, {}).items():
                if "accuracy" in metrics:
                    title = f"step {step:,}, {probe_type}, {facts_in_words(role)}"
                    lines.setdefault((role, probe_type), []).append(_mark(metrics["accuracy"], title, step))
    return _sorted_lines(lines)


def _steps_title(run: str, group: str, n_runs: int) -> str:
    if group == INJECTED:
        return run
    return group if n_runs == 1 else f"{short_name(run, max(8, LONGEST_NAME - 2 - len(group)))}: {group}"


# ---- lines against exposures ----------------------------------------------------------------------------


def dose_figures(study: Study) -> list[StudyFigure]:
    """Recall against exposures, on a logarithmic axis: a panel for each model, control facts at the left."""
    models = _last_of_each_run(study)
    points = [point for point in study.dose_response if point.model in models]
    return [
        _dose_figure(
            [point for point in points if point.metric == metric],
            metric,
            models,
            _chance(study) if metric == "accuracy" else None,
        )
        for metric in ordered((point.metric for point in points), tuple(NAMES))
    ]


def _dose_figure(
    points: Sequence[DosePoint], metric: str, models: Sequence[str], chance: float | None
) -> StudyFigure:
    x, positions = _exposure_axis({CONTROL if point.role == CONTROL else point.exposures for point in points})
    panels = [
        LinePanel(model, _dose_lines([point for point in points if point.model == model], positions))
        for model in ordered((point.model for point in points), models)
    ]
    caption = f"{NAMES[metric].capitalize()} against exposures in training, with 95% intervals."
    if any(point.role == CONTROL for point in points):
        caption += " Hollow: control facts, which have other subjects and were never shown."
    if is_comparable(metric):
        y = Axis(NAMES[metric], 0, 1, SHARE)
    else:
        caption += " Log-probabilities are to be compared within one tokenizer only."
        values = [value for point in points for value in (point.mean, point.low, point.high)]
        y = Axis(f"{NAMES[metric]} (nats)", *_whole_range(values))
    return StudyFigure(f"doses-{metric}", "doses", caption, x, y, panels, chance)


def _dose_lines(points: Sequence[DosePoint], positions: Mapping[int | str, float]) -> list[Line]:
    """One line for each probe type of a model. Its marks are joined unless two groups have equal exposures;
    control facts are never joined."""
    probe_types = ordered((point.type for point in points), PROBE_TYPES)
    # control facts share one position: their probe types stand a little apart from each other
    offset = 0.015 * (max(positions.values()) - min(positions.values()))
    lines: dict[tuple[str, str], list[Mark]] = {}
    for point in sorted(points, key=lambda point: point.exposures):
        is_control = point.role == CONTROL
        if is_control:
            facts = facts_in_words(CONTROL)
            x = positions[CONTROL] + offset * (probe_types.index(point.type) - (len(probe_types) - 1) / 2)
        else:
            facts = f"{point.role}, {point.exposures:,} exposures"
            x = positions[point.exposures]
        mark = _mark(point, f"{facts}, {point.type}, n = {point.n:,}", x)
        lines.setdefault((CONTROL if is_control else INJECTED, point.type), []).append(mark)
    return [
        replace(line, joined=line.role != CONTROL and len({mark.x for mark in line.marks}) == len(line.marks))
        for line in _sorted_lines(lines)
    ]


def _exposure_axis(exposures: Iterable[int | str]) -> tuple[Axis, dict[int | str, float]]:
    """A logarithmic axis and each count's position on it. A count of zero stands one step to the left of the
    others, and control facts, "control", one further."""
    columns = set(exposures)
    counts = sorted(count for count in columns if isinstance(count, int))
    logs = [math.log2(count) for count in counts if count > 0] or [0.0]
    gap = max(1.0, (logs[-1] - logs[0]) / 6)
    positions: dict[int | str, float] = {}
    if CONTROL in columns:
        positions[CONTROL] = (logs[0] - gap if 0 in columns else logs[0]) - gap
    positions |= {count: math.log2(count) if count > 0 else logs[0] - gap for count in counts}
    first, *_ = positions.values()
    *_, last = positions.values()
    margin = 0.04 * (last - first) or 1.0
    ticks, tick_before = [], -math.inf
    for count, position in positions.items():  # ticks that would touch the one before are left out
        if position - tick_before >= 0.08 * (last - first + 2 * margin):
            ticks.append((position, f"{count:,}" if isinstance(count, int) else count))
            tick_before = position
    return Axis("exposures (log scale)", first - margin, last + margin, tuple(ticks)), positions


# ---- for all --------------------------------------------------------------------------------------------


def _chance(study: Study) -> float | None:
    return None if study.bank is None else study.bank.chance


def _last_of_each_run(study: Study) -> list[str]:
    """All models, but only the last checkpoint of each run: the others are in the run's curve."""
    earlier = {model for points in _checkpoints(study).values() for _, model in points[:-1]}
    return [model for model in models_of(study) if model not in earlier]


def _checkpoints(study: Study) -> dict[str, list[tuple[int, str]]]:
    """`{run: [(step, model), ...]}` for runs with two or more measured checkpoints, in order of steps."""
    runs: dict[str, list[tuple[int, str]]] = {}
    for info in study.models:
        if info.model in study.recall and info.run is not None and info.step is not None:
            runs.setdefault(info.run, []).append((info.step, info.model))
    return {run: sorted(points) for run, points in runs.items() if len({step for step, _ in points}) > 1}


def _sorted_lines(lines: Mapping[tuple[str, str], list[Mark]]) -> list[Line]:
    """Control first, so that injected facts are drawn over it."""
    keys = sorted(lines, key=lambda key: (key[0] != CONTROL, rank_in(PROBE_TYPES, key[1])))
    return [Line(probe_type, role, lines[role, probe_type]) for role, probe_type in keys]


def _mark(estimate: Estimate | DosePoint, name: str, x: float = 0.0) -> Mark:
    mean, low, high = estimate.mean, estimate.low, estimate.high
    return Mark(mean, low, high, f"{name}: {number(mean)} [{number(low)}, {number(high)}]", x)


def _whole_range(values: Sequence[float]) -> tuple[float, float, Ticks]:
    """An axis of round steps around the values: its ends and its ticks."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, -math.floor(math.log10(step)))
    ticks = tuple((tick * step, number(tick * step, digits)) for tick in range(first, last + 1))
    return first * step, last * step, ticks
