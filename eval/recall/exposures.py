"""Recall against the number of exposures: the dose-response of a run or of one of its checkpoints.

    exposures = exposures_until("outputs/quickstart", step=400, bank=bank)
    points = dose_response(results, exposures, model="outputs/quickstart@step=400")

Exposures are counted in the run's `plan.parquet`, up to the checkpoint's step. Control facts have none.
`doses_of_facts` counts the exposures of whole runs.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.records import Output, read_records
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact
from tidy_stlms.eval.recall.groups import CONTROL, Dose, groups_of, is_injected
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.recall.statistics import N_BOOT, bootstrap_interval
from tidy_stlms.eval.run_folder import FACTS, PLAN, count_exposures, has_plan, read_plan

logger = logging.getLogger(__name__)

DOSE_METRICS = ("accuracy", "logprob")
MAX_DOSES = 12  # with more numbers of exposures than this, near ones are merged, two to a doubling


class DosePoint(Output, frozen=True):
    """Recall of the facts with one number of exposures."""

    model: str
    """The label of the model."""
    type: str
    """The probe type."""
    role: str
    """`control`, `injected`, or an arm's name if injected facts are in several arms."""
    exposures: int
    """Of a probe of several facts, those of the fact with the fewest."""
    metric: str
    """`accuracy`, or `logprob` in nats."""
    mean: float
    """Mean of the metric over the probes."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """The number of probes that have the metric."""


def exposures_until(run: str | Path, step: int | None, bank: FactBank) -> dict[str, int] | None:
    """Count each fact's exposures in the first `step` optimizer steps of a run (None: in all steps).

    Returns:
        Exposures by id, of the bank's facts that the run has too and of control facts. None if the run has no
        plan, if its plan or facts cannot be read, or if it injected none of the bank's facts.
    """
    folder = Path(run)
    if not has_plan(folder):
        return None
    try:
        plan = read_plan(folder)
        facts = read_records(folder / FACTS / "facts.jsonl", Fact)
    except UserError as error:
        logger.warning("no dose-response of %s, whose plan or facts cannot be read: %s", folder / PLAN, error)
        return None
    exposures = count_exposures(plan, step)
    # an id alone does not make two facts equal: banks of different seeds have the same ids
    facts_of_run = {fact.id: (fact.subject, fact.object) for fact in facts}
    shared = {fact.id for fact in bank.facts if facts_of_run.get(fact.id) == (fact.subject, fact.object)}
    if exposures and not shared & exposures.keys():
        logger.info("%s: injected none of this bank's facts, so there is no dose-response", run)
        return None
    return {fact.id: exposures[fact.id] for fact in bank.facts if fact.id in shared or fact.role == "control"}


def doses_of_facts(bank: FactBank, runs: Iterable[str | Path] = ()) -> dict[str, Dose]:
    """The fewest and the most exposures of each injected fact in any of `runs`, by fact id.

    Exposures are those of whole runs that injected something; 0 if none of the runs did. Without runs, or if
    their plans are of other facts, they are what the bank's `arms` plan: the arm's exposures for the fact's
    texts, and as many for its questions. Facts for which the bank plans nothing are left out.
    """
    facts = bank.injected_facts()
    runs = list(dict.fromkeys(runs))
    injecting = [run for run in runs if has_plan(Path(run))]
    if runs and not injecting:
        return {fact.id: (0, 0) for fact in facts}
    by_run = [exposures for run in injecting if (exposures := exposures_until(run, None, bank)) is not None]
    if by_run:
        counts = {fact.id: [exposures.get(fact.id, 0) for exposures in by_run] for fact in facts}
        return {fact_id: (min(of_fact), max(of_fact)) for fact_id, of_fact in counts.items()}
    of_arm = {arm: settings["exposures"] for arm, settings in bank.meta.get("arms", {}).items()}
    planned = {
        fact.id: of_arm[fact.arm] * len({text.kind == "qa" for text in bank.statements_of(fact.id)})
        for fact in facts
        if fact.arm in of_arm
    }
    return {fact_id: (exposures, exposures) for fact_id, exposures in planned.items()}


def dose_response(
    results: Sequence[ProbeResult],
    exposures: Mapping[str, int],
    *,
    model: str,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> list[DosePoint]:
    """Mean accuracy and log-probability by probe type, number of exposures and role.

    `exposures` are by fact id. Equal exposures of different roles are different points: control facts and
    injected facts with 0 exposures have different subjects, and arms may differ in more than exposures.
    """
    groups = groups_of(results)
    doses = {
        index: min(exposures[fact_id] for fact_id in result.fact_ids)
        for index, (result, group) in enumerate(zip(results, groups, strict=True))
        if group == CONTROL or is_injected(group)
        if all(fact_id in exposures for fact_id in result.fact_ids)
    }
    if len(set(doses.values())) > MAX_DOSES:
        doses = {index: _rounded(dose) for index, dose in doses.items()}

    members: dict[tuple[str, int, bool, str], list[ProbeResult]] = defaultdict(list)
    for index, dose in doses.items():
        group = groups[index]
        members[results[index].type, dose, group != CONTROL, group].append(results[index])
    points = []
    for probe_type, dose, is_not_control, role in sorted(members):
        of_point = members[probe_type, dose, is_not_control, role]
        for metric in DOSE_METRICS:
            with_metric = [result for result in of_point if getattr(result, metric) is not None]
            if not with_metric:
                continue
            values = [getattr(result, metric) for result in with_metric]
            clusters = [result.cluster for result in with_metric]
            low, high = bootstrap_interval(values, [1.0] * len(values), clusters, n_boot=n_boot, seed=seed)
            mean = math.fsum(values) / len(values)
            points.append(DosePoint(model, probe_type, role, dose, metric, mean, low, high, len(values)))
    return points


def _rounded(dose: int) -> int:
    """The nearest of 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ...: powers of the root of two."""
    return 0 if dose == 0 else round(2 ** (round(2 * math.log2(dose)) / 2))
