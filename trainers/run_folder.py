"""The run folder: who may write there, what state it is in, and how it is laid out.

    config.yaml is there                           a run, which can be resumed or replaced
    only files of a layout, or .replaced.yaml      nothing yet: the next command removes them
    anything else                                  not ours: refused, never removed

So config.yaml is the last file that a new run's layout writes, and the first that loses its name when a
run is replaced: a command that is killed between any two operations leaves a run or nothing yet.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import flush, read_text, remove_folder, write_json
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.load import save_config
from tidy_stlms.configs.temporary import TEMPORARY, remove_tree
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.trainers.checkpoints import SAVING, prepare_resume
from tidy_stlms.trainers.hub import WAITING
from tidy_stlms.trainers.plan import InjectionPlan

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
PLAN = "plan.parquet"
FACTS = "facts"
SUMMARY = "summary.json"
LOCK = ".run.lock"
REPLACED = ".replaced.yaml"  # the config.yaml of a run that is being removed: everything beside it goes


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], bool]]:
    """Lock a run folder for this process, until the block or the process ends.

    Yields a function that says whether the folder is still the one that was locked: somebody may remove
    or replace it. Makes the folder, and removes it again if it is still empty.

    Raises UserError if another process writes there, the folder lies inside a run's, or it holds something
    that no run has left.
    """
    file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise UserError(f"training.output_dir={folder}: {file} is a file; take another folder")
    outer = next((path for path in folder.absolute().parents if _holds_run(path)), None)
    if outer is not None:
        raise UserError(f"training.output_dir={folder}: lies inside the run {outer}; take another folder")
    is_new = not folder.exists()
    if not (is_new or _is_ours(folder)):
        raise _foreign_error(folder)
    lock = FileLock(folder / LOCK)
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            flush(folder.parent)
            lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"{folder}: another `stlm train` is writing there; wait for its end, or take another "
            "training.output_dir"
        ) from None
    except OSError as error:
        raise UserError(
            f"training.output_dir={folder}: cannot be written ({error.strerror}); take another folder"
        ) from None
    mine = os.stat(folder / LOCK)
    try:
        yield lambda: _is_same_file(folder / LOCK, mine)
    finally:
        if _is_same_file(folder / LOCK, mine) and os.listdir(folder) == [LOCK]:
            (folder / LOCK).unlink()
            if is_new:
                folder.rmdir()
        lock.release()


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """UserError where a run may not write to `folder`, which is locked; changes nothing."""
    if overwrite and resume:
        raise UserError("--overwrite and training.resume_from_checkpoint contradict each other; give one")
    if is_run(folder):
        if not overwrite and not resume:
            raise UserError(
                f"{folder}: already holds a run; take another training.output_dir, pass --overwrite to "
                "replace it, or training.resume_from_checkpoint=true to go on"
            )
    elif not (folder / REPLACED).exists() and any(not _is_of_layout(path) for path in folder.iterdir()):
        raise _foreign_error(folder)


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_run_id(folder: Path) -> str:
    """The id of the run in `folder`. Raises UserError if environment.json does not hold it."""
    try:
        environment = json.loads(read_text(folder / ENVIRONMENT))
        return str(environment["run_id"])
    except (UserError, ValueError, TypeError, KeyError):
        raise UserError(
            f"{folder / ENVIRONMENT}: is missing or has no run_id, so the run cannot be resumed; restore the "
            "file, or start anew in another training.output_dir, or with --overwrite"
        ) from None


def open_folder(
    folder: Path,
    config: DictConfig,
    environment: dict,
    bank: FactBank | None,
    plan: InjectionPlan | None,
    *,
    checkpoint: Path | None,
    overwrite: bool,
) -> str:
    """Lay out the locked run folder, anew or to go on from `checkpoint`; returns the run's id.

    What is there already was accepted by `check_folder`.
    """
    if overwrite and is_run(folder):
        os.replace(folder / CONFIG, folder / REPLACED)
        flush(folder)
    if is_run(folder):
        run_id = read_run_id(folder)
        _remove_unfinished(folder)
        prepare_resume(folder, checkpoint, config.training.save_total_limit)
    else:
        run_id = uuid.uuid4().hex
        _clear(folder)
    write_json(folder / ENVIRONMENT, {"run_id": run_id, **environment})
    if plan is not None:
        plan.save(folder / PLAN)
    else:
        (folder / PLAN).unlink(missing_ok=True)
    if bank is not None:
        bank.save(folder / FACTS, replace=True)
    elif (folder / FACTS).exists():
        remove_folder(folder / FACTS)
    repeatable = config.copy()
    repeatable.training.resume_from_checkpoint = None
    save_config(repeatable, folder / CONFIG)
    return run_id


def _clear(folder: Path) -> None:
    """Remove everything but the lock, REPLACED last: after a kill it says that the rest must go."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == REPLACED):
        if path.name != LOCK:
            remove_tree(path)


def _remove_unfinished(folder: Path) -> None:
    for name in (SAVING, WAITING):
        remove_tree(folder / name)


def _is_ours(folder: Path) -> bool:
    names = set(os.listdir(folder))
    return not names or LOCK in names or _holds_run(folder)


def _holds_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / ENVIRONMENT).is_file()


def _is_same_file(path: Path, state: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), state)
    except FileNotFoundError:
        return False


def _is_of_layout(path: Path) -> bool:
    return path.name in (LOCK, ENVIRONMENT, PLAN, FACTS) or TEMPORARY.fullmatch(path.name) is not None


def _foreign_error(folder: Path) -> UserError:
    if (folder / ENVIRONMENT).exists():
        return UserError(
            f"{folder / CONFIG}: is missing, so the run is neither resumed nor replaced; restore the file, "
            "or take another training.output_dir"
        )
    return UserError(
        f"{folder}: holds files that are not of a run, so nothing there is removed or resumed; take another "
        "training.output_dir"
    )
