"""The figures of a run, with names of arms that mean something to matplotlib."""

import warnings

import numpy as np
import pytest

from tidy_stlms.eval.report.draw import legend_label, literal_legend, new_figure
from tidy_stlms.eval.report.run_figures import plot_rank_and_bits, plot_recall


@pytest.mark.parametrize("arm", ["$x^$", "_once", "\x1b[31m\u202e", "a\nb", "\\frac{"])
def test_an_arm_is_named_in_the_legend_as_it_is(arm, tmp_path):
    metrics = [
        {"step": step, f"recall/{arm}/semantic/{metric}": 0.5}
        for step in (0, 1)
        for metric in ("accuracy", "candidate_rank", "bits_per_byte")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_recall(metrics, np.array([0]), tmp_path / "recall.png", 0.1, {f"arm {arm}": arm, arm: arm})
        plot_rank_and_bits(metrics, tmp_path / "rank.png", {arm: arm})
    assert (tmp_path / "rank.png").read_bytes()[:4] == b"\x89PNG"
    figure = new_figure((2, 2))
    figure.subplots().plot([0, 1], label=legend_label(arm))
    literal_legend(figure)
    (shown,) = figure.legends[0].get_texts()
    assert not shown.get_parse_math()
    assert shown.get_text().lstrip() == legend_label(arm).lstrip() != ""
    assert not set("\x1b\u202e\n") & set(shown.get_text())
