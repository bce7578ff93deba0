"""What makes a run resumable: whole checkpoints, its geometry, and logs cut back to the checkpoint.

A run may be killed at any moment, also during a save. So a checkpoint is written to the folder `SAVING`,
flushed to the disk and renamed when it is complete. Its last file, the mark, holds the size and
hash of every other file and of the logs. A resume finds damage by them and goes on from the newest
whole checkpoint. It removes what was written after that checkpoint, log lines too, so that a resumed run
leaves the same files as an uninterrupted one.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path

from transformers import TrainerState

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import flush, flush_folder, remove_folder
from tidy_stlms.configs.load import read_config
from tidy_stlms.configs.schema import STLMTrainingArguments, schedule_arguments
from tidy_stlms.eval.checkpoint_mark import MARK, Mark, check_files, read_mark, sizes_and_hashes, write_mark
from tidy_stlms.trainers.stream import Geometry

logger = logging.getLogger(__name__)

SAVING = ".saving"  # in the run folder: what is being saved, until it is whole
LOGS = ("metrics.jsonl", "recall.jsonl", "generations.jsonl")
STATE_FILE = "trainer_state.json"


def mark_whole(
    folder: Path,
    run_folder: Path,
    *,
    run_id: str,
    step: int,
    processes: int,
    geometry: Geometry,
    loss_sum: float,
    last_logged: int,
) -> None:
    """Write the mark of the checkpoint in `folder`, after its files and the run's logs are on the disk.

    The other arguments are those of `Mark`.
    """
    logs = {name: run_folder / name for name in LOGS if (run_folder / name).exists()}
    for path in logs.values():
        flush(path)
    flush(run_folder)
    flush_folder(folder)
    mark = Mark(
        run_id=run_id,
        step=step,
        processes=processes,
        geometry=asdict(geometry),
        logs={name: _count_and_hash(path) for name, path in logs.items()},
        files=sizes_and_hashes(folder),
        loss_sum=loss_sum,
        last_logged=last_logged,
    )
    write_mark(folder, mark)


def check_checkpoint(checkpoint: Path, run_id: str) -> None:
    """Raise UserError, naming the file, if a file of a checkpoint is missing, changed or another run's."""
    mark = read_mark(checkpoint)
    if mark.run_id != run_id:
        raise UserError(f"{checkpoint}: was saved by another run")
    if mark.step != step_of(checkpoint):
        raise UserError(f"{checkpoint / MARK}: belongs to step {mark.step}")
    check_files(checkpoint, mark)
    try:
        TrainerState.load_from_json(str(checkpoint / STATE_FILE))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{checkpoint / STATE_FILE}: cannot be read by this version of transformers ({error})"
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


def newest_whole_checkpoint(folder: str | Path, run_id: str) -> tuple[Path | None, list[UserError]]:
    """The newest checkpoint of a run that is whole, and what is wrong with those after it."""
    damage: list[UserError] = []
    for checkpoint in reversed(checkpoints_of(folder)):
        try:
            check_checkpoint(checkpoint, run_id)
        except UserError as error:
            damage.append(error)
        else:
            return checkpoint, damage
    return None, damage


def checkpoint_to_resume(folder: str | Path, run_id: str) -> Path | None:
    """The newest whole checkpoint of a run; None if none has been saved yet.

    Logs a warning for each damaged checkpoint that it skips. Raises UserError if all are damaged.
    """
    checkpoint, damage = newest_whole_checkpoint(folder, run_id)
    if damage and checkpoint is None:
        raise UserError(
            f"{'; '.join(map(str, damage))}: no checkpoint is whole; start anew in another "
            "training.output_dir, or with --overwrite"
        )
    for reason in damage:
        logger.warning("%s; it is passed over", reason)
    return checkpoint


def named_checkpoint(folder: str | Path, path: str, run_id: str) -> Path:
    """The checkpoint of a run that `path` names. Raises UserError if it is damaged, or not the run's."""
    for checkpoint in checkpoints_of(folder):
        if checkpoint.resolve() in (Path(path).resolve(), (Path(folder) / path).resolve()):
            check_checkpoint(checkpoint, run_id)
            return checkpoint
    raise UserError(f"{path}: is not a checkpoint of {folder}")


