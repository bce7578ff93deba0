"""The styles of asking: names that users choose by, without imports, since help texts list them."""

SUITE_STYLE, BEAR_STYLE = "suite", "bear"  # how probes are asked, see `eval/recall/style.py`
STYLES = (SUITE_STYLE, BEAR_STYLE)
OVERLAP, ROLLING = "overlap", "rolling"  # how long documents are read, see `eval/study/heldout.py`
HELDOUT_STYLES = (OVERLAP, ROLLING)
