"""Reads and writes files so that nobody ever sees half of a file.

Content is written to a temporary name in the same folder, flushed to the disk, and renamed. A rename is
atomic: even after a kill or a power failure, the folder holds the old file or the new one. Only a folder that
is replaced has no name for a moment. After a kill, `remove_abandoned` gives it its name again.
"""

import contextlib
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, one_line, shown
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.temporary import remove_abandoned, remove_tree, temporary_path

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can escape one; UTF-8 cannot encode it


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file and a rename; makes missing folders."""
    with temporary_file(path, content) as temporary:
        os.replace(temporary, path)
        flush(Path(path).parent)


@contextlib.contextmanager
def temporary_file(path: str | Path, content: str | bytes) -> Iterator[Path]:
    """Yield a temporary file beside `path` that holds `content` and is on the disk.

    The block renames it. It is removed if the block does not.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        temporary = temporary_path(path)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder. It becomes `path` at the end of the block, and is removed after an error.

    With `replace`, it replaces the folder at `path`. Raises UserError if `path` is a file at the end of the
    block, or, without `replace`, a folder that is not empty. A link is followed.
    """
    path = Path(path).resolve()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        temporary = temporary_path(path)
        temporary.mkdir()
        try:
            yield temporary
            readable_as_usual(temporary)
            flush_folder(temporary)
            if replace and path.is_dir():
                old = temporary_path(path, "old")
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
    """Remove a folder. It loses its name first, so that nobody ever finds half of it under its name."""
    doomed = temporary_path(path)
    os.replace(path, doomed)
    remove_tree(doomed)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a folder can be writable without being readable
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """`flush` for a folder and everything in it."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def append_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Append lines to a JSONL file: all lines, or none if there is no room.

    A kill may leave some of the lines, and half of the last one.
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
    """Raise UserError if `whole_folder` could not write at `path`. Makes the folders above it."""
    try:
        with writing(path):
            trial = temporary_path(Path(path).resolve())
            trial.parent.mkdir(parents=True, exist_ok=True)
            trial.mkdir()
            trial.rmdir()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def readable_as_usual(folder: Path) -> None:
    """Give the files of a folder the permissions of new files. safetensors writes files with fewer."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~_umask())


def build_once(path: str | Path, build: Callable[[Path], None]) -> None:
    """Fill the folder `path` by `build` unless it exists. If two processes try, the first one writes it."""
    path = Path(path)
    if path.exists():
        return
    try:
        with whole_folder(path) as temporary:
            build(temporary)
    except (OSError, UserError):
        if not path.exists():  # another process may have been faster, and its folder has the same content
            raise


def to_json(value: Any, **options: Any) -> str:
    """JSON that every reader accepts and that UTF-8 can encode.

    NaN and infinities become null, since JSON has neither. A lone surrogate, such as a byte of a file name
    that is not UTF-8, becomes an escape.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, **options)
    return text if text.isascii() else LONE_SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, value: Any) -> None:
    write_whole(path, to_json(value, indent=2) + "\n")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {shown(name)} twice")
    return value


# json and msgspec silently use the last of two values with the same key
STRICT_JSON = json.JSONDecoder(object_pairs_hook=_object_without_duplicates)


def parse_json(text: str | bytes, where: object, remedy: str = "") -> Any:
    """The value of a JSON text. Raises UserError, `where: reason` and `remedy`, for any other text."""
    with reading(f"{where}: not valid JSON", remedy):
        return json.loads(text, object_pairs_hook=_object_without_duplicates)


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; raises UserError, naming the file, if it is missing or broken."""
    return parse_json(read_text(path), path, "; correct or remove the file")


def read_json_object(path: str | Path) -> dict[str, Any]:
    """`read_json` of a file that holds an object; raises UserError, naming the file, for another value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, not a {type(value).__name__}; correct the file")
    return value


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    write_whole(path, "".join(to_json(row) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> list[dict]:
    """Parse a JSON Lines file of objects; raises UserError naming the file and the line."""
    lines = enumerate(read_text(path).split("\n"), 1)
    return [parse_json_line(line, path, number) for number, line in lines if line.strip()]


def parse_json_line(line: str, path: str | Path, number: int) -> dict:
    """Parse one line of a JSON Lines file; raises UserError naming the file and the line."""
    row = parse_json(line, f"{path}, line {number}")
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: must be a JSON object, got {shown(line.strip())}")
    return row


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file; raises UserError, naming the file, if it is missing or not UTF-8."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a file is needed") from None
    except OSError as error:
        raise UserError(f"{one_line(path, 200)}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None


def find_shipped(path: str | Path) -> Path:
    """The path; or, for a path configs/... that does not exist here, the file in the installed package."""
    path = Path(path)
    if not os.path.exists(path) and path.parts[:1] == ("configs",):
        shipped = Path(__file__).parent.joinpath(*path.parts[1:])
        if shipped.exists():
            return shipped
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
