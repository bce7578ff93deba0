"""Reading and writing files so that nobody ever sees half of one.

Whatever matters is written to a temporary name beside its place and then renamed, which is atomic
on one filesystem: a reader, or a run that was killed, finds the old file or the new one.
"""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from configs.errors import UserError


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file and a rename; makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block ends well, and vanishes if not.

    `path` must not exist as a non-empty folder (OSError otherwise); a link is followed.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        readable_as_usual(temporary)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_writable(path: str | Path) -> None:
    """UserError where no `whole_folder` could be written at `path`; makes the folders above it."""
    try:
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
    except OSError:
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
