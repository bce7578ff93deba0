"""Public datasets from local copies.

A copy of `Rowan/hellaswag` lies in `DATA_DIR/Rowan/hellaswag`, as
`hf download --repo-type dataset Rowan/hellaswag --local-dir DATA_DIR/Rowan/hellaswag` leaves it.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from tidy_stlms.configs.errors import UserError, one_line


@contextlib.contextmanager
def local_copies(data_dir: Path | None) -> Iterator[None]:
    """Inside the block, `datasets.load_dataset("user/name")` reads `data_dir/user/name` if it exists.

    `load_dataset` prefers a folder of that name in the working directory, so the block runs in `data_dir`.
    """
    if data_dir is None:
        yield
        return
    if not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    import datasets

    # The cache of `datasets` finds a folder by its name only. With one cache for all states of `data_dir`,
    # two copies in different places would count as one, and a change of a copy would not be seen.
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(before) / "copies" / _fingerprint(data_dir)
    try:
        with contextlib.chdir(data_dir):
            yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _fingerprint(folder: Path) -> str:
    """A hash of the paths, sizes and times of change of all files below `folder`."""
    files = [(str(path.resolve()), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    states = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside the block, lm-eval and datasets log errors only, and datasets shows no bars."""
    import datasets

    names = ("lm_eval", "lm-eval", "datasets", "evaluate")
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def why_missing(error: BaseException, data_dir: Path | None) -> str:
    """Say in one line why a dataset cannot be read."""
    where = f"nor is there a copy in {data_dir}" if data_dir else "give --data-dir a folder with a copy"
    return f"its data cannot be read: {one_line(error, 160)}; {where}"
