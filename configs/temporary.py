"""Names for temporary files and folders, and their removal after the process that made them has ended.

A temporary name holds the number of its process. So a command can tell the files of a killed command from
files that another command is writing.
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

# .NAME.MACHINE-PROCESS-RANDOM.tmp is being written or removed; .old is the NAME that is being replaced
TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)", re.S
)
ABANDONED_AFTER = 7 * 24 * 3600  # seconds; for files of other machines, whose processes cannot be seen


def temporary_path(path: Path, kind: str = "tmp") -> Path:
    """A new name beside `path` for a file or folder of this process; makes nothing."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def final_path(path: Path) -> Path:
    """`path` with final names in place of temporary ones."""
    parts = ((part, TEMPORARY.fullmatch(part)) for part in path.parts)
    return Path(*(part if match is None else match["name"] for part, match in parts))


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` that ended processes have left.

    Those of other machines are removed if nothing in them has changed for a week. A folder that was being
    replaced gets its name again, unless the new folder has it already.
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
    """Remove a folder with its content, or a file. Of a link, it removes only the link."""
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
    """8 hex digits for this machine or container since its start. Process numbers are unique within it."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
