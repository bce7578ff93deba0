"""Results made by hand, for tests that need a few fields of them."""

from typing import Any

from tidy_stlms.eval.recall.results import ProbeResult


def result(**fields: Any) -> ProbeResult:
    """A result with these fields; all metrics that are not given are null."""
    defaults: dict[str, Any] = {
        "probe_id": "p",
        "fact_ids": ("f",),
        "role": "injected",
        "type": "semantic",
        "relation": "born",
        "subject": "Ada",
        "prompt": "Ada was born in",
        "joint": " ",
        "answer": "Rome",
    }
    return ProbeResult(**{**defaults, **fields})
