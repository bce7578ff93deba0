"""Expands what the user wrote to models that can be loaded: checkpoints, revisions, Tidy-STLMs files.

    outputs/run               a run folder, or any folder of `save_pretrained`, or a peft adapter
    outputs/run@step=400      its checkpoint of step 400
    outputs/run@all           all its checkpoints, and its final model if that is later
    outputs/run@last          the last of these
    EleutherAI/pythia-70m@step1000    a model of the Hub, at a branch, tag or commit
    checkpoints/model.pt      a checkpoint of Tidy-STLMs; converted once, into the cache folder

`expand_names` also checks that each of them is a model, before anything long starts.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once
from tidy_stlms.eval.models.lookup import check_model_path, has_weights, resolve_commit
from tidy_stlms.eval.run_folder import CHECKPOINT, checkpoints_of, final_step, is_run, step_of
from tidy_stlms.eval.tokens import tokenizer_hash

logger = logging.getLogger(__name__)

STEP = re.compile(r"step=(\d+)")
PICKLED = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ModelName:
    """One model to evaluate."""

    label: str
    """The model's name in reports."""
    path: str
    """What `load_model` takes."""
    revision: str | None = None
    """For a model of the Hub: the commit, or what the user wrote if no commit is known."""
    step: int | None = None
    """Optimizer steps that it was trained for, if its run says so."""
    run: str | None = None
    """The run folder that it belongs to, with the run's plan and facts."""


def expand_names(names: Sequence[str], *, cache: Path, tokenizer: str | None = None) -> list[ModelName]:
    """The models that `names` stand for, in order, without repetitions.

    Args:
        cache: Folder for converted checkpoints of Tidy-STLMs.
        tokenizer: Their tokenizer: a `bpe_NAME_SIZE.model` file, a folder or a Hub id.

    Raises:
        UserError: For the first name that stands for no model.
    """
    models: dict[str, ModelName] = {}
    for name in names:
        for model in _expand(name, cache, tokenizer):
            models.setdefault(model.label, model)
    return list(models.values())


def saved_steps(run: Path) -> dict[int, Path]:
    """A run's checkpoints that hold a model, by step; half-written ones are left out."""
    steps = {}
    for folder in checkpoints_of(run):
        if has_weights(folder):
            steps[step_of(folder)] = folder
        else:
            logger.warning("%s: holds no weights (was its run cut off?); left out", folder)
    return steps


def _expand(name: str, cache: Path, tokenizer: str | None) -> list[ModelName]:
    path = Path(name)
    if path.is_file() and path.suffix in PICKLED:
        return [ModelName(name, str(_converted(path, cache, tokenizer)))]
    base, at_sign, suffix = name.rpartition("@")
    if not at_sign or path.exists():
        return [_without_suffix(name)]
    if Path(base).is_dir():
        return _checkpoints_of_run(str(Path(base)), suffix)
    check_model_path(base, revision=suffix)
    return [ModelName(name, base, revision=resolve_commit(base, suffix) or suffix)]


def _without_suffix(name: str) -> ModelName:
    check_model_path(name)
    folder = Path(name)
    if not folder.is_dir():
        return ModelName(name, name, revision=resolve_commit(name, None))
    label = str(folder)  # "./run/" and "run" are one model
    if match := CHECKPOINT.fullmatch(folder.name):
        run = str(folder.parent) if is_run(folder.parent) else None
        return ModelName(label, name, step=int(match[1]), run=run)
    if is_run(folder):
        return ModelName(label, name, step=final_step(folder), run=label)
    return ModelName(label, name)


def _checkpoints_of_run(run: str, suffix: str) -> list[ModelName]:
    """The models of a run folder for the suffix `step=N`, `all` or `last`."""
    folder = Path(run)
    steps = saved_steps(folder)
    final = final_step(folder)
    models = [ModelName(f"{run}@step={step}", str(path), step=step, run=run) for step, path in steps.items()]
    # a final model whose step is unknown counts as later than all checkpoints
    if has_weights(folder) and (final is None or final > max(steps, default=-1)):
        label = run if final is None else f"{run}@step={final}"
        models.append(ModelName(label, run, step=final, run=run))
    steps_saved = ", ".join(str(model.step) for model in models if model.step is not None) or "none"
    if not models:
        raise UserError(
            f"{run}@{suffix}: the folder holds no checkpoint-N and no model; was its run cut off?"
        )
    if suffix == "last":
        models = models[-1:]
    elif match := STEP.fullmatch(suffix):
        models = [model for model in models if model.step == int(match[1])]
        if not models:
            raise UserError(f"{run}@{suffix}: no such checkpoint; the steps that were saved: {steps_saved}")
    elif suffix != "all":
        raise UserError(
            f"{run}@{suffix}: a run takes @step=N, @all or @last; the steps that were saved: {steps_saved}"
        )
    for model in models:
        check_model_path(model.path)
    return models


def _converted(checkpoint: Path, cache: Path, tokenizer: str | None) -> Path:
    """Convert a checkpoint of Tidy-STLMs, and return the model's folder in the cache.

    The folder's name holds hashes of checkpoint and tokenizer, so that equal files are converted once.
    """
    from modeling_stlm.tidy.convert import convert_checkpoint
    from tidy_stlms.eval.models.read import read_tokenizer

    if tokenizer is None:
        raise UserError(
            f"{checkpoint}: a checkpoint of Tidy-STLMs holds no tokenizer; give its own by --tokenizer "
            "(bpe_NAME_SIZE.model, or gpt2)"
        )
    own_tokenizer = read_tokenizer(tokenizer)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / "converted" / f"{digest[:24]}-{tokenizer_hash(own_tokenizer)}"

    def build(temporary: Path) -> None:
        for line in convert_checkpoint(checkpoint, temporary / "model", tokenizer=own_tokenizer):
            logger.warning("%s: %s", checkpoint, line)

    build_once(folder, build)
    return folder / "model"
