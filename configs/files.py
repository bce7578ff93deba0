"""Reading and writing files so that nobody ever sees half of one.

Whatever matters is written to a temporary name beside its place, flushed to the disk and then renamed,
which is atomic on one file system: a reader, or a command that was killed, finds the old file or the
new one, after a power failure too. A temporary name tells the process that it belongs to. Whoever
writes into a folder next removes those of processes that are gone.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from configs.errors import DiskFull, UserError

# .NAME.MACHINE-PROCESS-RANDOM.tmp is being written; .old holds what is being replaced by a new NAME
TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-\w{8}\.(?P<kind>tmp|old)", re.S
)
ABANDONED_AFTER = 7 * 24 * 3600  # seconds, for processes of other machines, which cannot be looked for
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say whose errors have no number: the system's own words (safetensors, tokenizers), or torch's
FULL_WORDS = {
    **{os.strerror(number): os.strerror(number) for number in FULL},
    "PytorchStreamWriter failed writing": "not all of it could be written",
    "unexpected pos ": "not all of it could be written",
    "iostream error": "not all of it could be written",
    "Not enough disk space": os.strerror(errno.ENOSPC),  # datasets, before it writes
    "No usable temporary directory": "no folder for temporary files has room",
}


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file and a rename; makes missing folders."""
    with written(path, content) as temporary:
        os.replace(temporary, path)
        flush(Path(path).parent)


@contextlib.contextmanager
def written(path: str | Path, content: str | bytes) -> Iterator[Path]:
    """Yield a temporary file beside `path` that holds `content` and is on the disk, to be renamed inside.

    What has not been renamed by then is removed.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block ends well, and vanishes if not.

    Raises UserError if `path` is a folder with something in it by then, or a file, unless `replace` says
    that the new folder takes the old one's place. A link is followed.
    """
    path = Path(path).resolve()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            readable_as_usual(temporary)
            flush_folder(temporary)
            if replace and path.exists():
                old = _unused_name(path, "old")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                _rename_to_free(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush(path.parent)


def _rename_to_free(folder: Path, path: Path) -> None:
    try:
        os.replace(folder, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise UserError(f"{path}: exists already; remove it, or take another name") from None


def remove_folder(path: Path) -> None:
    """Remove a folder so that nobody ever finds half of it: it loses its name first."""
    doomed = _unused_name(path, "tmp")
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose process is gone.

    What a killed process had moved away to put something new in its place gets its name back.
    """
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), TEMPORARY.fullmatch(entry.name)) for entry in entries]
    for path, match in found:
        if match is None or not _is_abandoned(path, match["machine"], int(match["pid"])):
            continue
        with contextlib.suppress(OSError):  # another process may do the same at the same time
            place = folder / match["name"]
            if match["kind"] == "old" and not place.exists() and any(path.iterdir()):
                os.rename(path, place)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_abandoned(path: Path, machine: str, pid: int) -> bool:
    if machine == _machine():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is there, and belongs to somebody else
        return False
    with contextlib.suppress(OSError):
        inside = path.rglob("*") if path.is_dir() else ()
        newest = max(item.lstat().st_mtime for item in (path, *inside))
        return time.time() - newest > ABANDONED_AFTER
    return False


@cache
def _machine() -> str:
    """8 hex digits for the machine since its start, or the container: where a process number means one."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _prefix(path: Path) -> str:
    return f".{path.name}.{_machine()}-{os.getpid()}-"


def _unused_name(path: Path, kind: str) -> Path:
    """A temporary name to move `path` to. It is not made first: a full disk may have no room for that."""
    return path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}.{kind}")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the errors of a full disk inside the block into DiskFull, naming `path`.

    A path inside a temporary folder is named as it would have been in the end.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        reason = full_disk(error)
        if reason is None:
            raise
        parts = ((part, TEMPORARY.fullmatch(part)) for part in Path(path).parts)
        place = Path(*(part if match is None else match["name"] for part, match in parts))
        raise DiskFull(f"{place}: {reason} ({free_space(place)})") from error


def full_disk(error: BaseException) -> str | None:
    """What an error, or one that it arose from, says of a full disk, a full quota or a limit of file sizes.

    None if there is no such error.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return os.strerror(seen.errno)
        if not isinstance(seen, UserError):  # our own words may say anything
            reason = next((reason for words, reason in FULL_WORDS.items() if words in str(seen)), None)
            if reason is not None:
                return reason
        seen = seen.__cause__ or seen.__context__
    return None


def free_space(path: Path) -> str:
    """`12.3 MB free in FOLDER`, for the nearest folder of `path` that exists."""
    folder = next(parent for parent in (path, *path.parents, Path.cwd()) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return (
        f"{free / 1e9:,.1f} GB free in {folder}" if free >= 1e9 else f"{free / 1e6:.1f} MB free in {folder}"
    )


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a folder may be written to and not be listed
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that flush no folders
            raise
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """`flush` for a folder and everything in it."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def append_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Add lines to a JSONL file: all of them, or none if there is no room.

    A process that is killed here leaves a part of the last one.
    """
    lines = "".join(to_json(row) + "\n" for row in rows)
    with writing(path):
        before = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError:
            if path.exists():
                os.truncate(path, before)
            raise


def check_writable(path: str | Path) -> None:
    """UserError where no `whole_folder` could be written at `path`; makes the folders above it."""
    try:
        with writing(path):
            parent = Path(path).resolve().parent
            parent.mkdir(parents=True, exist_ok=True)
            os.rmdir(tempfile.mkdtemp(dir=parent, prefix=f".{Path(path).name}."))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def readable_as_usual(folder: Path) -> None:
    """Give the files of a folder the permissions that new files get, which safetensors does not."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~_umask())


def build_once(path: str | Path, build: Callable[[Path], None]) -> None:
    """Fill the folder `path` by `build` unless it exists; of two processes that try, one wins."""
    path = Path(path)
    if path.exists():
        return
    try:
        with whole_folder(path) as temporary:
            build(temporary)
    except (OSError, UserError):
        if not path.exists():  # else another process was faster, and its folder is as good
            raise


def to_json(value: Any, **options: Any) -> str:
    """JSON that any reader takes: null instead of NaN and the infinities, which JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, value: Any) -> None:
    write_whole(path, to_json(value, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; raises UserError, naming the file, if it is missing or broken."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error}); mend or remove the file") from None


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    write_whole(path, "".join(to_json(row) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> list[dict]:
    """Parse a JSON Lines file of objects; raises UserError naming the file and the line."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: must be a JSON object, got {line.strip()[:40]!r}")
        rows.append(row)
    return rows


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file; raises UserError, naming the file, if it is missing or not UTF-8."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a file is needed") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None


def find_shipped(path: str | Path) -> Path:
    """A path as given; for configs/... that is not here, the file inside the installed package."""
    path = Path(path)
    if not path.exists() and path.parts[:1] == ("configs",):
        shipped = Path(__file__).parent.joinpath(*path.parts[1:])
        if shipped.exists():
            return shipped
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
