"""The mark of a run's checkpoint: its last file, with the sizes and hashes of all others.

It is written last. So a checkpoint with a mark is whole, and damage to any file shows.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json_object, to_json, write_json

MARK = "checkpoint.json"
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Mark:
    """checkpoint.json: what a resume needs besides the Trainer's own files. The file also has `sha256`, the
    hash of these fields."""

    run_id: str
    """Id of the run, from its environment.json. A checkpoint of another run is refused."""
    step: int
    """Optimizer steps before the save."""
    processes: int
    """The number of processes that trained."""
    geometry: dict
    """The `Geometry` of the run's stream. A resume with another one is refused."""
    loss_sum: float
    """Sum of the losses since the last logged one."""
    last_logged: int
    """The step at which a loss was last logged."""
    logs: dict[str, tuple[int, str]]
    """[number, SHA-256] of the lines of each log of the run."""
    files: dict[str, tuple[int, str]]
    """[bytes, SHA-256] of each other file of the checkpoint."""


def write_mark(checkpoint: Path, mark: Mark) -> None:
    """Write the mark with a hash of its own content. Call it when all other files are on the disk."""
    write_json(checkpoint / MARK, {**asdict(mark), "sha256": _hash_of(asdict(mark))})


def read_mark(checkpoint: Path) -> Mark:
    """The mark of a checkpoint. Raises UserError if it is missing or was changed."""
    path = checkpoint / MARK
    if not path.exists():
        raise UserError(f"{path}: is missing")
    try:
        content = read_json_object(path)
        if content.pop("sha256", None) != _hash_of(content):
            raise UserError(f"{path}: is damaged")
        return msgspec.convert(content, Mark)
    except (UserError, msgspec.ValidationError):
        raise UserError(f"{path}: is damaged") from None


def sizes_and_hashes(checkpoint: Path) -> dict[str, tuple[int, str]]:
    """[bytes, SHA-256] of each file of a checkpoint that has no mark yet."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return {path.relative_to(checkpoint).as_posix(): _size_and_hash(path) for path in files}


def check_files(checkpoint: Path, mark: Mark, ending: str = "") -> None:
    """Raise UserError, naming the file, if a file whose name has this `ending` is missing or was changed."""
    for name, (size, digest) in mark.files.items():
        path = checkpoint / name
        if not name.endswith(ending):
            continue
        if not path.is_file():
            raise UserError(f"{path}: is missing")
        if path.stat().st_size != size:
            raise UserError(f"{path}: is damaged, it has {path.stat().st_size:,} bytes of {size:,}")
        if _size_and_hash(path)[1] != digest:
            raise UserError(f"{path}: is damaged, its content has changed since it was saved")


def check_weights_of_run(folder: Path) -> None:
    """Raise UserError for a run's checkpoint with damaged weights. Folders without a mark are not checked."""
    if (folder / MARK).is_file():
        check_files(folder, read_mark(folder), WEIGHTS)


def _size_and_hash(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def _hash_of(content: dict) -> str:
    return hashlib.sha256(to_json(content, sort_keys=True).encode()).hexdigest()
