"""What the figures of a study show, as data: drawn as PNG by `study_plots`, as SVG by `study_svg`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.study_cells import number
from eval.report.study_groups import NAMES, WITHIN_TOKENIZER, Study, models_of, ordered, place, roles_of
from eval.report.tables import TYPES

BAR_METRICS = ("accuracy", "exact_match")


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
    """The models on one probe type; beside each what its control facts do, where that is known."""

    kind: str
    role: str
    bars: list[tuple[str, Mark, Mark | None]]  # (model, mark, control)


@dataclass(frozen=True)
class BarFigure:
    key: str
    caption: str
    axis: Axis
    panels: list[BarPanel]
    chance: float | None


@dataclass(frozen=True)
class Line:
    kind: str
    role: str
    marks: list[Mark]


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
SHOWN_NEXT_TO = {"injected": "control"}  # whose figures stand beside those of a role


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
            for role in roles_of(recall)
            for kind in ordered((kind for model in models for kind in recall[model].get(role, {})), TYPES)
            if (panel := _bar_panel(recall, models, role, kind, metric))
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
    recall: Mapping[str, Any], models: Sequence[str], role: str, kind: str, metric: str
) -> BarPanel | None:
    partners = {partner: owner for owner, partner in SHOWN_NEXT_TO.items()}
    bars = []
    for model in models:
        by_role = recall[model]
        if role in partners and kind in by_role.get(partners[role], {}):
            continue  # drawn beside its partner
        if entry := by_role.get(role, {}).get(kind, {}).get(metric):
            beside = by_role.get(SHOWN_NEXT_TO.get(role), {}).get(kind, {}).get(metric)
            control = _mark(beside, f"{model}, {kind}, {SHOWN_NEXT_TO[role]} facts") if beside else None
            bars.append((model, _mark(entry, f"{model}, {kind}, {role} facts"), control))
    return BarPanel(kind, role, bars) if bars else None


def step_figures(study: Study) -> list[LineFigure]:
    """Accuracy over training steps: a panel for each run of which two or more checkpoints were asked."""
    recall = study.get("recall", {})
    panels = []
    for run, checkpoints in _checkpoints(study).items():
        lines: dict[tuple[str, str], list[Mark]] = {}
        for step, model in checkpoints:
            for role, by_kind in recall[model].items():
                for kind, metrics in by_kind.items():
                    if role in ("injected", "control") and "accuracy" in metrics:
                        title = f"step {step:,}, {kind}, {role} facts"
                        lines.setdefault((role, kind), []).append(_mark(metrics["accuracy"], title, step))
        if lines:
            panels.append(LinePanel(run, _sorted_lines(lines)))
    if not panels:
        return []
    steps = [mark.x for panel in panels for line in panel.lines for mark in line.marks]
    caption = "Accuracy over training steps, with 95% intervals: injected facts solid, control facts dashed."
    x = Axis("training step", *_whole_range([0, *steps]))
    return [LineFigure("steps", caption, x, Axis("accuracy", 0, 1, SHARE), panels, _chance(study))]


def dose_figures(study: Study) -> list[LineFigure]:
    """Recall against exposures, on a logarithmic axis: a panel for each model."""
    shown = _last_of_each_run(study)
    entries = [entry for entry in study.get("dose_response", []) if entry["model"] in shown]
    figures = []
    for metric in ordered((entry["metric"] for entry in entries), tuple(NAMES)):
        own = [entry for entry in entries if entry["metric"] == metric]
        axis, positions = _exposure_axis(entry["exposures"] for entry in own)
        panels = []
        for model in ordered((entry["model"] for entry in own), shown):
            lines: dict[tuple[str, str], list[Mark]] = {}
            for entry in sorted(own, key=lambda entry: entry["exposures"]):
                if entry["model"] == model:
                    title = f"{entry['exposures']:,} exposures, {entry['type']}"
                    mark = _mark(entry, title, positions[entry["exposures"]])
                    lines.setdefault(("injected", entry["type"]), []).append(mark)
            panels.append(LinePanel(model, _sorted_lines(lines)))
        caption = f"{NAMES[metric].capitalize()} against exposures in training, with 95% intervals."
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


def section_of(figure: BarFigure | LineFigure) -> str:
    """The section of the report that a figure belongs to."""
    return "recall" if isinstance(figure, BarFigure) else figure.key.partition("-")[0]


def legend_of(figure: BarFigure | LineFigure) -> list[str]:
    """The probe types that the lines of a figure stand for; bars are labelled where they stand."""
    if isinstance(figure, BarFigure):
        return []
    return ordered((line.kind for panel in figure.panels for line in panel.lines), TYPES)


def short_name(name: str, longest: int = 34) -> str:
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
    keys = sorted(lines, key=lambda key: (key[0] != "control", place(key[1], TYPES)))
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


def _exposure_axis(exposures: Iterable[int]) -> tuple[Axis, dict[int, float]]:
    """A logarithmic axis and each count's place on it; a count of zero stands one step to the left."""
    counts = sorted(set(exposures))
    logs = [math.log2(count) for count in counts if count > 0] or [0.0]
    gap = max(1.0, (logs[-1] - logs[0]) / 6)
    positions = {count: math.log2(count) if count > 0 else logs[0] - gap for count in counts}
    places = list(positions.values())
    margin = 0.04 * (places[-1] - places[0]) or 1.0
    ticks, last = [], -math.inf
    for count, position in positions.items():  # ticks that would touch the one before are left out
        if position - last >= 0.08 * (places[-1] - places[0] + 2 * margin):
            ticks.append((position, f"{count:,}"))
            last = position
    axis = Axis("exposures (log scale)", places[0] - margin, places[-1] + margin, tuple(ticks))
    return axis, positions
