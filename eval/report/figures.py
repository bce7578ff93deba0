"""The data behind a study's figures: drawn as PNG by `study_plots`, as SVG by `study_svg`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidy_stlms.eval.recall.groups import CONTROL, INJECTED, facts_in_words, is_injected
from tidy_stlms.eval.report.cells import number
from tidy_stlms.eval.report.order import NAMES, WITHIN_TOKENIZER, Study, groups_of, models_of, ordered, place
from tidy_stlms.eval.report.run_table import TYPES

BAR_METRICS = ("accuracy", "exact_match")
LONGEST_NAME = 34  # letters above a panel


@dataclass(frozen=True)
class Axis:
    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]  # (position, text)

    def share(self, value: float) -> float:
        """Where a value stands on the axis, 0 to 1; beyond the ends it stands at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Mark:
    """A mean with its interval, at a place of the x axis where there is one."""

    mean: float
    low: float
    high: float
    title: str
    x: float = 0.0


@dataclass(frozen=True)
class BarPanel:
    """The models on one probe type of one group of facts; beside each what its control facts do, where
    that is known."""

    kind: str
    role: str
    bars: list[tuple[str, Mark, Mark | None]]  # (model, mark, control)

    @property
    def title(self) -> str:
        if self.role == INJECTED:
            return self.kind
        return f"{self.kind}, {self.role if is_injected(self.role) else facts_in_words(self.role)}"


@dataclass(frozen=True)
class BarFigure:
    key: str
    caption: str
    axis: Axis
    panels: list[BarPanel]
    chance: float | None


@dataclass(frozen=True)
class Line:
    """A probe type of one group of facts. Marks that are not `joined` are of other facts each."""

    kind: str
    role: str
    marks: list[Mark]
    joined: bool = True

    @property
    def is_hollow(self) -> bool:
        """Control facts beside a curve of injected ones."""
        return self.role == CONTROL and not self.joined


@dataclass(frozen=True)
class LinePanel:
    title: str
    lines: list[Line]


@dataclass(frozen=True)
class LineFigure:
    key: str
    caption: str
    x: Axis
    y: Axis
    panels: list[LinePanel]
    chance: float | None


SHARE = tuple((tick / 4, text) for tick, text in enumerate(("0", ".25", ".5", ".75", "1")))


def figures_of(study: Study) -> list[BarFigure | LineFigure]:
    """All figures that the study has data for."""
    return [*bar_figures(study), *step_figures(study), *dose_figures(study)]


def bar_figures(study: Study) -> list[BarFigure]:
    """By metric: a panel for each probe type, a bar for each model. Of a run's checkpoints the last."""
    recall = study.get("recall", {})
    models = [model for model in _last_of_each_run(study) if model in recall]
    figures = []
    for metric in BAR_METRICS:
        panels = [
            panel
            for group in groups_of(recall)
            for kind in ordered((kind for model in models for kind in recall[model].get(group, {})), TYPES)
            if (panel := _bar_panel(recall, models, group, kind, metric))
        ]
        if panels:
            name = NAMES[metric].capitalize()
            caption = f"{name} by model and probe type, with 95% intervals."
            if any(control for panel in panels for _, _, control in panel.bars):
                caption += " The thin grey bar is what the same model scores on control facts."
            chance = _chance(study) if metric == "accuracy" else None
            figures.append(BarFigure(f"bars-{metric}", caption, Axis(name, 0, 1, SHARE), panels, chance))
    return figures


def _bar_panel(
    recall: Mapping[str, Any], models: Sequence[str], group: str, kind: str, metric: str
) -> BarPanel | None:
    bars = []
    for model in models:
        by_group = recall[model]
        if group == CONTROL and any(is_injected(other) and kind in by_group[other] for other in by_group):
            continue  # drawn beside injected facts
        if entry := by_group.get(group, {}).get(kind, {}).get(metric):
            beside = by_group.get(CONTROL, {}).get(kind, {}).get(metric) if is_injected(group) else None
            control = _mark(beside, f"{model}, {kind}, {CONTROL} facts") if beside else None
            bars.append((model, _mark(entry, f"{model}, {kind}, {facts_in_words(group)}"), control))
    return BarPanel(kind, group, bars) if bars else None


