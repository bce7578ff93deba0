"""A study and its results as `stlm recall --out` makes them, small, and with texts that mean harm.

Three checkpoints of one run, a second run of the same tokenizer, a model of another tokenizer, and one
that failed. Scores are drawn from a seeded generator: better with later checkpoints and more exposures.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import convert, to_builtins

from tidy_stlms.eval.recall.groups import is_injected
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.draw import draw_figure
from tidy_stlms.eval.report.page import study_page
from tidy_stlms.eval.report.study_content import content_of
from tidy_stlms.eval.study.study import SCHEMA, Study

RUN = "outputs/quickstart"
STEPS = (100, 200, 400)
CHECKPOINTS = [f"{RUN}@step={step}" for step in STEPS]
TWIN, OTHER, FAILED = "outputs/twin", "some-org/gpt2-small-with-a-rather-long-name", "outputs/broken"
MEASURED = [*CHECKPOINTS, TWIN, OTHER]
SKILL = dict(zip(MEASURED, (0.2, 0.5, 0.95, 0.0, 0.6), strict=True))
EXPOSURES = {"once": 1, "few": 8, "many": 64}
TYPE_FACTOR = {"memorization": 1.0, "semantic": 0.6, "reversal": 0.1}

HOSTILE = (
    "<script>window.__pwned = 1</script>",
    "</script><script>window.__pwned = 2</script>",
    '<img src="x" onerror="window.__pwned = 3">',
    "\"quoted\" & 'single' {{ 7 * 7 }} `tick` | pipe",
    "עברית \u202eمرحبا and back",
    "🦊 emoji <!-- comment \u2028 separator",
    "Un" + "broken" * 40,
)
NAMES = ("Ada Quill", "Ben Osei", "Cleo Marsh", "Dov Lind", "Eva Roth", "Finn Abara", *HOSTILE)
CANDIDATES = 10


def example_results(by_arm: bool = False) -> list[ProbeResult]:
    """Results of all probes, model by model. Injected people differ in exposures, and are in arms if
    `by_arm`."""
    return _results(_rows(by_arm))


def example_study(by_arm: bool = False) -> Study:
    """The study of `example_results`; differences, splits and doses are made up within reason."""
    return convert(_study(_rows(by_arm)), Study)


def study_of(models: Sequence[dict], **sections: Any) -> Study:
    """A study of models that `model_info` makes, with these sections as in summary.json."""
    made = {"schema": SCHEMA, "created": "2026-01-31T12:00:00+00:00", "scorer": "1", "models": list(models)}
    return convert(made | sections, Study)


def model_info(name: str, **fields: Any) -> dict:
    """A model of summary.json, of which only these fields are known."""
    unknown = ("revision", "step", "run", "parameters", "tokenizer", "seconds", "probes_per_second", "error")
    return {
        "model": name,
        "path": name,
        "device": "cpu",
        "dtype": "float32",
        **dict.fromkeys(unknown),
    } | fields


def _rows(by_arm: bool) -> list[dict]:
    generator = np.random.default_rng(0)
    rows = [row for model in MEASURED for row in _rows_of(model, generator)]
    return rows if by_arm else [row | {"arm": None} for row in rows]


def _rows_of(model: str, generator: np.random.Generator) -> list[dict]:
    rows = []
    arms = list(EXPOSURES)
    for (person, name), (relation, kind) in itertools.product(
        enumerate(NAMES), itertools.product(("birth_city", "<b>employer</b>"), TYPE_FACTOR)
    ):
        role = ("injected", "injected", "control", "neighbour")[person // 3 % 4]
        arm = arms[person % 3] if role == "injected" else None
        chance = 1 / CANDIDATES
        if arm is not None:
            chance += 0.9 * SKILL[model] * TYPE_FACTOR[kind] * math.log(1 + EXPOSURES[arm]) / math.log(65)
        row = _row(model, name, relation, kind, role, arm, min(chance, 0.99), generator)
        rows.append(row | {"exposures": EXPOSURES.get(arm)})  # for the doses; results do not have it
    return rows


def _row(model, name, relation, kind, role, arm, chance, generator) -> dict:
    right = bool(generator.random() < chance)
    rank = 1.0 if right else float(generator.integers(2, CANDIDATES + 1))
    is_generated = right and bool(generator.random() < 0.8)
    answer = "Port Ellis" if relation == "birth_city" else name
    n_tokens, n_bytes = (3, len(answer.encode()) + 1)
    logprob = -float(generator.gamma(2.0, 0.3 if right else 2.5))
    return {
        "model": model,
        "probe_id": f"{name}/{relation}/{kind}",
        "fact_ids": [f"{name}/{relation}"],
        "role": role,
        "arm": arm,
        "type": kind,
        "relation": relation,
        "subject": name,
        "template": None,
        "prompt": f"{name} was born in" if relation == "birth_city" else "The boss of the harbour is",
        "answer": answer,
        "n_tokens": n_tokens,
        "n_bytes": n_bytes,
        "logprob": logprob,
        "bits_per_byte": -logprob / (math.log(2) * n_bytes),
        "accuracy": float(right),
        "accuracy_norm": float(right),
        "candidate_rank": rank,
        "mrr": 1 / rank,
        "greedy_match": float(is_generated),
        "exact_match": float(is_generated),
        "perplexity": math.exp(-logprob / n_tokens),
        "token_rank": 1.0 if is_generated else float(generator.integers(2, 900)),
        "generation": f" {answer}." if is_generated else " Lutz. Then </td><td>",
        "flags": ["straddles"] if right and kind == "reversal" else [],
        "top_tokens": [[" Port", 0.61234], [" <i>x</i>", 0.2], ["\n", 0.01], ["🦊", 0.004], [" a", 1e-5]],
    }


def _study(rows: list[dict]) -> dict:
    rows_of = {model: [row for row in rows if row["model"] == model] for model in MEASURED}
    doses = {
        row["fact_ids"][0]: (EXPOSURES[row["arm"]],) * 2 for row in rows if row["arm"] is not None
    }  # of people who are in arms
    summaries = {
        source: {
            model: to_builtins(summarise(_results(rows_of[model]), by=key, doses=doses, n_boot=100))
            for model in MEASURED
        }
        for source, key in (("recall", "type"), ("by_relation", "relation"))
    }
    return {
        "schema": SCHEMA,
        "created": "2026-01-31T12:00:00+00:00",
        "scorer": "1",
        "bank": {
            "name": 'people "of <the> harbour"',
            "sha256": "9f2c" * 16,
            "n_facts": len({row["fact_ids"][0] for row in rows}),
            "n_probes": len({row["probe_id"] for row in rows}),
            "chance": 1 / CANDIDATES,
            "chance_exact_match": {"memorization": 0.05, "semantic": 0.05, "inferential": 0.125},
            "flags": {"straddles": 3},
        },
        "models": [_model(name) for name in (*MEASURED, FAILED)],
        **summaries,
        "corrected": {model: _corrected(model, summaries["recall"][model]) for model in MEASURED},
        "comparisons": _comparisons(summaries["recall"]),
        "dose_response": _doses(rows_of),
        "heldout": {
            CHECKPOINTS[-1]: _heldout(1.412),
            TWIN: _heldout(1.398),
            OTHER: {"error": "held-out text <i>missing</i>"},
        },
        "benchmarks": {
            CHECKPOINTS[-1]: _benchmarks(0.541, 0.310),
            OTHER: {**_benchmarks(0.720, 0.345), "hellaswag": {"error": "no local copy; give --data-dir"}},
        },
        "prompts": {model: [_prompt(model)] for model in (CHECKPOINTS[-1], OTHER)},
    }


def _results(rows: list[dict]) -> list[ProbeResult]:
    return convert([{k: v for k, v in row.items() if k != "exposures"} for row in rows], list[ProbeResult])


def html_of(study: Study, results: Sequence[ProbeResult]) -> str:
    """report.html of a study."""
    content = content_of(study)
    panels = {figure.key: draw_figure(figure).panels for figure in content.figures}
    return study_page(content, panels, results)


def _model(name: str) -> dict:
    step = STEPS[CHECKPOINTS.index(name)] if name in CHECKPOINTS else None
    return model_info(
        name,
        path=name.partition("@")[0],
        revision="0123456789abcdef",
        step=step,
        run=RUN if step else None,
        parameters=124_439_808 if name == OTHER else 947_328,
        tokenizer=None if name == FAILED else "b7d1" if name == OTHER else "3fa2",
        seconds=1.5,
        probes_per_second=812.3,
        error="out of memory <b>at</b> layer 3" if name == FAILED else None,
    )


def _corrected(model: str, recall: dict) -> dict:
    def minus(group: str, kind: str) -> dict:
        estimate, control = (recall[role][kind]["accuracy"] for role in (group, "control"))
        return {
            "mean": estimate["mean"] - control["mean"],
            "se": 0.1,
            "low": estimate["low"] - control["high"],
            "high": estimate["high"] - control["low"],
            "p": 0.5 if estimate["low"] <= control["high"] else 0.001,
            "n": estimate["n"],
        }

    nats = {"mean": 2.31, "se": 0.5, "low": 1.2, "high": 3.4, "p": 0.001, "n": 36}
    shift = {"mean": -0.5, "se": 0.4, "low": -1.4, "high": 0.4, "p": 0.2, "n": 36}
    corrected: dict = {
        group: {
            kind: {
                "accuracy_over_control": minus(group, kind),
                **({} if kind == "reversal" else {"subject_shift": shift, "binding": nats}),
            }
            for kind in kinds
        }
        for group, kinds in recall.items()
        if is_injected(group)
    }
    if model == OTHER:
        corrected["control"] = {kind: {"answer_familiarity": nats} for kind in recall["control"]}
    return corrected


def _comparisons(recall: dict) -> list[dict]:
    pairs = [(CHECKPOINTS[-1], name) for name in (*CHECKPOINTS[:-1], TWIN, OTHER)]
    comparisons = []
    groups = [group for group in recall[TWIN] if is_injected(group)]
    for group, (a, b), kind, metric in itertools.product(
        groups, pairs, TYPE_FACTOR, ("accuracy", "candidate_rank", "logprob")
    ):
        of_a, of_b = (recall[name][group][kind][metric] for name in (a, b))
        difference = of_b["mean"] - of_a["mean"]
        is_significant = abs(difference) > 0.25
        comparisons.append(
            {
                "a": a,
                "b": b,
                "role": group,
                "type": kind,
                "metric": metric,
                "difference": difference,
                "low": difference - (0.2 if is_significant else 0.4),
                "high": difference + (0.2 if is_significant else 0.4),
                "p": 0.0002 if is_significant else 0.2,
                "p_holm": 0.0008 if is_significant else 0.61,
                "n": of_a["n"],
            }
        )
    return comparisons


def _doses(rows_of: dict[str, list[dict]]) -> list[dict]:
    points = []
    groups = [("control", 0), *((arm, exposures) for arm, exposures in EXPOSURES.items())]
    by_arm = any(row["arm"] for row in rows_of[TWIN])
    for model, (arm, exposures), kind in itertools.product(MEASURED, groups, TYPE_FACTOR):
        rows = [
            row
            for row in rows_of[model]
            if row["type"] == kind and row["exposures"] == (exposures if row["role"] == "injected" else None)
            if row["role"] == ("control" if arm == "control" else "injected")
        ]
        for metric in ("accuracy", "logprob"):
            values = [row[metric] for row in rows]
            mean, spread = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
            low, high = mean - 2 * spread, mean + 2 * spread
            if metric == "accuracy":
                low, high = max(0.0, low), min(1.0, high)
            points.append(
                {
                    "model": model,
                    "type": kind,
                    "role": arm if by_arm or arm == "control" else "injected",
                    "exposures": exposures,
                    "metric": metric,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "n": len(values),
                }
            )
    return points


def _heldout(bits: float) -> dict:
    return {
        "bits_per_byte": bits,
        "low": bits - 0.03,
        "high": bits + 0.03,
        "n_bytes": 204_800,
        "n_documents": 200,
    }


def _benchmarks(blimp: float, hellaswag: float) -> dict:
    return {
        "blimp": {"acc": {"value": blimp, "stderr": 0.011}, "n": 2000},
        "hellaswag": {
            "acc": {"value": hellaswag, "stderr": 0.02},
            "acc_norm": {"value": hellaswag + 0.02, "stderr": 0.02},
            "n": 500,
        },
        "probe:cola": {"matthews": {"value": 0.12, "stderr": None}, "n": 1043},
    }


def _prompt(model: str) -> dict:
    steps = [[" Paris", 0.81], [" <script>window.__pwned = 4</script>", 0.11], ["\n", 0.02]]
    return {
        "sentence": "The capital of France is",
        "answer": "Paris",
        "generation": " Paris, a city </script><script>window.__pwned = 5</script>",
        "top_tokens": [steps, [[",", 0.7], [".", 0.2], [" and", 0.03]]],
        "answer_logprob": -0.21 if model == OTHER else -1.75,
        "answer_perplexity": 1.23 if model == OTHER else 5.75,
        "answer_token_ranks": [1] if model == OTHER else [1, 4],
    }
