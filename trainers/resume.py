"""Resumes a run: chooses the checkpoint, checks the settings, and cuts the logs back to the checkpoint.

Everything that was written after the checkpoint is removed, log lines too, so that a resumed run leaves the
same files as an uninterrupted one.
"""

import hashlib
import logging
import os
from dataclasses import asdict
from enum import Enum
from pathlib import Path

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import parse_json, read_json_object, remove_folder
from tidy_stlms.configs.schema import STLMTrainingArguments, schedule_arguments
from tidy_stlms.eval.checkpoint_mark import Mark, read_mark
from tidy_stlms.eval.run_folder import (
    ENVIRONMENT,
    SUMMARY,
    checkpoints_of,
    is_laid_out,
    read_run_config,
    step_of,
)
from tidy_stlms.trainers.checkpoints import (
    LOGS,
    checkpoint_to_resume,
    lines_and_ends,
    named_checkpoint,
    remove_old_checkpoints,
)
from tidy_stlms.trainers.packing import JOINED
from tidy_stlms.trainers.stream import Geometry

logger = logging.getLogger(__name__)

# What decides each value of the geometry, for errors: a hash alone says nothing to the user.
DECIDED_BY = {
    "rows_per_step": (
        "training.per_device_train_batch_size x training.gradient_accumulation_steps x number of processes"
    ),
    "context_window": "data.context_window",
    "seed": "training.seed",
    "rows_per_pass": "data or tokenizer",
    "corpus": "data or tokenizer",
    "injection": "training.max_steps, injection or facts",
    "model": "model or tokenizer",
    "packing": "data.packing",
}
# Settings that a resumed optimizer and schedule take from the checkpoint. New values in the config have no
# effect, so they are refused.
KEPT_BY_CHECKPOINT = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)


def find_checkpoint(args: STLMTrainingArguments) -> Path | None:
    """The checkpoint that `training.resume_from_checkpoint` stands for; None to start from the beginning.

    Raises UserError if no checkpoint can be used, if a log line up to it is missing or changed, or if a
    setting of `KEPT_BY_CHECKPOINT` is not the run's.
    """
    if not args.resume_from_checkpoint:
        return None
    folder = Path(args.output_dir)
    checkpoint = _named_or_newest(folder, args.resume_from_checkpoint)
    if checkpoint is None:
        logger.warning("%s has no checkpoint: starting from the beginning", folder)
        return None
    check_logs(checkpoint)
    check_optimizer_settings(folder, args)
    return checkpoint


def check_resume(checkpoint: Path, args: STLMTrainingArguments, geometry: Geometry) -> None:
    """Log where the run goes on.

    Raises UserError if the run's geometry is another one, or `max_steps` is passed already.
    """
    mark = check_geometry(checkpoint, geometry)
    if step_of(checkpoint) > args.max_steps:
        raise UserError(f"training.max_steps={args.max_steps}: {checkpoint} is already past it")
    logger.warning("going on from %s (step %d of %d)", checkpoint, step_of(checkpoint), args.max_steps)
    if mark.processes != args.world_size:
        logger.warning(
            "%s was saved by %d processes, this run has %d: dropout draws other numbers than in an "
            "uninterrupted run",
            *(checkpoint, mark.processes, args.world_size),
        )


def _named_or_newest(folder: Path, wanted: str | bool) -> Path | None:
    """The checkpoint that is named, or the newest whole one of the run, if it has any."""
    if isinstance(wanted, str):
        return named_checkpoint(folder, wanted, read_run_id(folder) if is_laid_out(folder) else "")
    if not is_laid_out(folder):
        return None
    checkpoint = checkpoint_to_resume(folder, read_run_id(folder))
    if checkpoint is None and (folder / SUMMARY).exists():
        raise UserError(
            f"{folder}: the run is finished and has no checkpoint; take another training.output_dir, or "
            "pass --overwrite to replace it"
        )
    return checkpoint


def read_run_id(folder: Path) -> str:
    """The id of the run in `folder`. Raises UserError if environment.json does not hold it."""
    try:
        return str(read_json_object(folder / ENVIRONMENT)["run_id"])
    except (UserError, KeyError):
        raise UserError(
            f"{folder / ENVIRONMENT}: is missing or has no run_id, so the run cannot be resumed; restore the "
            "file, or start anew in another training.output_dir, or with --overwrite"
        ) from None


