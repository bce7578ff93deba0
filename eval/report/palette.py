"""Colours and signs of figures, by what they stand for.

On the page each colour is the variable of this name in html/report.css, which also has a dark value.
"""

PROBE_COLOURS = {
    "memorization": "#0072B2",
    "trained_question": "#882255",
    "syntactic": "#009E73",
    "semantic": "#D55E00",
    "inferential": "#CC79A7",
    "compositional": "#E69F00",
    "reversal": "#56B4E9",
    "locality": "#555555",
}  # Okabe and Ito's palette, and a dark red of Paul Tol's: colour-blind readers can distinguish them
MARKERS = {
    "memorization": "o",
    "trained_question": "p",
    "syntactic": "s",
    "semantic": "^",
    "inferential": "D",
    "compositional": "v",
    "reversal": "P",
    "locality": "X",
}
OTHER = "#777777"  # a probe type without a colour
INK, PAPER = "#000000", "#ffffff"
SOFT, RULE, CONTROL_BAR = "#5c5b57", "#d9d7d0", "#b0b0b0"

COLOURS = {
    **PROBE_COLOURS,
    "other": OTHER,
    "ink": INK,
    "paper": PAPER,
    "soft": SOFT,
    "rule": RULE,
    "control": CONTROL_BAR,
}


def probe_colour(probe_type: str) -> str:
    return PROBE_COLOURS.get(probe_type, OTHER)
