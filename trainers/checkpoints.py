"""What makes a run resumable: whole checkpoints, its geometry, and logs cut back to the checkpoint.

A run may be killed at any moment, also during a save. So a checkpoint is written to the folder `SAVING`,
flushed to the disk and renamed when it is complete. Its last file, `MARK`, holds the size and hash of
every other file and the lengths of the logs. A resume finds damage by them and goes on from the newest
whole checkpoint. It removes what was written after that checkpoint, log lines too, so that a resumed run
leaves the same files as an uninterrupted one.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from transformers import TrainerState

from configs.errors import UserError
from configs.files import flush, flush_folder, read_json, remove_folder, to_json, write_json
from configs.load import read_config
from configs.schema import STLMTrainingArguments, schedule_arguments
from trainers.stream import Geometry

logger = logging.getLogger(__name__)

MARK = "checkpoint.json"
SAVING = ".saving"  # in the run folder: what is being saved, until it is whole
LOGS = ("metrics.jsonl", "recall.jsonl", "generations.jsonl")
STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Mark:
    """The content of `MARK`: what a resume needs besides the Trainer's own files."""

    run_id: str
    """Id of the run (`trainers.run_folder`). A checkpoint of another run is refused."""
    step: int
    processes: int
    geometry: dict
    loss_sum: float
    """Sum of the losses since the last logged one."""
    last_logged: int
    """The step at which a loss was last logged."""
    logs: dict[str, int]
    """Lines of each log file."""
    files: dict[str, list]
    """[bytes, SHA-256] of each other file of the checkpoint."""


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
        logs={name: _count_lines(path) for name, path in logs.items()},
        files={name: _size_and_hash(folder / name) for name in _file_names(folder)},
        loss_sum=loss_sum,
        last_logged=last_logged,
    )
    write_json(folder / MARK, {**asdict(mark), "sha256": _hash_of(asdict(mark))})


def read_mark(checkpoint: Path) -> Mark:
    """The mark of a checkpoint. Raises UserError if it is missing or was changed."""
    path = checkpoint / MARK
    if not path.exists():
        raise UserError(f"{path}: is missing")
    try:
        content = read_json(path)
        digest = content.pop("sha256")
        if digest != _hash_of(content):
            raise ValueError
        return Mark(**content)
    except (UserError, ValueError, TypeError, AttributeError, KeyError):
        raise UserError(f"{path}: is damaged") from None


def check_checkpoint(checkpoint: Path, run_id: str) -> None:
    """Raise UserError, naming the file, if a file of a checkpoint is missing, changed or another run's."""
    mark = read_mark(checkpoint)
    if mark.run_id != run_id:
        raise UserError(f"{checkpoint}: was saved by another run")
    if mark.step != step_of(checkpoint):
        raise UserError(f"{checkpoint / MARK}: belongs to step {mark.step}")
    for name, (size, digest) in mark.files.items():
        path = checkpoint / name
        if not path.is_file():
            raise UserError(f"{path}: is missing")
        if path.stat().st_size != size:
            raise UserError(f"{path}: is damaged, it has {path.stat().st_size:,} bytes of {size:,}")
        if _size_and_hash(path)[1] != digest:
            raise UserError(f"{path}: is damaged, its content has changed since it was saved")
    try:
        TrainerState.load_from_json(str(checkpoint / STATE_FILE))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{checkpoint / STATE_FILE}: cannot be read by this version of transformers ({error})"
        ) from None


def check_logs(checkpoint: Path) -> None:
    """Raise UserError, naming the line, if a log line up to a checkpoint is missing or cannot be read."""
    mark = read_mark(checkpoint)
    for name, lines in mark.logs.items():
        try:
            _end_of_lines(checkpoint.parent / name, lines, mark.step)
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
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=step_of)


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
    lines = read_mark(checkpoint).logs if checkpoint else {}
    for name in LOGS:
        log = Path(folder) / name
        if log.exists():
            os.truncate(log, _end_of_lines(log, lines.get(name, 0), last_step))


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


def _end_of_lines(log: Path, lines: int, last_step: int) -> int:
    """Where the first `lines` lines of a log end, in bytes.

    Raises UserError if there are fewer, or one of them is not a JSON object of a step up to `last_step`.
    """
    end = seen = 0
    if lines == 0:
        return 0
    if not log.exists():
        raise UserError(f"{log}: is missing")
    with log.open("rb") as file:
        for number, line in enumerate(file, 1):
            end += len(line)
            if not line.strip():
                continue
            try:
                step = json.loads(line.decode("utf-8-sig"))["step"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{log}, line {number}: is damaged") from None
            if not isinstance(step, int) or step > last_step:
                raise UserError(f"{log}, line {number}: belongs to step {step}, not to one up to {last_step}")
            seen += 1
            if seen == lines:
                return end
    raise UserError(f"{log}: lines are missing, it has {seen} of the {lines} written up to step {last_step}")


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _file_names(folder: Path) -> Sequence[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _size_and_hash(path: Path) -> list:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]


def _hash_of(content: dict) -> str:
    return hashlib.sha256(to_json(content, sort_keys=True).encode()).hexdigest()