def checkpoints_of(folder: str | Path) -> list[Path]:
    """The checkpoints in a run folder, in order of their steps."""
    named = (path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted(filter(Path.is_dir, named), key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def remove_old_checkpoints(folder: Path, limit: int | None) -> None:
    """Keep the newest `limit` checkpoints; None or 0 keeps all."""
    if limit is not None and limit > 0:
        for checkpoint in checkpoints_of(folder)[:-limit]:
            remove_folder(checkpoint)


def prepare_resume(folder: str | Path, checkpoint: Path | None, save_total_limit: int | None = None) -> None:
    """Remove what a run wrote after `checkpoint`, or everything if it is None, and the oldest checkpoints.

    A kill may have come between the last save and the removal of the oldest ones.
    """
    last_step = step_of(checkpoint) if checkpoint else -1
    for path in checkpoints_of(folder):
        if step_of(path) > last_step:
            logger.warning("removing %s: it comes after the point to go on from", path)
            remove_folder(path)
    remove_old_checkpoints(Path(folder), save_total_limit)
    logs = read_mark(checkpoint).logs if checkpoint else {}
    for name in LOGS:
        log = Path(folder) / name
        if log.exists():
            lines, digest = logs.get(name) or (0, "")
            os.truncate(log, _end_of_lines(log, lines, digest, last_step) if lines else 0)


# What the parts of the geometry that are hashes follow from, as the keys of the config.
DECIDED_BY = {
    "corpus": "data and tokenizer",
    "injection": "training.max_steps, injection and facts",
    "model": "model and tokenizer",
}


def load_stream_state(checkpoint: str | Path, geometry: Geometry) -> tuple[float, int]:
    """Return (loss_sum, last_logged); raises UserError if the run's geometry is another one."""
    mark = read_mark(Path(checkpoint))
    for key, now in asdict(geometry).items():
        before = mark.geometry.get(key)
        if before != now:
            keys = DECIDED_BY.get(key)
            other = f"another {key} ({keys} decide it)" if keys else f"{key}={before}, this run has {now}"
            raise UserError(
                f"{checkpoint}: was written with {other}; a resumed run must "
                "see the same stream: use the same config, or start anew in another training.output_dir"
            )
    return mark.loss_sum, mark.last_logged


# What a resumed optimizer and schedule take from the checkpoint, whatever the config says by then.
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


def check_optimizer_settings(folder: str | Path, args: STLMTrainingArguments) -> None:
    """UserError where `args` differ from the run's own config in what a checkpoint keeps.

    The new values would be ignored, in whole or in part, and config.yaml would name them all the same.
    """
    before = read_config(Path(folder) / "config.yaml").get("training", {})
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


def _end_of_lines(log: Path, lines: int, digest: str, last_step: int) -> int:
    """Where the first `lines` lines of a log end, in bytes.

    Raises UserError if there are fewer, one of them is not a JSON object of a step up to `last_step`, or
    they are not those that `digest` was made of.
    """
    if not log.exists():
        raise UserError(f"{log}: is missing")
    hashed, ends = hashlib.sha256(), [0]
    for number, (line, end) in enumerate(_lines_and_ends(log), 1):
        if len(ends) > lines:
            break
        if not line:
            continue
        try:
            step = json.loads(line.decode())["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{log}, line {number}: is damaged") from None
        if not isinstance(step, int) or step > last_step:
            raise UserError(f"{log}, line {number}: belongs to step {step}, not to one up to {last_step}")
        hashed.update(line + b"\n")
        ends.append(end)
    if (seen := len(ends) - 1) < lines:
        raise UserError(f"{log}: lines are missing, it has {seen} of the {lines} up to step {last_step}")
    if hashed.hexdigest() != digest:
        raise UserError(f"{log}: its lines up to step {last_step} have changed since they were written")
    return ends[-1]


def _lines_and_ends(log: Path) -> Iterator[tuple[bytes, int]]:
    """The lines of a log, without the marks that an editor may add, and the byte after each."""
    end = 0
    with log.open("rb") as file:
        for line in file:
            end += len(line)
            yield line.removeprefix(b"\xef\xbb\xbf").strip(), end


def _count_and_hash(log: Path) -> list:
    hashed, count = hashlib.sha256(), 0
    for line, _ in _lines_and_ends(log):
        if line:
            hashed.update(line + b"\n")
            count += 1
    return [count, hashed.hexdigest()]
