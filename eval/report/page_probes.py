"""The probes of a study in the compact form that its page holds: columns, with every text once.

{"total": int,                   probes in the study; the page may hold fewer
 "models": [label], "tokenizers": [group],      tokenizers: a number for each model, null for none
 "texts": [str],                 a `text` below is an index into these
 "probes": {"id": [text], "type": [text], ..., "flags": [text | null]},
 "results": [{"generation": [text | null], "exact_match": [...], ..., "top_tokens": [[text, p, text, p]]}]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tidy_stlms.configs.files import to_json
from tidy_stlms.eval.report.order import Study, models_of

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


def probes_as_json(study: Study, rows: Sequence[Mapping[str, Any]], max_bytes: int = MAX_BYTES) -> str:
    """JSON for a `<script>` element, of at most `max_bytes`. Where all probes would be more, every k-th."""
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["probe_id"]] = row
    probes = {row["probe_id"]: row for row in rows}
    models = [model for model in models_of(study) if model in by_model]
    every = 1
    while True:
        shown = list(probes.values())[::every]
        page = script_json(_columns(study, models, by_model, shown) | {"total": len(probes)})
        size = len(page.encode("utf-8", "replace"))
        if size <= max_bytes or len(shown) <= 1:
            return page
        every = max(every + 1, -(-every * size // max_bytes))


def script_json(value: Any) -> str:
    """JSON in which no text can end the surrounding script element."""
    text = to_json(value, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _columns(
    study: Study,
    models: list[str],
    by_model: Mapping[str, Mapping[str, Mapping[str, Any]]],
    shown: list[Mapping[str, Any]],
) -> dict[str, Any]:
    texts: dict[str, int] = {}

    def index_of(text: Any) -> int | None:
        return None if text is None else texts.setdefault(str(text), len(texts))

    probes = {name: [index_of(row.get(name)) for row in shown] for name in PROBE_COLUMNS}
    probes["flags"] = [index_of(", ".join(row["flags"])) if row.get("flags") else None for row in shown]
    results = []
    for model in models:
        model_rows = [by_model[model].get(row["probe_id"], {}) for row in shown]
        columns: dict[str, list] = {
            name: [_rounded(row.get(name), digits) for row in model_rows] for name, digits in DIGITS.items()
        }
        columns["generation"] = [index_of(row.get("generation")) for row in model_rows]
        if any(row.get("top_tokens") for row in model_rows):
            columns["top_tokens"] = [
                [part for text, p in row.get("top_tokens") or () for part in (index_of(text), _rounded(p, 3))]
                for row in model_rows
            ]
        results.append(columns)
    tokenizer = {model["model"]: model.get("tokenizer") for model in study["models"]}
    groups = list(dict.fromkeys(tokenizer[model] for model in models))
    return {
        "models": models,
        "tokenizers": [
            None if tokenizer[model] is None else groups.index(tokenizer[model]) for model in models
        ],
        "probes": probes,
        "results": results,
        "texts": list(texts),
    }


def _rounded(value: float | None, digits: int) -> float | int | None:
    if value is None:
        return None
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded  # "1" is shorter than "1.0"
