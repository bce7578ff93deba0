"""The curves of a run, as PNG files for its report."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

COLOURS = {
    "memorization": "#0072B2",
    "syntactic": "#009E73",
    "semantic": "#D55E00",
    "inferential": "#CC79A7",
    "compositional": "#E69F00",
    "reversal": "#56B4E9",
    "locality": "#555555",
}  # Okabe and Ito's palette: told apart by colour-blind readers too
STYLES = {"injected": "-", "control": "--"}


def plot_loss(metrics: Sequence[dict], path: Path) -> None:
    """Training and validation loss over steps."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in metrics if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, markersize=4, label=label)
    _finish(axes, "loss (nats per token)")
    axes.legend(frameon=False)
    _save(figure, path)


def plot_recall(
    metrics: Sequence[dict], exposure_steps: np.ndarray, path: Path, chance: float | None
) -> None:
    """Accuracy over steps, by probe type and role; grey bars count the exposures of each step."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    if len(exposure_steps):
        _mark_injections(axes, exposure_steps, max(row["step"] for row in metrics))
    _curves(axes, metrics, "accuracy")
    if chance is not None:
        axes.axhline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set_ylim(-0.02, 1.02)
    _finish(axes, "accuracy among the candidates")
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    _save(figure, path)


def plot_rank_and_bits(metrics: Sequence[dict], path: Path) -> None:
    """Rank of the answer among the candidates, and bits per byte of the answer, over steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    _curves(left, metrics, "candidate_rank")
    _finish(left, "rank of the answer (1 = first)")
    left.invert_yaxis()
    _curves(right, metrics, "bits_per_byte", label=False)
    _finish(right, "bits per byte of the answer")
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    _save(figure, path)


def _curves(axes: Axes, metrics: Sequence[dict], metric: str, label: bool = True) -> None:
    for role, style in STYLES.items():
        for kind, colour in COLOURS.items():
            key = f"recall/{role}/{kind}/{metric}"
            points = [(row["step"], row[key]) for row in metrics if key in row]
            if points:
                name = f"{role} {kind}" if label else None
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, linewidth=1.6, marker=".", label=name
                )


def _mark_injections(axes: Axes, exposure_steps: np.ndarray, last_step: int) -> None:
    """Exposures in each of (at most) 100 bins, drawn behind the curves in a strip at the foot."""
    counts, edges = np.histogram(exposure_steps + 1, bins=min(100, last_step), range=(0.5, last_step + 0.5))
    heights = counts / counts.max() * 0.06
    axes.bar(
        edges[:-1],
        heights,
        np.diff(edges),
        align="edge",
        color="0.85",
        zorder=0,
        label="exposures (relative)",
    )


def _finish(axes: Axes, ylabel: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
