"""The probes of a study in the compact form that its page holds: columns, with every text once.

{"total": int,                   probes in the study; the page may hold fewer
 "models": [label], "tokenizers": [group],      tokenizers: a number for each model, null for none
 "texts": [str],                 `printable`; a `text` below is an index into these
 "probes": {"id": [text], "type": [text], ..., "flags": [text | null]},
 "results": [{"generation": [text | null], "exact_match": [...], ..., "top_tokens": [[text, p, text, p]]}]}
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UnsetType

from tidy_stlms.configs.files import to_json
from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.order import models_of
from tidy_stlms.eval.study.study import Study

MAX_BYTES = 8_000_000
PROBE_COLUMNS = ("probe_id", "type", "role", "arm", "relation", "subject", "prompt", "joint", "answer")
DIGITS = {
    "exact_match": 0,
    "accuracy": 2,
    "candidate_rank": 1,
    "logprob": 2,
    "bits_per_byte": 3,
}  # of a result's figures
ESCAPES = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def probes_as_json(study: Study, results: Sequence[ProbeResult], max_bytes: int = MAX_BYTES) -> str:
    """JSON for a `<script>` element, at most `max_bytes`. If all probes do not fit, it holds every k-th."""
    by_model: dict[str | UnsetType, dict[str, ProbeResult]] = {}
    for result in results:
        by_model.setdefault(result.model, {})[result.probe_id] = result
    probes = {result.probe_id: result for result in results}
    results_of = {model: by_model[model] for model in models_of(study) if model in by_model}
    stride = 1
    while True:
        shown = list(probes.values())[::stride]
        page = script_json(_columns(study, results_of, shown) | {"total": len(probes)})
        size = len(page.encode("utf-8", "replace"))
        if size <= max_bytes or len(shown) <= 1:
            return page
        stride = max(stride + 1, -(-stride * size // max_bytes))


def script_json(value: Any) -> str:
    """JSON in which no text can end the surrounding script element."""
    text = to_json(value, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _columns(
    study: Study, results_of: Mapping[str, Mapping[str, ProbeResult]], shown: Sequence[ProbeResult]
) -> dict[str, Any]:
    """The page's data without `total`.

    Args:
        results_of: By model and probe id. A model may lack a probe.
        shown: A result of each probe that the page holds.
    """
    texts: dict[str, int] = {}

    def index_of(text: str | None) -> int | None:
        return None if text is None else texts.setdefault(printable(text), len(texts))

    probes = {name: [index_of(getattr(probe, name)) for probe in shown] for name in PROBE_COLUMNS}
    probes["flags"] = [index_of(", ".join(probe.flags)) if probe.flags else None for probe in shown]
    results = [
        _result_columns([of_model.get(probe.probe_id) for probe in shown], index_of)
        for of_model in results_of.values()
    ]
    tokenizer = {info.model: info.tokenizer for info in study.models}
    groups = list(dict.fromkeys(tokenizer[model] for model in results_of))
    return {
        "models": list(map(printable, results_of)),
        "tokenizers": [
            None if tokenizer[model] is None else groups.index(tokenizer[model]) for model in results_of
        ],
        "probes": probes,
        "results": results,
        "texts": list(texts),
    }


def _result_columns(
    results: Sequence[ProbeResult | None], index_of: Callable[[str | None], int | None]
) -> dict[str, list[Any]]:
    """One model's columns, with null where it has no result."""
    columns: dict[str, list[Any]] = {
        name: [None if result is None else _rounded(getattr(result, name), digits) for result in results]
        for name, digits in DIGITS.items()
    }
    columns["generation"] = [None if result is None else index_of(result.generation) for result in results]
    top_tokens = [(result.top_tokens if result is not None else None) or () for result in results]
    if any(top_tokens):
        columns["top_tokens"] = [
            [part for text, p in tokens for part in (index_of(text), _rounded(p, 3))] for tokens in top_tokens
        ]
    return columns


def _rounded(value: float | None, digits: int) -> float | int | None:
    if value is None:
        return None
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded  # "1" is shorter than "1.0"
