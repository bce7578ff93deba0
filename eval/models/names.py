"""What the user wrote, to models that can be loaded: checkpoints of a run, revisions, Tidy-STLMs files.

    outputs/run               a run folder, or any folder of `save_pretrained`, or a peft adapter
    outputs/run@step=400      its checkpoint of step 400
    outputs/run@all           every checkpoint of it, and its final model where that is later
    outputs/run@last          the latest of these
    EleutherAI/pythia-70m@step1000    a model of the Hub, at a branch, tag or commit
    checkpoints/model.pt      a checkpoint of Tidy-STLMs; converted once, into the cache folder

`expand_names` also makes sure that each of them is a model, before anything long starts.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once
from tidy_stlms.eval.models.load import (
    check_model_path,
    has_weights,
    resolve_commit,
    tokenizer_hash,
)
from tidy_stlms.eval.run_folder import CHECKPOINT, checkpoints_of, final_step, is_run, step_of

logger = logging.getLogger(__name__)

STEP = re.compile(r"step=(\d+)")
PICKLED = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ModelName:
    """One model to evaluate, under the name that reports call it by."""

    label: str
    path: str
    """What `load_model` takes."""
    revision: str | None = None
    """For a model of the Hub: the commit, or what was written where no commit is known."""
    step: int | None = None
    """Optimizer steps that it was trained for, where its run says so."""
    run: str | None = None
    """The run folder that it belongs to, whose plan and facts stand there."""


def expand_names(names: Sequence[str], *, cache: Path, tokenizer: str | None = None) -> list[ModelName]:
    """The models that `names` stand for, in order, each once; UserError for the first that is none.

    `cache` is the folder that keeps converted checkpoints of Tidy-STLMs, `tokenizer` what they are read with:
    a `bpe_NAME_SIZE.model` file, a folder or a Hub id.
    """
    found: dict[str, ModelName] = {}
    for name in names:
        for model in _expand(name, cache, tokenizer):
            found.setdefault(model.label, model)
    return list(found.values())


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
    head, at, chosen = name.rpartition("@")
    if not at or path.exists():
        return [_plain(name)]
    if Path(head).is_dir():
        return _of_run(str(Path(head)), chosen)
    check_model_path(head, revision=chosen)
    return [ModelName(name, head, revision=resolve_commit(head, chosen) or chosen)]


def _plain(name: str) -> ModelName:
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


def _of_run(run: str, chosen: str) -> list[ModelName]:
    """The checkpoints of a run folder that `step=N`, `all` or `last` stands for."""
    folder = Path(run)
    steps = saved_steps(folder)
    final = final_step(folder)
    models = [ModelName(f"{run}@step={step}", str(path), step=step, run=run) for step, path in steps.items()]
    # without a known step it is taken for later than what was saved on the way
    if has_weights(folder) and (final is None or final > max(steps, default=-1)):
        label = run if final is None else f"{run}@step={final}"
        models.append(ModelName(label, run, step=final, run=run))
    there = ", ".join(str(model.step) for model in models if model.step is not None) or "none"
    if not models:
        raise UserError(
            f"{run}@{chosen}: the folder holds no checkpoint-N and no model; was its run cut off?"
        )
    if chosen == "last":
        models = models[-1:]
    elif match := STEP.fullmatch(chosen):
        models = [model for model in models if model.step == int(match[1])]
        if not models:
            raise UserError(f"{run}@{chosen}: no such checkpoint; the steps that were saved: {there}")
    elif chosen != "all":
        raise UserError(
            f"{run}@{chosen}: a run takes @step=N, @all or @last; the steps that were saved: {there}"
        )
    for model in models:
        check_model_path(model.path)
    return models


def _converted(checkpoint: Path, cache: Path, tokenizer: str | None) -> Path:
    """The folder of a Tidy-STLMs checkpoint's conversion, kept by the checkpoint's content."""
    from modeling_stlm.tidy.convert import convert_checkpoint, read_tokenizer

    if tokenizer is None:
        raise UserError(
            f"{checkpoint}: a checkpoint of Tidy-STLMs holds no tokenizer; give its own by --tokenizer "
            "(bpe_NAME_SIZE.model, or gpt2)"
        )
    found = read_tokenizer(tokenizer)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / "converted" / f"{digest[:24]}-{tokenizer_hash(found)}"

    def build(temporary: Path) -> None:
        for line in convert_checkpoint(checkpoint, temporary / "model", tokenizer=found):
            logger.warning("%s: %s", checkpoint, line)

    build_once(folder, build)
    return folder / "model"