def step_figures(study: Study) -> list[LineFigure]:
    """Accuracy over training steps: a panel for each run of which two or more checkpoints were asked, or for
    each treatment of its facts."""
    recall = study.get("recall", {})
    groups = [group for group in groups_of(recall) if is_injected(group)] or [INJECTED]
    panels = []
    runs = _checkpoints(study)
    for run, checkpoints in runs.items():
        for group in groups:
            lines: dict[tuple[str, str], list[Mark]] = {}
            for step, model in checkpoints:
                for role in (group, CONTROL):
                    for kind, metrics in recall[model].get(role, {}).items():
                        if "accuracy" in metrics:
                            title = f"step {step:,}, {kind}, {facts_in_words(role)}"
                            lines.setdefault((role, kind), []).append(_mark(metrics["accuracy"], title, step))
            if lines:
                panels.append(LinePanel(_steps_title(run, group, len(runs)), _sorted_lines(lines)))
    if not panels:
        return []
    steps = [mark.x for panel in panels for line in panel.lines for mark in line.marks]
    caption = "Accuracy over training steps, with 95% intervals: injected facts solid, control facts dashed."
    x = Axis("training step", *_whole_range([0, *steps]))
    return [LineFigure("steps", caption, x, Axis("accuracy", 0, 1, SHARE), panels, _chance(study))]


def _steps_title(run: str, group: str, n_runs: int) -> str:
    if group == INJECTED:
        return run
    return group if n_runs == 1 else f"{short_name(run, max(8, LONGEST_NAME - 2 - len(group)))}: {group}"


def dose_figures(study: Study) -> list[LineFigure]:
    """Recall against exposures, on a logarithmic axis: a panel for each model, control facts at the left."""
    shown = _last_of_each_run(study)
    entries = [entry for entry in study.get("dose_response", []) if entry["model"] in shown]
    figures = []
    for metric in ordered((entry["metric"] for entry in entries), tuple(NAMES)):
        own = [entry for entry in entries if entry["metric"] == metric]
        axis, positions = _exposure_axis(
            {CONTROL if entry["role"] == CONTROL else entry["exposures"] for entry in own}
        )
        panels = [
            LinePanel(model, _dose_lines([entry for entry in own if entry["model"] == model], positions))
            for model in ordered((entry["model"] for entry in own), shown)
        ]
        caption = f"{NAMES[metric].capitalize()} against exposures in training, with 95% intervals."
        if any(entry["role"] == CONTROL for entry in own):
            caption += " Hollow: control facts, which are other people’s and were never shown."
        if metric in WITHIN_TOKENIZER:
            caption += " Log-probabilities are to be compared within one tokenizer only."
            lows = [entry[key] for entry in own for key in ("mean", "low") if entry.get(key) is not None]
            highs = [entry[key] for entry in own for key in ("mean", "high") if entry.get(key) is not None]
            y = Axis(f"{NAMES[metric]} (nats)", *_whole_range([*lows, *highs]))
        else:
            y = Axis(NAMES[metric], 0, 1, SHARE)
        chance = _chance(study) if metric == "accuracy" else None
        figures.append(LineFigure(f"doses-{metric}", caption, axis, y, panels, chance))
    return figures


def _dose_lines(entries: Sequence[Mapping[str, Any]], positions: Mapping[int | str, float]) -> list[Line]:
    """One line for each probe type of a model. Its marks are joined unless two groups have equal exposures;
    control facts are never joined."""
    kinds = ordered((entry["type"] for entry in entries), TYPES)
    apart = 0.015 * (max(positions.values()) - min(positions.values()))  # of types of control facts
    lines: dict[tuple[str, str], list[Mark]] = {}
    for entry in sorted(entries, key=lambda entry: entry["exposures"]):
        control = entry["role"] == CONTROL
        if control:
            facts = facts_in_words(CONTROL)
            x = positions[CONTROL] + apart * (kinds.index(entry["type"]) - (len(kinds) - 1) / 2)
        else:
            facts = f"{entry['role']}, {entry['exposures']:,} exposures"
            x = positions[entry["exposures"]]
        mark = _mark(entry, f"{facts}, {entry['type']}, n = {entry['n']:,}", x)
        lines.setdefault((CONTROL if control else INJECTED, entry["type"]), []).append(mark)
    return [
        replace(line, joined=line.role != CONTROL and len({mark.x for mark in line.marks}) == len(line.marks))
        for line in _sorted_lines(lines)
    ]


