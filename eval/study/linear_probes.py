"""Linear probes: simple classifiers on a model's hidden states, trained and scored on tasks of GLUE.

    run_linear_probes(model, tokenizer, ["cola"])["probe:cola"]["matthews (mean)"]

The model stays as it is. The features of a sentence are its hidden states of the last layer, pooled in two
ways: their mean, and the state of the last token. Two sentences u and v become (u, v, |u - v|, u * v), as in
SentEval (Conneau and Kiela 2018, arXiv:1803.05449). The classifier is a logistic regression, or a ridge
regression if the target is a number. Cross-validation within the training split chooses its penalty. Scores
are those of GLUE (Wang et al. 2018, arXiv:1804.07461) on the validation split, since the labels of the test
split are not public.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.models.inputs import (
    context_length,
    fill_batches,
    forward_parameters,
    left_pad,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.scoring.budget import default_budget, memory_errors, run_batches
from tidy_stlms.eval.scoring.encoding import encode_prompts
from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched
from tidy_stlms.eval.study.benchmarks import Score, TaskResult
from tidy_stlms.eval.study.public_data import local_copies, quiet, why_missing

logger = logging.getLogger(__name__)

DATASET = "nyu-mll/glue"
PENALTIES = np.logspace(-4, 2, 7)
FOLDS = 5
BOOTSTRAP = 1000
POOLS = ("mean", "last")


@dataclass(frozen=True)
class LinearProbeTask:
    """A task of GLUE: the columns of its texts, and its scores by sklearn's or scipy's names."""

    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    regression: bool = False


TASKS = {
    "cola": LinearProbeTask(("sentence",), ("matthews",)),
    "sst2": LinearProbeTask(("sentence",), ("accuracy",)),
    "mrpc": LinearProbeTask(("sentence1", "sentence2"), ("accuracy", "f1")),
    "rte": LinearProbeTask(("sentence1", "sentence2"), ("accuracy",)),
    "wnli": LinearProbeTask(("sentence1", "sentence2"), ("accuracy",)),
    "qnli": LinearProbeTask(("question", "sentence"), ("accuracy",)),
    "stsb": LinearProbeTask(("sentence1", "sentence2"), ("pearson", "spearman"), regression=True),
}


def check_linear_probes(tasks: Sequence[str]) -> None:
    """Raise UserError for a task that is not in `TASKS`."""
    for name in tasks:
        if name not in TASKS:
            raise UserError(f"linear probe {name!r}: no such task; there are {', '.join(TASKS)}")


def run_linear_probes(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    batch_tokens: int | None = None,
    prefix: str | None = None,
    progress: bool = False,
) -> dict[str, TaskResult]:
    """Fit and score a linear probe for each task. A task without data does not stop the others.

    Args:
        limit: The most examples of each split, drawn with `seed`; all when left out.
        data_dir: Folder with a local copy of `nyu-mll/glue`; without it the data come from the Hub.
        prefix: What stands before each text, as for `prefix_of`; None for the model's own.

    Returns:
        The result of each task, by `probe:TASK`, with a score for each metric and pooling (`matthews (mean)`,
        `matthews (last)`). Standard errors are those of a bootstrap over examples.

    Raises:
        UserError: For a task that is not in `TASKS`.
    """
    check_linear_probes(tasks)
    results: dict[str, TaskResult] = {}
    for name in tasks:
        try:
            with writing_hub_cache():
                splits = _load(name, limit, seed, data_dir)
        except UserError as error:
            results[f"probe:{name}"] = {"error": why_missing(error.__cause__ or error, data_dir)}
            logger.warning("linear probe %s: %s", name, results[f"probe:{name}"]["error"])
            continue
        if (smallest := _smallest_class(TASKS[name], splits)) < 2:
            reason = f"one of its classes has {smallest} training examples; 2 are the least (--limit)"
            results[f"probe:{name}"] = {"error": reason}
            logger.warning("linear probe %s: %s", name, reason)
            continue
        options: dict[str, Any] = {"batch_tokens": batch_tokens, "prefix": prefix, "progress": progress}
        results[f"probe:{name}"] = _fit_and_score(model, tokenizer, TASKS[name], splits, seed, **options)
    return results


def text_features(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_tokens: int | None = None,
    prefix: str | None = None,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Hidden states of the last layer, pooled: `{"mean": (texts, hidden), "last": (texts, hidden)}`.

    `prefix` is what stands before each text, as for `prefix_of`; its hidden states count too.
    """
    import torch
    from tqdm.auto import tqdm

    context = context_length(model)
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    limits = None if context is None else [context] * len(texts)
    rows = encode_prompts(tokenizer, texts, limits, prefix=prefix_ids)
    pad_id, taken = padding_id(model, tokenizer), forward_parameters(model)
    budget = default_budget(model, batch_tokens)
    pooled: dict[str, list[Any]] = {pool: [None] * len(rows) for pool in POOLS}

    def run(indices: list[int]) -> None:
        batch = left_pad([rows[i] for i in indices], pad_id, model.device)
        arguments = {**batch, "use_cache": False, "logits_to_keep": 1}
        # many models take output_hidden_states without naming it in their signature
        outputs = model(
            **{name: value for name, value in arguments.items() if name in taken}, output_hidden_states=True
        )
        hidden = outputs.hidden_states[-1].float()  # (batch, seq, hidden)
        mask = batch["attention_mask"][..., None]  # (batch, seq, 1)
        means = (hidden * mask).sum(1) / mask.sum(1)
        for pool, values in (("mean", means), ("last", hidden[:, -1])):
            for index, value in zip(indices, values.cpu().numpy(), strict=True):
                pooled[pool][index] = value
        bar.update(len(indices))

    with (
        torch.no_grad(),
        rng_untouched(model),
        eval_mode(model),
        memory_errors(model),
        tqdm(total=len(rows), desc="features", unit="text", disable=not progress) as bar,
    ):
        lengths = [len(row) for row in rows]
        batches = fill_batches(
            lengths,
            [1] * len(rows) if "logits_to_keep" in taken else lengths,
            batch_tokens=budget.tokens,
            max_logits=budget.logits // text_config(model).vocab_size,
            same_length=not pads_safely(model, rows, pad_id),
        )
        run_batches(batches, run, budget)
    return {pool: np.stack(values) for pool, values in pooled.items()}


