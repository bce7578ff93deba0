"""Public benchmarks by lm-eval, on a model that is already loaded.

results = run_benchmarks(model, tokenizer, ["blimp", "arc_easy"], limit=100)
results["arc_easy"]["acc"]  # Score(value=0.31, stderr=0.046)
"""

import contextlib
import io
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import DiskFull, UserError, nearest, one_line
from tidy_stlms.configs.records import Output
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.models.prefix import own_prefix, prefix_of
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
"""Of one task: its scores by metric, and `n`, the number of examples. If present, `n_too_long` is the number
of examples left out because they are longer than the model's context. Or only `error`, one line."""
TOO_LONG = "n_too_long"


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
    prefix: str | None = None,
    progress: bool = False,
) -> dict[str, TaskResult]:
    """Evaluate lm-eval tasks, one after another. A task that fails does not stop the others.

    Args:
        tasks: Names of tasks, groups (`blimp`: its mean) or tags (`ai2_arc`: each of its tasks).
        limit: Examples of each task; all when left out.
        seed: Of few-shot examples and all other random draws.
        num_fewshot: Instead of each task's own number.
        data_dir: Folder with local copies of datasets; the others come from the Hub.
        prefix: What stands before each text, as for `prefix_of`; None for the model's own. If that is what
            the tokenizer adds by itself, scores equal lm-eval's without further arguments; where BOS and
            end-of-text are one token, they equal those with `add_bos_token=True`.

    Returns:
        The result of each task, by name. Examples that the model cannot read whole are left out and counted;
        see `fitting.py`. The random generators and the model's train/eval modes stay as they were.

    Raises:
        UserError: For a task that lm-eval does not have.
    """
    check_benchmarks(tasks)
    options = {"limit": limit, "num_fewshot": num_fewshot, **dict.fromkeys(SEEDS, seed)}
    ids = prefix_of(model, tokenizer, prefix).ids
    own = own_prefix(tokenizer).ids
    lm_options = {"batch_size": batch_size, "prefix": None if ids == own else ids}
    results: dict[str, TaskResult] = {}
    with rng_untouched(model), local_copies(data_dir), quiet():
        for name in tasks:
            evaluate = partial(_run_task, model, tokenizer, name, progress, lm_options, options)
            results |= _results_or_error(evaluate, name, data_dir)
    return results


def _results_or_error(
    evaluate: Callable[[], dict[str, TaskResult]], name: str, data_dir: Path | None
) -> dict[str, TaskResult]:
    try:
        return evaluate()
    except DiskFull:
        raise
    except UserError as error:  # such as a context that is too short for all examples
        reason = one_line(error)
    except (OSError, ValueError) as error:
        # datasets raises these without a network, without a copy, and for a copy that is not whole
        reason = why_missing(error, data_dir)
        logger.debug("benchmark %s failed", name, exc_info=True)
    except Exception as error:  # other people's code: an error of one task must not stop the others
        reason = _reason(error)
        logger.debug("benchmark %s failed", name, exc_info=True)
    logger.warning("benchmark %s: %s", name, reason)
    return {name: {"error": reason}}


def _run_task(
    model: Any,
    tokenizer: Any,
    name: str,
    progress: bool,
    lm_options: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, TaskResult]:
    """The results of a task, group or tag of lm-eval; `options` are those of `simple_evaluate`."""
    from lm_eval import simple_evaluate
    from tqdm.auto import tqdm

    from tidy_stlms.eval.study.fitting import FittingLM, FittingTasks

    with (
        tqdm(desc=name, unit="request", disable=not progress) as bar,
        # lm-eval shows a bar for each task of a group and for each bootstrap, whether or not on a terminal
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        writing_hub_cache(),
    ):
        lm = FittingLM(pretrained=model, tokenizer=tokenizer, bar=bar, **lm_options)
        output: Any = simple_evaluate(
            model=lm,
            tasks=[name],
            task_manager=FittingTasks(task_manager(), lm),  # type: ignore[arg-type]  # stands for one
            bootstrap_iters=BOOTSTRAP,
            log_samples=False,
            **options,
        )
    return task_results(name, output, lm.counts())


def _reason(error: Exception) -> str:
    """Another library's error in one line. If it has no text, the line of code that failed."""
    text = one_line(error, 160)
    if not str(error).strip() and (frames := traceback.extract_tb(error.__traceback__)):
        text = f"in {Path(frames[-1].filename).name}: {one_line(frames[-1].line, 120)}"
    return f"{type(error).__name__}: {text}"


def task_results(
    name: str, output: dict[str, Any], counts: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, TaskResult]:
    """The results in lm-eval's output for a task, for a group (one) or for a tag (one for each task).

    `counts`: for each task, the examples that fit into the model's context, and those that do not.
    """
    counts = counts or {}
    tasks = [name] if _scores(output["results"].get(name, {})) else [*output.get("n-samples", {})]
    # lm-eval before 0.4.12 also counts the examples that are left out
    sizes = {
        task: min(count["effective"], counts.get(task, (count["effective"], 0))[0])
        for task, count in output.get("n-samples", {}).items()
    }
    results: dict[str, TaskResult] = {}
    for task in tasks:
        members = [task] if task in sizes else [*sizes]
        results[task] = {**_scores(output["results"][task]), "n": sum(sizes[each] for each in members)}
        if n_too_long := sum(counts[each][1] for each in members if each in counts):
            results[task][TOO_LONG] = n_too_long
    return results


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
