"""The curves of a run, as PNG files for its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tidy_stlms.configs.files import write_whole
from tidy_stlms.eval.recall.groups import CONTROL, INJECTED
from tidy_stlms.eval.report.draw import (
    CHANCE_LINE,
    as_png,
    hide_upper_spines,
    legend_label,
    literal_legend,
    new_figure,
)
from tidy_stlms.eval.report.palette import PROBE_COLOURS
from tidy_stlms.eval.report.run_summary import LogRow

STYLES = {INJECTED: "-", CONTROL: "--"}


def plot_loss(metrics: Sequence[LogRow], path: Path) -> None:
    """Training and validation loss over steps."""
    figure = new_figure((6.4, 3.6), "constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in metrics if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, markersize=4, label=label)
    _label(axes, "loss (nats per token)")
    axes.legend(frameon=False)
    _write(figure, path)


def plot_recall(
    metrics: Sequence[LogRow],
    exposure_steps: np.ndarray,
    path: Path,
    chance: float | None,
    treatments: Mapping[str, str],
) -> None:
    """Accuracy over steps, by probe type and role; grey bars count the exposures of each step.

    Args:
        metrics: Lines of metrics.jsonl.
        exposure_steps: The step of each exposure.
        treatments: The groups of injected facts with their keys in `metrics`, where facts were treated
            differently. Each probe type then has a panel, and each group a colour.
    """
    accuracy = ("accuracy", "accuracy among the candidates")
    figure, grid = _panels_by_type(metrics, [accuracy], treatments) if treatments else _one_panel()
    last_step = max((row["step"] for row in metrics), default=0)
    for number, axes in enumerate(grid[0]):
        if len(exposure_steps) and last_step > 0:
            _mark_injections(axes, exposure_steps, last_step, label=not number)
        if not treatments:
            _curves(axes, metrics, accuracy[0])
            _label(axes, accuracy[1])
        if chance is not None:
            label = None if number else "chance"
            axes.axhline(chance, label=label, **CHANCE_LINE)
        axes.set_ylim(-0.02, 1.02)
    literal_legend(figure, loc="outside right upper")
    _write(figure, path)


def plot_rank_and_bits(metrics: Sequence[LogRow], path: Path, treatments: Mapping[str, str]) -> None:
    """Rank of the answer among the candidates, and bits per byte of the answer, over steps; see
    `plot_recall`."""
    rank = ("candidate_rank", "rank of the answer (1 = first)")
    bits = ("bits_per_byte", "bits per byte of the answer")
    if treatments:
        figure, grid = _panels_by_type(metrics, [rank, bits], treatments)
        grid[0][0].invert_yaxis()
    else:
        figure = new_figure((9.6, 3.6), "constrained")
        left, right = figure.subplots(1, 2)
        _curves(left, metrics, rank[0])
        _label(left, rank[1])
        left.invert_yaxis()
        _curves(right, metrics, bits[0], label=False)
        _label(right, bits[1])
    literal_legend(figure, loc="outside right upper")
    _write(figure, path)


def _one_panel() -> tuple[Figure, list[list[Axes]]]:
    figure = new_figure((6.4, 4.0), "constrained")
    return figure, [[figure.subplots()]]


def _panels_by_type(
    metrics: Sequence[LogRow], shown: Sequence[tuple[str, str]], treatments: Mapping[str, str]
) -> tuple[Figure, list[list[Axes]]]:
    """A row of panels for each (metric, label of its axis), a panel for each probe type, and a curve for each
    treatment: the more exposures the darker. Control facts are dashed."""
    curves = [(CONTROL, CONTROL, "--", "0.45")]
    shades = matplotlib.colormaps["viridis"](np.linspace(0.9, 0.0, len(treatments)))
    curves += [
        (label, name, "-", shade) for (label, name), shade in zip(treatments.items(), shades, strict=True)
    ]
    probe_types = [
        probe_type
        for probe_type in PROBE_COLOURS
        if any(_points(metrics, name, probe_type, metric) for _, name, _, _ in curves for metric, _ in shown)
    ]
    figure = new_figure((2.6 + 2.3 * len(probe_types), 0.4 + 2.8 * len(shown)), "constrained")
    grid = figure.subplots(len(shown), len(probe_types), squeeze=False, sharex=True, sharey="row")
    in_legend: set[str] = set()
    for row, (metric, ylabel) in zip(grid, shown, strict=True):
        for axes, probe_type in zip(row, probe_types, strict=True):
            for label, name, style, colour in curves:
                if points := _points(metrics, name, probe_type, metric):
                    xs, ys = zip(*points, strict=True)
                    shown_label = None if label in in_legend else legend_label(label)
                    axes.plot(xs, ys, style, color=colour, linewidth=1.6, marker=".", label=shown_label)
                    in_legend.add(label)
            _label(axes, ylabel if probe_type == probe_types[0] else "")
            axes.set_title(probe_type, fontsize=10, loc="left")
    return figure, grid.tolist()


def _points(metrics: Sequence[LogRow], group: str, probe_type: str, metric: str) -> list[tuple[int, float]]:
    key = f"recall/{group}/{probe_type}/{metric}"
    return [(row["step"], row[key]) for row in metrics if key in row]


def _curves(axes: Axes, metrics: Sequence[LogRow], metric: str, label: bool = True) -> None:
    for role, style in STYLES.items():
        for probe_type, colour in PROBE_COLOURS.items():
            if points := _points(metrics, role, probe_type, metric):
                name = f"{role} {probe_type}" if label else None
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, linewidth=1.6, marker=".", label=name
                )


def _mark_injections(axes: Axes, exposure_steps: np.ndarray, last_step: int, label: bool) -> None:
    """Exposures in each of (at most) 100 bins, drawn behind the curves in a strip at the bottom."""
    counts, edges = np.histogram(exposure_steps + 1, bins=min(100, last_step), range=(0.5, last_step + 0.5))
    heights = counts / counts.max() * 0.06
    axes.bar(
        edges[:-1],
        heights,
        np.diff(edges),
        align="edge",
        color="0.85",
        zorder=0,
        label="exposures (relative)" if label else None,
    )


def _label(axes: Axes, ylabel: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    hide_upper_spines(axes)


def _write(figure: Figure, path: Path) -> None:
    write_whole(path, as_png(figure))
