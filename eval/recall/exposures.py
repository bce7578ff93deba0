"""Recall against how often a fact had been seen: the dose-response of one run, or of a checkpoint of it.

The number of exposures is read off the run's `plan.parquet`, up to the checkpoint's step. Control facts were
seen no time at all.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.files import read_jsonl
from eval.facts.bank import FactBank
from eval.recall.metrics import Row, bootstrap_interval, cluster_of
from eval.recall.resampling import N_BOOT

logger = logging.getLogger(__name__)

PLAN = "plan.parquet"
FIGURES = ("accuracy", "logprob")
MAX_DOSES = 12  # as many numbers of exposures are shown apart; more are put together, two to a doubling


def exposures_until(run: str | Path, step: int | None, bank: FactBank) -> dict[str, int] | None:
    """How often a run had shown each of the bank's facts after `step` optimizer steps (None: all).

    None where the run injected nothing, or other facts than the bank's, or what it wrote is lost.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(run) / PLAN
    if not path.is_file():
        return None
    try:
        plan = pq.read_table(path, columns=["step", "fact_ids"])
        facts = read_jsonl(Path(run) / "facts/facts.jsonl")
    except (pa.ArrowException, OSError, UserError) as error:
        logger.warning("no dose-response of %s, whose plan or facts cannot be read: %s", path, error)
        return None
    seen: Counter[str] = Counter()
    for at, fact_ids in zip(plan["step"].to_pylist(), plan["fact_ids"].to_pylist(), strict=True):
        # a checkpoint of step n has seen the steps 0 .. n - 1
        seen.update(dict.fromkeys(fact_ids, int(step is None or at < step)))
    told = {row["id"]: (row.get("subject"), row["object"]) for row in facts}
    same = {fact.id for fact in bank.facts if told.get(fact.id) == (fact.subject, fact.object)}
    if not same & seen.keys():
        logger.info("%s: injected none of this bank's facts, so there is no dose-response", run)
        return None
    return {fact.id: seen[fact.id] for fact in bank.facts if fact.id in same or fact.role == "control"}


def dose_response(
    rows: Sequence[Row], exposures: Mapping[str, int], *, n_boot: int = N_BOOT, seed: int = 0
) -> list[dict[str, Any]]:
    """Mean accuracy and log-probability by probe type and number of exposures (of a probe's facts, the
    fewest), each `{"type", "exposures", "metric", "mean", "low", "high", "n"}`."""
    doses: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row["role"] in ("injected", "control") and all(fact in exposures for fact in row["fact_ids"]):
            doses[index] = min(exposures[fact] for fact in row["fact_ids"])
    if len(set(doses.values())) > MAX_DOSES:
        doses = {index: _rounded(dose) for index, dose in doses.items()}

    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for index, dose in doses.items():
        groups[rows[index]["type"], dose].append(rows[index])
    found = []
    for kind, dose in sorted(groups):
        for figure in FIGURES:
            members = [row for row in groups[kind, dose] if row[figure] is not None]
            if not members:
                continue
            values, clusters = [row[figure] for row in members], [cluster_of(row) for row in members]
            low, high = bootstrap_interval(values, [1.0] * len(values), clusters, n_boot=n_boot, seed=seed)
            figures = {"mean": math.fsum(values) / len(values), "low": low, "high": high, "n": len(values)}
            found.append({"type": kind, "exposures": dose, "metric": figure, **figures})
    return found


def _rounded(dose: int) -> int:
    """The nearest of 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ...: powers of the root of two."""
    return 0 if dose == 0 else round(2 ** (round(2 * math.log2(dose)) / 2))
