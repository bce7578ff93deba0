"""Commands that meet a full disk: each runs in a fork of a process that has imported everything.

    with Commands(mount=folder) as commands:
        commands.new_disk("16m")
        moment = Moment("tidy_stlms.trainers.run:prepare_corpus", left=0)
        result = commands.run("train", "tiny.yaml", moment=moment)

A fork is ready at once, and ends as an interpreter does, with all that is printed on the way out. The small
file system lies in a mount namespace of its own and ends with it.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import selectors
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
IMPORTED = (
    "tidy_stlms.trainers.run",
    "tidy_stlms.scripts.recall",
    "tidy_stlms.scripts.convert",
    "tidy_stlms.scripts.export",
    "tidy_stlms.eval.recall.harness",
    "tidy_stlms.eval.study.measure",
    "tidy_stlms.eval.report.run_figures",
    "tidy_stlms.eval.report.study_report",
    "tidy_stlms.eval.recall.lm_eval_export",
    "tidy_stlms.eval.facts.imports",
    "modeling_stlm.tidy.convert",
    "modeling_stlm.export_llama",
)


@dataclass(frozen=True)
class Moment:
    """Before a call of a function, everything but `left` bytes of its file system is used up."""

    function: str
    """`module:name` or `module:Class.name`, where the caller looks it up."""
    left: int = 0
    call: int = 1
    """The first call of all, or a later one."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def can_mount() -> bool:
    """Whether this user may have a mount namespace with a file system of its own."""
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class Commands:
    """Runs `stlm` commands; `mount` is a folder for a small file system."""

    def __init__(self, mount: Path | None = None):
        self.mount = mount

    def __enter__(self) -> "Commands":
        space = UNSHARE if self.mount is not None else ()
        self._server = subprocess.Popen(
            [*space, sys.executable, "-m", "tests.full_disk"],
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._is_mounted = False
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def run(
        self,
        *argv: str,
        limit: int | None = None,
        stdout: str | None = None,
        moment: Moment | None = None,
        env: dict[str, str] | None = None,
        to_the_end: bool = False,
    ) -> Result:
        """One command.

        Args:
            limit: Of the size of each file that it writes, in bytes.
            stdout: A file for standard output.
            to_the_end: Let the interpreter clean up as it always does when it ends, which takes half a
                second. What is printed then belongs to the result.
        """
        filled = {**asdict(moment), "mount": str(self.mount)} if moment is not None else None
        limits = {"limit": limit, "moment": filled}
        other = {"stdout": stdout, "env": env or {}, "to_the_end": to_the_end}
        return Result(**self._ask({"argv": argv, **limits, **other}))

    def new_disk(self, size: str) -> None:
        """An empty file system in the place of the last one."""
        if self._is_mounted:
            self._system("umount", str(self.mount))
        self._system("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(self.mount))
        self._is_mounted = True

    def resize(self, size: str) -> None:
        self._system("mount", "-o", f"remount,size={size}", str(self.mount))

    def seen(self, path: Path) -> Path:
        """A path of the small file system as others reach it."""
        return Path(f"/proc/{self._server.pid}/root{path}")

    def _system(self, *command: str) -> None:
        assert self._ask({"system": command}) == 0, command

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def _serve() -> int:
    """Answer requests; in a fork, return the command's exit code."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # or every fork would collect what was imported when it ends, for seconds
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "system" in request:
            answer: Any = subprocess.run(request["system"], check=False).returncode
        else:
            pipes = [os.pipe() for _ in range(2)]
            if (child := os.fork()) == 0:
                return _become(request, *(write for _, write in pipes))
            for _, write in pipes:
                os.close(write)
            out, err = _read_all(*(read for read, _ in pipes))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {"code": status, "out": out, "err": err}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _become(request: dict[str, Any], out: int, err: int) -> int:
    from tidy_stlms.scripts.__main__ import main

    if request["stdout"] is not None:
        out = os.open(request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for handle, place in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(handle, place)
    os.closerange(3, 256)
    os.environ.update(request["env"])
    if request["moment"] is not None:
        _fill_before(**request["moment"])
    if request["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"],) * 2)
    code = main(request["argv"])
    if not request["to_the_end"]:
        os._exit(code)  # `main` has written out what was printed
    return code


def _fill_before(function: str, left: int, call: int, mount: str) -> None:
    module, _, path = function.partition(":")
    *outer, name = path.split(".")
    holder: Any = importlib.import_module(module)
    for part in outer:
        holder = getattr(holder, part)
    original = getattr(holder, name)
    calls = 0

    def filling(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            fill(mount, left)
        return original(*args, **kwargs)

    setattr(holder, name, filling)


def fill(mount: str, left: int) -> None:
    """Use up a file system but for `left` bytes."""
    there = os.statvfs(mount)
    with open(os.path.join(mount, "filler"), "ab") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, there.f_bavail * there.f_frsize - left))


def _read_all(*handles: int) -> list[str]:
    """What comes through pipes until they are closed."""
    parts: dict[int, bytes] = dict.fromkeys(handles, b"")
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for handle in handles:
            stack.callback(os.close, handle)
            selector.register(handle, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if part := os.read(key.fd, 1 << 16):
                    parts[key.fd] += part
                else:
                    selector.unregister(key.fd)
    return [part.decode() for part in parts.values()]


if __name__ == "__main__":
    sys.exit(_serve())
