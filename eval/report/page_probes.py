"""The probes of a study in the compact form that its page carries: columns, with every text once.

{"total": int,                   probes in the study; the page may hold fewer
 "models": [label], "tokenizers": [group],      tokenizers: a number for each model, null for none
 "texts": [str],                 what the numbers below that stand for texts point to
 "probes": {"id": [text], "type": [text], ..., "flags": [text | null]},
 "results": [{"generation": [text | null], "exact_match": [...], ..., "top_tokens": [[text, p, text, p]]}]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tidy_stlms.configs.files import to_json
from tidy_stlms.eval.report.order import Study, models_of

MAX_BYTES = 8_000_000
ASKED = ("probe_id", "type", "role", "arm", "relation", "subject", "prompt", "joint", "answer")
FIGURES = {"exact_match": 0, "accuracy": 2, "candidate_rank": 1, "logprob": 2, "bits_per_byte": 3}  # digits
ESCAPES = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def probes_as_json(study: Study, rows: Sequence[Mapping[str, Any]], max_bytes: int = MAX_BYTES) -> str:
    """JSON for a `<script>` element, of at most `max_bytes`: where all probes would be more, every k-th."""
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["probe_id"]] = row
    asked = {row["probe_id"]: row for row in rows}
    models = [model for model in models_of(study) if model in by_model]
    every = 1
    while True:
        shown = list(asked.values())[::every]
        page = script_json(_columns(study, models, by_model, shown) | {"total": len(asked)})
        size = len(page.encode("utf-8", "replace"))
        if size <= max_bytes or len(shown) <= 1:
            return page
        every = max(every + 1, -(-every * size // max_bytes))


def script_json(value: Any) -> str:
    """JSON that no text can end the surrounding script element with, and that any browser reads as one."""
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

    def place(text: Any) -> int | None:
        return None if text is None else texts.setdefault(str(text), len(texts))

    probes = {name: [place(row.get(name)) for row in shown] for name in ASKED}
    probes["flags"] = [place(", ".join(row["flags"])) if row.get("flags") else None for row in shown]
    results = []
    for model in models:
        own = [by_model[model].get(row["probe_id"], {}) for row in shown]
        columns: dict[str, list] = {
            name: [_rounded(row.get(name), digits) for row in own] for name, digits in FIGURES.items()
        }
        columns["generation"] = [place(row.get("generation")) for row in own]
        if any(row.get("top_tokens") for row in own):
            columns["top_tokens"] = [
                [part for text, p in row.get("top_tokens") or () for part in (place(text), _rounded(p, 3))]
                for row in own
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
