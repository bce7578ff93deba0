"""Runs commands in this process, and checks what every command promises whatever its files hold."""

import contextlib
import hashlib
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.damaged.damage import SECRET
from tidy_stlms.configs.printable import UNPRINTABLE
from tidy_stlms.configs.temporary import TEMPORARY
from tidy_stlms.scripts.__main__ import main

LONGEST_LINE = 1_200  # characters, `stlm: error: ` included
SECONDS = 100  # for one command; no case needs more than a few
# What the commands themselves start.
PROGRAMS = re.compile(r"(^|/)(git|uname|lscpu|ldconfig|gcc|cc|ld|objdump|sh)$")


class TooLong(BaseException):
    """A command that does not end. Not an Exception: nothing may turn it into a message."""


@dataclass
class Outcome:
    code: int
    output: str
    errors: str

    @property
    def message(self) -> str:
        return "\n".join(line for line in self.errors.splitlines() if line.startswith("stlm: error: "))


@dataclass
class Case:
    """A folder with a damaged file, and where the command writes."""

    folder: Path
    """Everything of the case; `out` in it is free."""
    counts: Counter = field(default_factory=Counter)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def canary(self) -> Path:
        """A folder that only foreign code would make."""
        return self.folder / "made-by-foreign-code"

    def run(self, *argv: object, typed: str = "", works_in: str = "") -> Outcome:
        """Run `stlm ARGV`, with `typed` as standard input, and check what always holds.

        `works_in` names a folder of the case that the command may change.

        No traceback (it would leave `main`), one line that names what is wrong, no result where the command
        failed, no temporary file left, nothing changed that was there, no foreign code, no secret.
        """
        before = contents_of(self.folder)
        with foreign_calls(self.folder) as calls, time_limit():
            outcome = run_command([str(argument) for argument in argv], typed)
        after = contents_of(self.folder)
        self.counts["accepted" if outcome.code == 0 else "refused"] += 1

        assert outcome.code in (0, 1, 2), outcome
        assert not calls, f"foreign code ran: {calls}"
        assert not self.canary.exists(), "foreign code made a folder"
        if outcome.code:
            usage = outcome.errors.startswith("usage: ")
            assert usage or len(outcome.message.splitlines()) == 1, f"not one line: {outcome.errors}"
            assert len(outcome.message) <= LONGEST_LINE, (
                f"{len(outcome.message)} characters: {outcome.message}"
            )
        shown = UNPRINTABLE.search(outcome.output + outcome.errors.replace("\r", ""))
        assert shown is None, f"control characters on the terminal: {outcome}"
        assert "Traceback" not in outcome.errors, outcome.errors
        changed = {name for name in before if after.get(name) != before[name]}
        new = after.keys() - before.keys()
        if works_in:
            changed, new = (
                {n for n in names if not n.startswith(f"{works_in}/")} for names in (changed, new)
            )
        assert not changed, f"changed: {changed}"
        temporary = [name for name in new if any(TEMPORARY.fullmatch(part) for part in Path(name).parts)]
        assert not temporary, f"left behind: {temporary}"
        if outcome.code == 2:
            assert not new, f"half-written: {new}, after {outcome.message}"
        leaked = [name for name in new if SECRET.encode() in (self.folder / name).read_bytes()]
        assert not leaked, f"the secret is in {leaked}"
        assert SECRET not in outcome.output + outcome.errors, outcome
        return outcome


def run_command(argv: list[str], typed: str = "") -> Outcome:
    output, errors = io.StringIO(), io.StringIO()
    stdin, sys.stdin = sys.stdin, io.StringIO(typed)
    os.environ["STLM_SECRET"] = SECRET
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = main(argv)
            except SystemExit as stop:  # argparse
                code = int(stop.code or 0)
    finally:
        sys.stdin = stdin
        del os.environ["STLM_SECRET"]
    return Outcome(code, output.getvalue(), errors.getvalue())


def contents_of(folder: Path) -> dict[str, str]:
    """A hash of each file below the folder, by relative name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong(f"the command has not ended after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class _Watch:
    """An audit hook, which cannot be removed: it notes calls while `folder` is set."""

    folder: str | None = None
    calls: list[str]
    installed = False

    def __call__(self, event: str, args: tuple) -> None:
        if self.folder is None:
            return
        if event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn", "ctypes.dlopen"):
            if event != "ctypes.dlopen" or str(args[0]).startswith(self.folder):
                self.calls.append(f"{event} {args!r:.200}")
        elif event == "subprocess.Popen":
            if not PROGRAMS.search(os.fsdecode(args[0] or "")):
                self.calls.append(f"{event} {args!r:.200}")
        elif event == "exec":
            file = getattr(args[0], "co_filename", "")
            if file.startswith(self.folder):
                self.calls.append(f"code of {file}")


_watch = _Watch()


@contextlib.contextmanager
def foreign_calls(folder: Path) -> Iterator[list[str]]:
    """Yield a list of calls that no file of a user may cause: programs, and code that lies in `folder`."""
    if not _watch.installed:
        sys.addaudithook(_watch)
        _watch.installed = True
    _watch.calls, _watch.folder = [], str(folder)
    try:
        yield _watch.calls
    finally:
        _watch.folder = None