def section_of(figure: BarFigure | LineFigure) -> str:
    """The section of the report that a figure belongs to."""
    return "recall" if isinstance(figure, BarFigure) else figure.key.partition("-")[0]


def legend_of(figure: BarFigure | LineFigure) -> list[str]:
    """The probe types that the lines of a figure stand for; bars are labelled where they stand."""
    if isinstance(figure, BarFigure):
        return []
    return ordered((line.kind for panel in figure.panels for line in panel.lines), TYPES)


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that fits: its middle left out, as beginning and end tell models apart."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    tail = (longest - 1) * 3 // 5
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def _chance(study: Study) -> float | None:
    return study.get("bank", {}).get("chance")


def _last_of_each_run(study: Study) -> list[str]:
    """All models, but of the checkpoints of one run only the last: the others stand in its curve."""
    earlier = {model for points in _checkpoints(study).values() for _, model in points[:-1]}
    return [model for model in models_of(study) if model not in earlier]


def _checkpoints(study: Study) -> dict[str, list[tuple[int, str]]]:
    """`{run: [(step, model), ...]}` for runs with two or more measured checkpoints, in order of steps."""
    runs: dict[str, list[tuple[int, str]]] = {}
    for model in study["models"]:
        measured = model["model"] in study.get("recall", {})
        if measured and model.get("run") is not None and model.get("step") is not None:
            runs.setdefault(model["run"], []).append((model["step"], model["model"]))
    return {run: sorted(points) for run, points in runs.items() if len({step for step, _ in points}) > 1}


def _sorted_lines(lines: Mapping[tuple[str, str], list[Mark]]) -> list[Line]:
    """Control first, so that injected facts are drawn over it."""
    keys = sorted(lines, key=lambda key: (key[0] != CONTROL, place(key[1], TYPES)))
    return [Line(kind, role, lines[role, kind]) for role, kind in keys]


def _mark(entry: Mapping[str, Any], name: str, x: float = 0.0) -> Mark:
    mean = entry["mean"]
    low, high = (mean if entry.get(end) is None else entry[end] for end in ("low", "high"))
    return Mark(mean, low, high, f"{name}: {number(mean)} [{number(low)}, {number(high)}]", x)


def _whole_range(values: Sequence[float]) -> tuple[float, float, tuple[tuple[float, str], ...]]:
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


def _exposure_axis(exposures: Iterable[int | str]) -> tuple[Axis, dict[int | str, float]]:
    """A logarithmic axis and each count's place on it. A count of zero stands one step to the left of the
    others, and control facts, "control", one further."""
    found = set(exposures)
    counts = sorted(count for count in found if isinstance(count, int))
    logs = [math.log2(count) for count in counts if count > 0] or [0.0]
    gap = max(1.0, (logs[-1] - logs[0]) / 6)
    positions: dict[int | str, float] = {}
    if CONTROL in found:
        positions[CONTROL] = (logs[0] - gap if 0 in found else logs[0]) - gap
    positions |= {count: math.log2(count) if count > 0 else logs[0] - gap for count in counts}
    places = list(positions.values())
    margin = 0.04 * (places[-1] - places[0]) or 1.0
    ticks, last = [], -math.inf
    for count, position in positions.items():  # ticks that would touch the one before are left out
        if position - last >= 0.08 * (places[-1] - places[0] + 2 * margin):
            ticks.append((position, f"{count:,}" if isinstance(count, int) else count))
            last = position
    axis = Axis("exposures (log scale)", places[0] - margin, places[-1] + margin, tuple(ticks))
    return axis, positions