def _load(name: str, limit: int | None, seed: int, data_dir: Path | None) -> dict[str, dict[str, list]]:
    """Columns of the training and validation split. Raises UserError if the dataset cannot be read."""
    import datasets

    splits = {}
    with local_copies(data_dir), quiet(), reading(f"{DATASET}/{name}"):
        loaded: Any = datasets.load_dataset(DATASET, name)
        for split in ("train", "validation"):
            rows = loaded[split]
            if limit is not None and limit < len(rows):
                rows = rows.shuffle(seed=seed).select(range(limit))
            splits[split] = {column: list(rows[column]) for column in (*TASKS[name].columns, "label")}
    return splits


def _fit_and_score(
    model: Any,
    tokenizer: Any,
    task: LinearProbeTask,
    splits: dict[str, dict[str, list]],
    seed: int,
    **options: Any,
) -> TaskResult:
    """`options` are those of `text_features`."""
    features: dict[str, dict[str, np.ndarray]] = {}
    for split, columns in splits.items():
        sides = [text_features(model, tokenizer, columns[column], **options) for column in task.columns]
        features[split] = {pool: _combine([side[pool] for side in sides]) for pool in POOLS}
    truth = np.asarray(splits["validation"]["label"])
    folds = min(FOLDS, _smallest_class(task, splits))
    result: TaskResult = {}
    for pool in POOLS:
        classifier = _classifier(task, seed, folds).fit(features["train"][pool], splits["train"]["label"])
        predicted = classifier.predict(features["validation"][pool])
        for metric in task.metrics:
            result[f"{metric} ({pool})"] = _scored(SCORERS[metric], truth, predicted, seed)
    return {**result, "n": len(truth)}


def _smallest_class(task: LinearProbeTask, splits: dict[str, dict[str, list]]) -> int:
    """The number of training examples of the rarest class; of a regression, of all examples."""
    labels = splits["train"]["label"]
    counts = Counter(labels)
    return len(labels) if task.regression else min(counts[label] for label in range(max(2, len(counts))))


def _combine(sides: list[np.ndarray]) -> np.ndarray:
    if len(sides) == 1:
        return sides[0]
    left, right = sides
    return np.concatenate([left, right, np.abs(left - right), left * right], axis=1)


def _classifier(task: LinearProbeTask, seed: int, n_folds: int) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if task.regression:
        return make_pipeline(StandardScaler(), RidgeCV(alphas=1 / PENALTIES[::-1]))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return GridSearchCV(model, {"logisticregression__C": PENALTIES}, cv=folds)


def _scored(metric: Callable, truth: np.ndarray, predicted: np.ndarray, seed: int) -> Score:
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(truth), size=(BOOTSTRAP, len(truth)))
    resampled = [metric(truth[rows], predicted[rows]) for rows in drawn]
    return Score(float(metric(truth, predicted)), float(np.nanstd(resampled)))


def _accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float((truth == predicted).mean())


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    right = ((truth == 1) & (predicted == 1)).sum()
    return float(2 * right / max((truth == 1).sum() + (predicted == 1).sum(), 1))


def _pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Correlation; 0 where one side does not vary (for classes of 0 and 1 it is Matthews' coefficient)."""
    if truth.std() == 0 or predicted.std() == 0:
        return 0.0
    return float(np.corrcoef(truth, predicted)[0, 1])


def _spearman(truth: np.ndarray, predicted: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(truth), rankdata(predicted))


SCORERS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _pearson,
    "pearson": _pearson,
    "spearman": _spearman,
}
