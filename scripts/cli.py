"""What all entry points share: errors become one line and an exit code, output knows its terminal."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from configs.errors import DiskFull, RunFailed, UserError
from configs.files import full_disk


def run(main: Callable[[], int | None]) -> int:
    """Call `main`; 2 for a user's mistake or a file that cannot be read or written, 1 for work that failed on
    the way, 130 for Ctrl-C, else what it returns (None: 0)."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        code = main() or 0
        sys.stdout.flush()
        leave_processes()
        return code
    except UserError as error:
        print(f"stlm: error: {error}", file=sys.stderr)
        return 2
    except DiskFull as error:
        whole = "what was saved before is whole"
        print(f"stlm: error: {error}; {whole}: make room, then {error.remedy}", file=sys.stderr)
        return 1
    except RunFailed as error:
        print(f"stlm: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `stlm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nstlm: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if (reason := full_disk(error)) is not None:  # of a file that is not named
            print(f"stlm: error: {reason} while writing", file=sys.stderr)
            return 1
        if not isinstance(error, OSError) or not (file := error.filename2 or error.filename):
            raise  # nothing of the user's files: a defect
        print(f"stlm: error: {file}: {error.strerror}", file=sys.stderr)
        return 2


def leave_processes() -> None:
    """Leave the process group of torchrun: without this, a process was once seen to abort on its way out."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def add_model_options(cli: argparse.ArgumentParser) -> None:
    """How models are loaded: device, dtype, trust."""
    cli.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    cli.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto (default)")
    cli.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a model")


def load(name: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The model and tokenizer of that name, as the model options say."""
    from eval.models import load_model

    quiet_loading()
    return load_model(
        name,
        device=arguments.device,
        dtype=arguments.dtype,
        trust_remote_code=arguments.trust_remote_code,
    )


def quiet_loading() -> None:
    """No bars for the reading and writing of weights: there is one for each file of each checkpoint."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def parser(name: str, description: str, **kwargs) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"stlm {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )
