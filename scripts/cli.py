"""What all commands share: errors in one line, exit codes, model options."""

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tidy_stlms.configs.errors import DiskFull, RunFailed, UserError
from tidy_stlms.configs.full_disk import free_space, full_disk_reason
from tidy_stlms.scripts.messages import (
    complain,
    debug_logs,
    show_controls,
    warn,
    whole_traceback,
)

DEBUG = "--debug"
ROOM = "everything saved before is complete: make room, then"


def run(main: Callable[[], int | None], debug: bool = False) -> int:
    """Call `main` and return the exit code: 1 for work that failed on the way or a full disk, 2 for a user's
    mistake or a file that cannot be read or written, 130 for Ctrl-C, else what `main` returns (None: 0).

    `debug`: print the whole traceback of an error before its one line.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    _shorten_full_disk_tracebacks()
    show_controls()
    try:
        try:
            with debug_logs(debug):
                code = main() or 0
        except SystemExit:  # argparse has printed help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        leave_processes()
        return code
    except BrokenPipeError:  # `stlm ... | head`
        return 0
    except KeyboardInterrupt:
        print("\nstlm: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        with contextlib.suppress(OSError):  # standard error may be what has no room
            if debug:
                print(whole_traceback(error), end="", file=sys.stderr)
        told = _in_one_line(error)
        if told is None and not debug:
            raise  # a defect: Python shows the traceback
        code, line, command = told or (1, f"a defect of stlm: {type(error).__name__}: {error}", "")
        with contextlib.suppress(OSError):
            if not getattr(error, "is_told", False):
                complain(line, command)
        return code
    finally:
        _discard_unwritten(sys.stdout)
        _discard_unwritten(sys.stderr)


def _in_one_line(error: Exception) -> tuple[int, str, str] | None:
    """The exit code for an error, its message, and a command that is shown on a line of its own; None for a
    defect."""
    if isinstance(error, DiskFull):
        remedy, line_break, command = error.remedy.partition("\n")
        return 1, f"{error}; {ROOM} {remedy}", line_break + command
    told = _code_and_message(error)
    return None if told is None else (*told, "")


def _code_and_message(error: Exception) -> tuple[int, str] | None:
    if isinstance(error, RunFailed):
        return 1, str(error)
    file = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    if (reason := full_disk_reason(error)) is not None:  # raised outside `full_disk.writing`
        if isinstance(error, UserError):
            return 1, f"{error}; {ROOM} {DiskFull.remedy}"
        if file is None and _has_no_room(sys.stdout):
            return 1, f"standard output: {reason}; everything saved before is complete"
        named = "a file" if file is None else f"{file}"
        space = "" if file is None else f" ({free_space(Path(file))})"
        return 1, f"{named}: {reason}{space}; {ROOM} {DiskFull.remedy}"
    if isinstance(error, UserError):
        return 2, str(error) or type(error).__name__
    if file:
        return 2, f"{file}: {error.strerror}"  # type: ignore[attr-defined]
    if isinstance(error, RuntimeError) and "Connection closed by peer" in str(error):  # gloo's
        return 1, "the connection to another process is closed: it has ended, and its message says why"
    return None


def _has_no_room(stream: TextIO) -> bool:
    """Whether what `stream` writes to is full. Tries it by printing a newline."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return True
    return False


def _discard_unwritten(stream: TextIO) -> None:
    """Drop output that cannot be written.

    Otherwise the interpreter tries again at exit and prints a traceback.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _shorten_full_disk_tracebacks() -> None:
    """Replace the traceback of a full disk: by one line in a thread, by nothing in a finalizer."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        reason = full_disk_reason(args.exc_value) if args.exc_value is not None else None
        if reason is None:
            threading.__excepthook__(args)
        else:
            warn(f"{args.thread and args.thread.name}: {reason}")

    def in_finalizer(args: Any) -> None:
        if args.exc_value is None or full_disk_reason(args.exc_value) is None:
            sys.__unraisablehook__(args)

    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = in_finalizer


def leave_processes() -> None:
    """Leave torchrun's process group. A process that had not left it once aborted while it ended."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def add_model_options(cli: argparse.ArgumentParser) -> None:
    """Add the options for loading models."""
    cli.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    cli.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto (default)")
    cli.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with a model")


def add_prefix_option(cli: argparse._ActionsContainer) -> None:
    """Add the option for the special token before each text."""
    from tidy_stlms.eval.models.prefix import PREFIXES

    cli.add_argument(
        "--prefix",
        choices=PREFIXES,
        help="special token before each text: BOS, end-of-text or none (default: as the model was trained, "
        "if its config says so, else as its tokenizer encodes a text)",
    )


def load(name: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Load a model and its tokenizer with the model options."""
    from tidy_stlms.eval.models.load import load_model

    quiet_loading()
    return load_model(
        name,
        device=arguments.device,
        dtype=arguments.dtype,
        trust_remote_code=arguments.trust_remote_code,
    )


def quiet_loading() -> None:
    """Switch off transformers' progress bars. There would be one for each file of each checkpoint."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def parser(name: str, description: str, **kwargs) -> "Parser":
    """The parser of a command, whose arguments have `debug` for `run`."""
    cli = Parser(
        prog=f"stlm {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )
    cli.set_defaults(debug=False)
    return cli


class Parser(argparse.ArgumentParser):
    """Has `--debug`, in subcommands too. Shows wrong arguments in one line, without control characters."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # no default here: that of a subcommand would override an option before the subcommand
        self.add_argument(
            DEBUG,
            action="store_true",
            default=argparse.SUPPRESS,
            help="print the whole traceback of an error before its one line",
        )

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        raise SystemExit(2)
