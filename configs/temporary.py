"""Names for temporary files and folders, and their removal after the process that made them has ended.

A temporary name holds the number of its process. Without it, nobody could tell what a killed command
has left from what another command is writing.
"""

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from functools import cache
from pathlib import Path

# .NAME.MACHINE-PROCESS-RANDOM.tmp is being written or removed; .old is NAME while a new one takes its place
TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)", re.S
)
ABANDONED_AFTER = 7 * 24 * 3600  # seconds; whether a process of another machine lives cannot be seen


def temporary_path(path: Path, kind: str = "tmp") -> Path:
    """A new name beside `path` for a file or folder of this process; makes nothing."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def final_path(path: Path) -> Path:
    """`path` with the final names of the temporary files and folders in it."""
    parts = ((part, TEMPORARY.fullmatch(part)) for part in path.parts)
    return Path(*(part if match is None else match["name"] for part, match in parts))


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files and folders in `folder` whose process has ended.

    Those of other machines are removed if nothing in them has changed for a week.
    A folder that was moved away to be replaced gets its name back, unless the new one has it.
    """
    with os.scandir(folder) as entries:
        matches = [(Path(entry.path), TEMPORARY.fullmatch(entry.name)) for entry in entries]
    for path, match in matches:
        if match is None or not _is_abandoned(path, match["machine"], int(match["pid"])):
            continue
        with contextlib.suppress(OSError):  # another process may do the same at the same time
            final = folder / match["name"]
            if match["kind"] == "old" and not final.exists():
                os.rename(path, final)
            else:
                remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a folder with its content, or a file; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_abandoned(path: Path, machine: str, pid: int) -> bool:
    if machine == _machine():
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # the process lives, under another user
        return False
    with contextlib.suppress(OSError):
        inside = path.rglob("*") if path.is_dir() else ()
        newest = max(item.lstat().st_mtime for item in (path, *inside))
        return time.time() - newest > ABANDONED_AFTER
    return False


@cache
def _machine() -> str:
    """8 hex digits for this start of the machine or container: within it, a process number is unique."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
