"""Whole checkpoints: how one is marked, found, checked and removed.

A run may be killed at any moment, also during a save. So a checkpoint is written to the folder `SAVING`,
flushed to the disk, marked, and only then renamed to `checkpoint-N`. The mark is its last file. A checkpoint
with a mark is whole, since all that the mark describes was on the disk before it was written. The mark holds
the size and hash of every other file and of the logs, by which later damage is found.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from transformers import TrainerState

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import flush, flush_folder, remove_folder
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.checkpoint_mark import MARK, Mark, check_files, read_mark, sizes_and_hashes, write_mark
from tidy_stlms.eval.run_folder import LOGS, checkpoints_of, step_of
from tidy_stlms.trainers.stream import Geometry

logger = logging.getLogger(__name__)

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

    Logs first: a mark counts their lines, and a power failure must not leave a mark of lines that are lost.
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
    with reading(f"{checkpoint / STATE_FILE}: cannot be read by this version of transformers"):
        TrainerState.load_from_json(str(checkpoint / STATE_FILE))


def newest_whole_checkpoint(folder: Path, run_id: str) -> tuple[Path | None, list[UserError]]:
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


def checkpoint_to_resume(folder: Path, run_id: str) -> Path | None:
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


def named_checkpoint(folder: Path, path: str, run_id: str) -> Path:
    """The checkpoint of a run that `path` names. Raises UserError if it is damaged, or not the run's."""
    for checkpoint in checkpoints_of(folder):
        if checkpoint.resolve() in (Path(path).resolve(), (folder / path).resolve()):
            check_checkpoint(checkpoint, run_id)
            return checkpoint
    names = ", ".join(checkpoint.name for checkpoint in checkpoints_of(folder)) or "none"
    raise UserError(
        f"training.resume_from_checkpoint={path}: is not a checkpoint of {folder}, which has {names}"
    )


def remove_old_checkpoints(folder: Path, limit: int | None) -> None:
    """Keep the newest `limit` checkpoints; None or 0 keeps all."""
    if limit is not None and limit > 0:
        for checkpoint in checkpoints_of(folder)[:-limit]:
            remove_folder(checkpoint)


def lines_and_ends(log: Path) -> Iterator[tuple[bytes, int]]:
    """The lines of a log, and the byte after each.

    An editor may add a byte order mark or white space; lines come without them, so they keep their hash.
    """
    end = 0
    with log.open("rb") as file:
        for line in file:
            end += len(line)
            yield line.removeprefix(b"\xef\xbb\xbf").strip(), end


def _count_and_hash(log: Path) -> tuple[int, str]:
    hashed, count = hashlib.sha256(), 0
    for line, _ in lines_and_ends(log):
        if line:
            hashed.update(line + b"\n")
            count += 1
    return count, hashed.hexdigest()
