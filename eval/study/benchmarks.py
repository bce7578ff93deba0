"""Public benchmarks by lm-eval, on a model that is already loaded.

results = run_benchmarks(model, tokenizer, ["blimp", "arc_easy"], limit=100)
results["arc_easy"]["acc"]  # {"value": 0.31, "stderr": 0.046}
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import DiskFull, UserError, nearest
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.scoring.isolation import rng_untouched
from tidy_stlms.eval.study.public_data import local_copies, quiet, why_missing

logger = logging.getLogger(__name__)

BOOTSTRAP = 1000  # resamples for the standard errors that have no formula


def check_benchmarks(tasks: Sequence[str]) -> None:
    """UserError for a name that lm-eval does not have."""
    known = set(task_manager().all_tasks)
    for name in tasks:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else "`lm_eval ls tasks` lists them"
            raise UserError(f"benchmark {name!r}: lm-eval has no such task; {hint}")


@cache
def task_manager() -> Any:
    """lm-eval's index of tasks; reading some 10,000 files of them takes seconds."""
    with quiet():
        from lm_eval.tasks import TaskManager

        return TaskManager()


def run_benchmarks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    num_fewshot: int | None = None,
    data_dir: Path | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Evaluate lm-eval tasks, one after another; one that fails does not stop the others.

    Args:
        tasks: Names of tasks, groups (`blimp`: its mean) or tags (`ai2_arc`: each of its tasks).
        limit: Examples of each task; all when left out.
        seed: Of few-shot examples and whatever else is drawn.
        num_fewshot: Instead of each task's own number.
        data_dir: Folder with local copies of datasets; the Hub is asked for those that it lacks.

    Returns:
        `{task: {metric: {"value", "stderr"}, ..., "n": examples}}`, or `{task: {"error": one line}}`. Neither
        random generators nor the model's train/eval modes are touched.

    Raises:
        UserError: For a task that lm-eval does not have.
    """
    check_benchmarks(tasks)
    with quiet():
        from lm_eval.models.huggingface import HFLM

    results: dict[str, dict[str, Any]] = {}
    with rng_untouched(model), local_copies(data_dir), quiet(progress):
        from lm_eval import simple_evaluate

        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        for name in tasks:
            try:
                with writing_hub_cache():
                    found: Any = simple_evaluate(
                        model=harness,
                        tasks=[name],
                        task_manager=task_manager(),
                        limit=limit,
                        num_fewshot=num_fewshot,
                        bootstrap_iters=BOOTSTRAP,
                        log_samples=False,
                        random_seed=seed,
                        numpy_random_seed=seed,
                        torch_random_seed=seed,
                        fewshot_random_seed=seed,
                    )
                results |= figures_of(name, found)
            except DiskFull:
                raise
            except (OSError, ValueError) as error:
                # what datasets raises without a network, without a copy, or for a copy that is not whole
                results[name] = {"error": why_missing(error, data_dir)}
            except Exception as error:  # tasks are other people's code: one that breaks must not end the rest
                results[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"}
            if "error" in results.get(name, {}):
                logger.warning("benchmark %s: %s", name, results[name]["error"])
    return results


def figures_of(name: str, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """lm-eval's results of one task, group or tag; a group counts as one, a tag as its tasks."""
    own = [name] if _metrics(found["results"].get(name, {})) else [*found.get("n-samples", {})]
    sizes = {task: count["effective"] for task, count in found.get("n-samples", {}).items()}
    return {
        task: {**_metrics(found["results"][task]), "n": sizes.get(task, sum(sizes.values()))} for task in own
    }


def _metrics(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """`{"acc,none": 0.3, "acc_stderr,none": 0.1}` to `{"acc": {"value": 0.3, "stderr": 0.1}}`."""
    metrics = {}
    for key, value in result.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = result.get(f"{metric}_stderr,{filtered}")
        label = metric if filtered == "none" else f"{metric} ({filtered})"
        metrics[label] = {"value": float(value), "stderr": stderr if isinstance(stderr, float) else None}
    return metrics