def check_logs(checkpoint: Path) -> None:
    """Raise UserError, naming the line, if a log line up to a checkpoint is missing or cannot be read."""
    mark = read_mark(checkpoint)
    for name, (lines, digest) in mark.logs.items():
        try:
            _end_of_lines(checkpoint.parent / name, lines, digest, mark.step)
        except UserError as error:
            raise UserError(
                f"{error}; restore the file, or go on from a checkpoint that was saved before that line, if "
                "there is one (training.resume_from_checkpoint=checkpoint-N)"
            ) from None


def check_geometry(checkpoint: Path, geometry: Geometry) -> Mark:
    """The checkpoint's mark.

    Raises UserError if the run's geometry is another one: its positions would stand for other rows.
    """
    mark = read_mark(checkpoint)
    # earlier versions joined all documents, and did not record it
    written = {"packing": JOINED, **mark.geometry}
    for key, now in asdict(geometry).items():
        before = written.get(key)
        if before != now:
            is_plain = isinstance(now, int) or key == "packing"
            other = f"{key}={before}, this run has {now}" if is_plain else f"another {key}"
            remedy = f"set data.packing={before}" if key == "packing" else "use the same config"
            raise UserError(
                f"{checkpoint}: was written with {other} (set by {DECIDED_BY[key]}); a resumed run must "
                f"see the same stream: {remedy}, or start anew in another training.output_dir"
            )
    return mark


def load_stream_state(checkpoint: Path, geometry: Geometry) -> tuple[float, int]:
    """The checkpoint's `(loss_sum, last_logged)`: the loss since the last logged one, and that one's step.

    Raises UserError if the run's geometry is another one.
    """
    mark = check_geometry(checkpoint, geometry)
    return mark.loss_sum, mark.last_logged


def check_optimizer_settings(folder: Path, args: STLMTrainingArguments) -> None:
    """UserError where `args` differ from the run's own config in what a checkpoint keeps.

    The new values would be ignored, in whole or in part, and config.yaml would name them all the same.
    """
    before = read_run_config(folder)["training"]
    if "lr_scheduler_type" in before:
        given = before.get("lr_scheduler_kwargs")
        before["lr_scheduler_kwargs"] = schedule_arguments(before["lr_scheduler_type"], given)
    for key in KEPT_BY_CHECKPOINT:
        now = getattr(args, key)
        now = now.value if isinstance(now, Enum) else now
        if key in before and before[key] != now:
            raise UserError(
                f"training.{key}={now}: this run has {before[key]}, which its checkpoints keep; "
                "remove the key, or start anew in another training.output_dir"
            )


def prepare_resume(folder: Path, checkpoint: Path | None, save_total_limit: int | None = None) -> None:
    """Remove what a run wrote after `checkpoint`, or everything if it is None, and the oldest checkpoints.

    The resumed run writes those log lines again. Without the cut, a reader would find each of them twice. The
    oldest checkpoints may still be there because a kill came between the last save and their removal.
    """
    last_step = step_of(checkpoint) if checkpoint else -1
    for path in checkpoints_of(folder):
        if step_of(path) > last_step:
            logger.warning("removing %s: it comes after the point to go on from", path)
            remove_folder(path)
    remove_old_checkpoints(folder, save_total_limit)
    logs = read_mark(checkpoint).logs if checkpoint else {}
    for name in LOGS:
        log = folder / name
        if log.exists():
            lines, digest = logs.get(name) or (0, "")
            os.truncate(log, _end_of_lines(log, lines, digest, last_step) if lines else 0)


def _end_of_lines(log: Path, lines: int, digest: str, last_step: int) -> int:
    """Where the first `lines` lines of a log end, in bytes.

    Raises UserError if there are fewer, one of them is not a JSON object of a step up to `last_step`, or
    their hash is not `digest`. The report reads all lines, so a changed one would get into its figures.
    """
    if not log.exists():
        raise UserError(f"{log}: is missing")
    hashed, ends = hashlib.sha256(), [0]
    for number, (line, end) in enumerate(lines_and_ends(log), 1):
        if len(ends) > lines:
            break
        if not line:
            continue
        row = parse_json(line, f"{log}, line {number}: is damaged")
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int):
            raise UserError(f"{log}, line {number}: is damaged: it has no step")
        if step > last_step:
            raise UserError(
                f"{log}, line {number}: belongs to step {shown(step)}, not to one up to {last_step}"
            )
        hashed.update(line + b"\n")
        ends.append(end)
    if (seen := len(ends) - 1) < lines:
        raise UserError(f"{log}: lines are missing, it has {seen} of the {lines} up to step {last_step}")
    if hashed.hexdigest() != digest:
        raise UserError(f"{log}: its lines up to step {last_step} have changed since they were written")
    return ends[-1]
