"""The run folder while `stlm train` works: who may write there, and how it is laid out.

    config.yaml is there                           a run, which can be resumed or replaced
    only files of a layout, or .replaced.yaml      nothing yet: the next command removes them
    anything else                                  not ours: refused, never removed

A command may be killed between any two operations, and must leave a run or nothing yet. So config.yaml is
the last file that a new run's layout writes: if it is there, everything else is. When a run is replaced,
config.yaml is renamed first, to .replaced.yaml: without it, the rest of the old run does not count as a run.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import flush, remove_folder, write_json
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.load import save_config
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.temporary import TEMPORARY, remove_tree
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.run_folder import (
    CONFIG,
    ENVIRONMENT,
    FACTS,
    LAYOUT,
    LOCK,
    PLAN,
    REPLACED,
    SAVING,
    WAITING,
    is_laid_out,
    is_run,
)
from tidy_stlms.eval.scoring.processes import in_first_process
from tidy_stlms.trainers.environment import Environment
from tidy_stlms.trainers.plan import InjectionPlan
from tidy_stlms.trainers.resume import prepare_resume, read_run_id


@contextlib.contextmanager
def claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Callable[[], bool] | None]:
    """Lock a run folder for all processes of this run, until the block ends; the first one holds the lock.

    Yields what `locked` yields in the first process, None in the others. Raises UserError in all of them if
    the run may not write to the folder.
    """
    with contextlib.ExitStack() as until_the_end:
        is_still_ours: Callable[[], bool] | None = None

        def claim() -> None:
            nonlocal is_still_ours
            is_still_ours = until_the_end.enter_context(locked(folder))
            check_folder(folder, resume=resume, overwrite=overwrite)

        in_first_process(claim)
        yield is_still_ours


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], bool]]:
    """Lock a run folder for this process, until the block or the process ends.

    Yields a function that says whether the folder is still the one that was locked: somebody may remove
    or replace it. Makes the folder, and removes it at the end if it is still empty.

    Raises UserError if another process writes there, the folder lies inside a run's, or it holds something
    that no run has left.
    """
    _check_path(folder)
    is_new = not folder.exists()
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
    locked_file = os.stat(folder / LOCK)
    try:
        yield lambda: _is_same_file(folder / LOCK, locked_file)
    finally:
        if _is_same_file(folder / LOCK, locked_file) and os.listdir(folder) == [LOCK]:
            (folder / LOCK).unlink()
            if is_new:
                folder.rmdir()
        lock.release()


def check_place(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise UserError if a run may not write to `folder`. Changes nothing and takes no lock."""
    _check_options(resume=resume, overwrite=overwrite)
    _check_path(folder)
    if folder.is_dir():
        check_folder(folder, resume=resume, overwrite=overwrite)


def _check_options(*, resume: bool, overwrite: bool) -> None:
    if overwrite and resume:
        raise UserError("--overwrite and training.resume_from_checkpoint contradict each other; give one")


def _check_path(folder: Path) -> None:
    """Refuse a folder before anything is made in it, the lock file included."""
    with reading(f"training.output_dir={folder}"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(folder)  # fails for a name that is too long and for links in a circle
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"training.output_dir={folder}: is a link to {os.readlink(folder)}, which does not exist; remove "
            "the link, or take another folder"
        )
    file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise UserError(f"training.output_dir={folder}: {file} is a file; take another folder")
    # replacing the outer run would remove this one
    parents = (*folder.absolute().parents, *folder.resolve().parents)  # a link may lead into a run
    outer = next((path for path in parents if is_run(path)), None)
    if outer is not None:
        raise UserError(f"training.output_dir={folder}: lies inside the run {outer}; take another folder")
    if folder.exists() and not _is_ours(folder):
        raise _foreign_error(folder)


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """UserError where a run may not write to `folder`, which is locked; changes nothing."""
    _check_options(resume=resume, overwrite=overwrite)
    if is_laid_out(folder):
        if not overwrite and not resume:
            raise UserError(
                f"{folder}: already holds a run; take another training.output_dir, pass --overwrite to "
                "replace it, or training.resume_from_checkpoint=true to go on"
            )
    elif not (folder / REPLACED).exists() and any(not _is_of_layout(path) for path in folder.iterdir()):
        raise _foreign_error(folder)


def lay_out(
    folder: Path,
    config: DictConfig,
    environment: Environment,
    bank: FactBank | None,
    plan: InjectionPlan | None,
    *,
    checkpoint: Path | None,
    overwrite: bool,
) -> str:
    """Lay out the locked run folder, for a new run or to resume from `checkpoint`; returns the run's id.

    `check_folder` has accepted what is there already.
    """
    if overwrite and is_laid_out(folder):
        os.replace(folder / CONFIG, folder / REPLACED)
        flush(folder)
    if is_laid_out(folder):
        run_id = read_run_id(folder)
        for name in (SAVING, WAITING):  # what the killed run left half done
            remove_tree(folder / name)
        prepare_resume(folder, checkpoint, config.training.save_total_limit)
    else:
        run_id = uuid.uuid4().hex
        _clear(folder)
    write_json(folder / ENVIRONMENT, asdict(replace(environment, run_id=run_id)))
    if plan is not None:
        plan.save(folder / PLAN)
    else:
        (folder / PLAN).unlink(missing_ok=True)
    if bank is not None:
        bank.save(folder / FACTS, replace=True)
    elif (folder / FACTS).exists():
        remove_folder(folder / FACTS)
    # the saved config is one that starts the run, whether it was resumed or not
    repeatable = config.copy()
    repeatable.training.resume_from_checkpoint = None
    save_config(repeatable, folder / CONFIG)
    return run_id


def _clear(folder: Path) -> None:
    """Remove everything but the lock, REPLACED last: after a kill it says that the rest must go."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == REPLACED):
        if path.name != LOCK:
            remove_tree(path)


def _is_ours(folder: Path) -> bool:
    names = set(os.listdir(folder))
    return not names or LOCK in names or is_run(folder)


def _is_same_file(path: Path, state: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), state)
    except FileNotFoundError:
        return False


def _is_of_layout(path: Path) -> bool:
    return path.name in (LOCK, *LAYOUT) or TEMPORARY.fullmatch(path.name) is not None


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
