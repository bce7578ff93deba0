"""Public benchmarks by lm-eval, on a model that is already loaded.

results = run_benchmarks(model, tokenizer, ["blimp", "arc_easy"], limit=100)
results["arc_easy"]["acc"]  # Score(value=0.31, stderr=0.046)
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import DiskFull, UserError, nearest, one_line
from tidy_stlms.configs.records import Output
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.scoring.isolation import rng_untouched
from tidy_stlms.eval.study.public_data import local_copies, quiet, why_missing

logger = logging.getLogger(__name__)

BOOTSTRAP = 1000  # resamples for the standard errors that have no formula
SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")  # of simple_evaluate


class Score(Output, frozen=True):
    """A metric of a task."""

    value: float | None
    """The score, in the metric's unit; null if it is not a number, such as a correlation of equal values."""
    stderr: float | None
    """Standard error of the value; null if lm-eval gives none."""


TaskResult = dict[str, Score | int | str]
"""Of one task: its scores by metric, and `n`, the number of examples; or only `error`, one line."""


def check_benchmarks(tasks: Sequence[str]) -> None:
    """Raise UserError for a task that lm-eval does not have."""
    known = set(task_manager().all_tasks)
    for name in tasks:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else "`lm_eval ls tasks` lists them"
            raise UserError(f"benchmark {name!r}: lm-eval has no such task; {hint}")


@cache
def task_manager() -> Any:
    """lm-eval's index of tasks. It takes seconds to build, from some 10,000 files."""
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
) -> dict[str, TaskResult]:
    """Evaluate lm-eval tasks, one after another. A task that fails does not stop the others.

    Args:
        tasks: Names of tasks, groups (`blimp`: its mean) or tags (`ai2_arc`: each of its tasks).
        limit: Examples of each task; all when left out.
        seed: Of few-shot examples and all other random draws.
        num_fewshot: Instead of each task's own number.
        data_dir: Folder with local copies of datasets; the others come from the Hub.

    Returns:
        The result of each task, by name. The random generators and the model's train/eval modes stay as they
        were.

    Raises:
        UserError: For a task that lm-eval does not have.
    """
    check_benchmarks(tasks)
    with quiet():
        from lm_eval.models.huggingface import HFLM

    results: dict[str, TaskResult] = {}
    with rng_untouched(model), local_copies(data_dir), quiet(progress):
        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        for name in tasks:
            results |= _run_task(harness, name, limit, seed, num_fewshot, data_dir)
    return results


def _run_task(
    harness: Any, name: str, limit: int | None, seed: int, num_fewshot: int | None, data_dir: Path | None
) -> dict[str, TaskResult]:
    """The results of one of lm-eval's names, or its error."""
    from lm_eval import simple_evaluate

    try:
        with writing_hub_cache():
            output: Any = simple_evaluate(
                model=harness,
                tasks=[name],
                task_manager=task_manager(),
                limit=limit,
                num_fewshot=num_fewshot,
                bootstrap_iters=BOOTSTRAP,
                log_samples=False,
                **dict.fromkeys(SEEDS, seed),
            )
        return task_results(name, output)
    except DiskFull:
        raise
    except (OSError, ValueError) as error:
        # datasets raises these without a network, without a copy, and for a copy that is not whole
        reason = why_missing(error, data_dir)
    except Exception as error:  # other people's code: an error of one task must not stop the others
        reason = f"{type(error).__name__}: {one_line(error, 160)}"
    logger.warning("benchmark %s: %s", name, reason)
    return {name: {"error": reason}}


def task_results(name: str, output: dict[str, Any]) -> dict[str, TaskResult]:
    """The results in lm-eval's output for a task, for a group (one) or for a tag (one for each task)."""
    tasks = [name] if _scores(output["results"].get(name, {})) else [*output.get("n-samples", {})]
    sizes = {task: count["effective"] for task, count in output.get("n-samples", {}).items()}
    return {
        task: {**_scores(output["results"][task]), "n": sizes.get(task, sum(sizes.values()))}
        for task in tasks
    }


def _scores(result: dict[str, Any]) -> dict[str, Score]:
    """`{"acc,none": 0.3, "acc_stderr,none": 0.1}` to `{"acc": Score(0.3, 0.1)}`."""
    scores = {}
    for key, value in result.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = result.get(f"{metric}_stderr,{filtered}")
        label = metric if filtered == "none" else f"{metric} ({filtered})"
        scores[label] = Score(float(value), stderr if isinstance(stderr, float) else None)
    return scores
