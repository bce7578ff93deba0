"""Counts what a process does to the files below some folders, and kills the process at one of them.

    Operations([folder], Kill(12), report).watch()          # SIGKILL before operation 12
    Operations([folder], Kill(12, "half"), report).watch()  # in the middle of its write

Python announces each operation as an audit event. Writers in C++ and Rust do not; they are wrapped here.
An audit hook cannot be removed, so only a forked child should call `watch`.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The events beside `open`, with the place of the folder that a relative path is meant in.
EVENTS = {
    **{"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1, "os.truncate": None, "os.chmod": 2},
    **{"os.rename": 2, "os.link": 2, "os.symlink": None},
}


@dataclass(frozen=True)
class Operation:
    number: int
    name: str
    path: str
    grown: int = 0
    """Bytes that an `open` for writing has added to the file, once it is closed."""

    def __str__(self) -> str:
        return f"operation {self.number}, {self.name} {self.path}"


@dataclass(frozen=True)
class Kill:
    """SIGKILL before the operation, or when it has `begun` (no byte is written) or is `half` done."""

    number: int
    moment: str = "before"


class Operations:
    """The operations of this process below `folders`; each is told to `report` as a line of JSON."""

    def __init__(self, folders: Sequence[Path], kill: Kill | None, report: Callable[[dict[str, Any]], None]):
        self.folders = [os.path.realpath(folder) for folder in folders]
        self.kill, self.report = kill, report
        self.count = 0
        self._last = ""
        self._written: tuple[Operation, str, int] | None = None  # where, and the size it had

    def watch(self) -> None:
        sys.addaudithook(self._on_event)
        self._wrap_fsync()
        self._wrap_writers()

    def finish(self) -> None:
        """The last write is over: cut the file and die if that was asked for."""
        if self._written is None:
            return
        (operation, path, before), self._written = self._written, None
        if not os.path.exists(path):
            return
        grown = os.path.getsize(path) - before
        if self.kill and self.kill.number == operation.number and self.kill.moment != "before":
            self.folders = []  # what follows is no operation of the run
            os.truncate(path, before + (grown // 2 if self.kill.moment == "half" else 0))
            self._die(operation)
        self.report({"operation": asdict(operation) | {"grown": grown}})

    def note(self, name: str, path: str, *, appends: bool = False) -> None:
        """`name` is about to be done to `path`, an absolute path."""
        if not any(path == folder or path.startswith(folder + os.sep) for folder in self.folders):
            return
        if name == "mkdir" and os.path.exists(path):  # the usual `exist_ok`: changes nothing
            return
        if name in ("remove", "rmdir") and not os.path.lexists(path):
            return
        self.finish()
        if name == "chmod" and self._last == "chmod":  # one kill among a folder's chmods is enough
            return
        self.count, self._last = self.count + 1, name
        folder = next(folder for folder in self.folders if path.startswith(folder))
        operation = Operation(self.count, name, os.path.relpath(path, os.path.dirname(folder)))
        if self.kill == Kill(self.count):
            self._die(operation)
        if name == "open":
            kept = os.path.getsize(path) if appends and os.path.exists(path) else 0
            self._written = (operation, path, kept)
        self.report({"operation": asdict(operation)})

    def _die(self, operation: Operation) -> None:
        self.report({"killed": str(operation)})
        os.kill(os.getpid(), signal.SIGKILL)

    def _on_event(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITES:
                self.note("open", _absolute(path), appends=not flags & os.O_TRUNC)
        elif event in EVENTS:
            place = EVENTS[event]
            folder = arguments[place] if place is not None and len(arguments) > place else -1
            self.note(event.removeprefix("os."), _absolute(arguments[0], folder))

    def _wrap_fsync(self) -> None:
        """A flushed file is whole. No disk is waited for, as SIGKILL does not lose what was written."""

        def fsync(file: Any) -> None:
            os.fstat(file if isinstance(file, int) else file.fileno())  # as the original: fails if closed
            self.finish()

        os.fsync = fsync

    def _wrap_writers(self) -> None:
        import safetensors.torch
        import tokenizers
        import torch

        def save(value, file, *arguments, original=torch.save, **options):
            if isinstance(file, str | os.PathLike):
                self.note("open", _absolute(file))
            return original(value, file, *arguments, **options)

        def save_tokenizer(tokenizer, path, *arguments, original=tokenizers.Tokenizer.save, **options):
            self.note("open", _absolute(path))
            return original(tokenizer, path, *arguments, **options)

        def serialize_file(tensors, path, *arguments, original=safetensors.torch.serialize_file, **options):
            # as safetensors itself: a temporary file in the same folder, then a rename
            temporary = Path(path).parent / ".tmpABCDEF"
            self.note("open", _absolute(temporary))
            original(tensors, temporary, *arguments, **options)
            os.replace(temporary, path)

        torch.save, safetensors.torch.serialize_file = save, serialize_file
        tokenizers.Tokenizer.save = save_tokenizer


def _absolute(path: Any, folder: int = -1) -> str:
    """The path, seen from the open folder of that number where there is one."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    above = os.readlink(f"/proc/self/fd/{folder}") if folder is not None and folder >= 0 else ""
    path = os.path.join(above, os.fsdecode(path))
    return os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))


def to_pipe(file: int) -> Callable[[dict[str, Any]], None]:
    """A `report` that writes lines of JSON to a pipe; what is written survives the process."""

    def report(entry: dict[str, Any]) -> None:
        os.write(file, json.dumps(entry).encode() + b"\n")

    return report
