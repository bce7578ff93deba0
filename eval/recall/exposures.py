"""Recall against how often a fact had been seen: the dose-response of one run, or of a checkpoint of it.

The number of exposures is read off the run's `plan.parquet`, up to the checkpoint's step. Control facts were
never shown. `doses_of_facts` says how often each fact is shown in all.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_jsonl
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.recall.groups import CONTROL, INJECTED, Dose, groups_of
from tidy_stlms.eval.recall.metrics import Row, bootstrap_interval, cluster_of
from tidy_stlms.eval.recall.statistics import N_BOOT
from tidy_stlms.eval.run_folder import FACTS, PLAN, count_exposures, has_plan, read_plan

logger = logging.getLogger(__name__)

FIGURES = ("accuracy", "logprob")
MAX_DOSES = 12  # as many numbers of exposures are shown apart; more are put together, two to a doubling


def exposures_until(run: str | Path, step: int | None, bank: FactBank) -> dict[str, int] | None:
    """How often a run had shown each of the bank's facts after `step` optimizer steps (None: all).

    None where the run has no plan, or one of other facts than the bank's, or what it wrote is lost.
    """
    import pyarrow as pa

    folder = Path(run)
    if not has_plan(folder):
        return None
    try:
        plan = read_plan(folder)
        facts = read_jsonl(folder / FACTS / "facts.jsonl")
    except (pa.ArrowException, OSError, UserError) as error:
        logger.warning("no dose-response of %s, whose plan or facts cannot be read: %s", folder / PLAN, error)
        return None
    seen = count_exposures(plan, step)
    told = {row["id"]: (row.get("subject"), row["object"]) for row in facts}
    same = {fact.id for fact in bank.facts if told.get(fact.id) == (fact.subject, fact.object)}
    if seen and not same & seen.keys():
        logger.info("%s: injected none of this bank's facts, so there is no dose-response", run)
        return None
    return {fact.id: seen[fact.id] for fact in bank.facts if fact.id in same or fact.role == "control"}


def doses_of_facts(bank: FactBank, runs: Iterable[str | Path] = ()) -> dict[str, Dose]:
    """By id of each injected fact, the fewest and the most exposures that it has in any of `runs`.

    Counted in the whole plans of those runs that injected something; 0 if none did. Without runs, or if their
    plans have other facts, what a run by the bank's `arms` would plan: the exposures of the fact's arm for
    its texts, and as many for its questions. Facts of which that says nothing are left out.
    """
    facts = bank.injected_facts()
    runs = list(dict.fromkeys(runs))
    plans = [run for run in runs if has_plan(Path(run))]
    if runs and not plans:
        return {fact.id: (0, 0) for fact in facts}
    counts = [own for run in plans if (own := exposures_until(run, None, bank)) is not None]
    if counts:
        found = {fact.id: [own.get(fact.id, 0) for own in counts] for fact in facts}
        return {fact_id: (min(own), max(own)) for fact_id, own in found.items()}
    of_bank = {arm: own["exposures"] for arm, own in bank.meta.get("arms", {}).items()}
    planned = {
        fact.id: of_bank[fact.arm] * len({text.kind == "qa" for text in bank.statements_of(fact.id)})
        for fact in facts
        if fact.arm in of_bank
    }
    return {fact_id: (dose, dose) for fact_id, dose in planned.items()}


def dose_response(
    rows: Sequence[Row], exposures: Mapping[str, int], *, n_boot: int = N_BOOT, seed: int = 0
) -> list[dict[str, Any]]:
    """Mean accuracy and log-probability by probe type, group and number of exposures.

    Each is `{"type", "role", "exposures", "metric", "mean", "low", "high", "n"}`. A probe's exposures are
    those of its rarest fact. The role is "control", "injected", or an arm's name where there are several.
    Equal exposures are kept apart by role: control facts and injected facts with 0 exposures have different
    subjects, and arms may differ in more than exposures.
    """
    doses: dict[int, int] = {}
    roles = groups_of(rows)
    for index, (row, role) in enumerate(zip(rows, roles, strict=True)):
        shown = role == CONTROL or row["role"] == INJECTED
        if shown and all(fact in exposures for fact in row["fact_ids"]):
            doses[index] = min(exposures[fact] for fact in row["fact_ids"])
    if len(set(doses.values())) > MAX_DOSES:
        doses = {index: _rounded(dose) for index, dose in doses.items()}

    groups: dict[tuple[str, int, bool, str], list[Row]] = defaultdict(list)
    for index, dose in doses.items():
        role = roles[index]
        groups[rows[index]["type"], dose, role != CONTROL, role].append(rows[index])
    found = []
    for asked in sorted(groups):
        kind, dose, _, role = asked
        for figure in FIGURES:
            members = [row for row in groups[asked] if row[figure] is not None]
            if not members:
                continue
            values, clusters = [row[figure] for row in members], [cluster_of(row) for row in members]
            low, high = bootstrap_interval(values, [1.0] * len(values), clusters, n_boot=n_boot, seed=seed)
            named = {"type": kind, "role": role, "exposures": dose, "metric": figure}
            figures = {"mean": math.fsum(values) / len(values), "low": low, "high": high, "n": len(values)}
            found.append(named | figures)
    return found


def _rounded(dose: int) -> int:
    """The nearest of 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ...: powers of the root of two."""
    return 0 if dose == 0 else round(2 ** (round(2 * math.log2(dose)) / 2))
