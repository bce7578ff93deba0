"""The command `stlm`, also `python -m tidy_stlms.scripts`.

stlm train configs/quickstart.yaml
stlm facts show outputs/quickstart/facts
stlm recall outputs/quickstart --facts outputs/quickstart/facts
stlm ask outputs/quickstart
"""

import os
import sys

# `python -m` looks for modules in the working folder first. That may be a model's folder, and its code, such
# as modeling_stlm.py, runs only with --trust-remote-code.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from importlib import import_module

from tidy_stlms.configs.errors import did_you_mean
from tidy_stlms.scripts.cli import DEBUG, run
from tidy_stlms.scripts.messages import complain

COMMANDS = {
    "train": "train a model, with or without injected facts",
    "facts": "generate, inspect, validate, import and export banks of facts",
    "recall": "measure what models recall of a bank",
    "ask": "continue prompts, token by token",
    "info": "parameters by part, bytes and FLOPs of a model",
    "push": "push a model to the Hugging Face Hub",
    "convert": "convert checkpoints and configs of Tidy-STLMs",
    "export": "write a model for other engines",
    "bench": "measure how fast recall is scored",
}


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    options = [DEBUG] if arguments[:1] == [DEBUG] else []
    # Commands call `run` themselves; this call covers the help and the version.
    return run(lambda: _main(arguments[len(options) :], options), debug=bool(options))


def _main(arguments: list[str], options: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return import_module(f"tidy_stlms.scripts.{arguments[0]}").main([*options, *arguments[1:]])
    if arguments and arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments and arguments[0] == "--version":
        from importlib.metadata import version

        print(f"tidy-stlms {version('tidy-stlms')}")
        return 0
    if arguments:
        near = did_you_mean(arguments[0], COMMANDS)
        complain(f"unknown command {arguments[0]!r}{near}; see `stlm --help`")
    else:
        print(f"{_usage()}\n", file=sys.stderr)
        complain("a command is needed")
    return 2


def _usage() -> str:
    lines = [
        "usage: stlm COMMAND ...",
        "",
        "Train super tiny language models, inject facts, measure recall.",
        "",
    ]
    lines += [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [*lines, "", "See `stlm COMMAND --help`. `--debug` prints the whole traceback of an error."]
    )


if __name__ == "__main__":
    sys.exit(main())
