"""`stlm push`: push a model to the Hugging Face Hub, with its card and the records of its run."""

import argparse
import sys
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.run_folder import CHECKPOINT
from tidy_stlms.scripts.cli import parser, run
from tidy_stlms.scripts.messages import say

EPILOG = """\
examples:
  stlm push outputs/quickstart my-name/quickstart
  stlm push outputs/quickstart/checkpoint-200 my-name/quickstart --revision step-200 --private

Pushed are weights, the model's code, its tokenizer, the model card with recall tables and curves, and the
run's config, plan and metrics. Not pushed are checkpoints, optimizer states and the facts (`stlm facts
export hub` uploads those). Log in with `hf auth login`, or set HF_TOKEN.
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("push", "Push a model to the Hugging Face Hub.", epilog=EPILOG)
    cli.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint of a run or any model folder")
    cli.add_argument("repo_id", metavar="REPO_ID", help="user/name; created if it does not exist")
    cli.add_argument("--private", action="store_true", help="make a new repository private")
    cli.add_argument("--revision", help="branch to push to, created if it does not exist (default main)")
    cli.add_argument("--license", help="licence on the model card, such as mit (default: the run's)")
    arguments = cli.parse_args(argv)
    return run(lambda: _push(arguments), arguments.debug)


def _push(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.model)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run folder or another model's")
    from tidy_stlms.eval.report.push import push_model

    run_folder = folder.resolve().parent if CHECKPOINT.fullmatch(folder.name) else None
    url, count = push_model(
        folder,
        arguments.repo_id,
        run_folder=run_folder,
        private=arguments.private or None,
        revision=arguments.revision,
        license=arguments.license,
    )
    say(f"pushed {count} files: {url}")


if __name__ == "__main__":
    sys.exit(main())
