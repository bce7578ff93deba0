"""`stlm train`: train a model, also by `torchrun --no-python stlm train FILE.yaml ...`."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.keys import describe_keys
from tidy_stlms.configs.printable import printable
from tidy_stlms.scripts.cli import parser, quiet_loading, run
from tidy_stlms.scripts.messages import say

if TYPE_CHECKING:
    from tidy_stlms.eval.report.run_summary import RunSummary

KEY = re.compile(r"(model|tokenizer|data|facts|injection|training|dropout|evaluation|logging)\.\w+(\.\w+)*$")
EPILOG = """\
examples:
  stlm train configs/quickstart.yaml
  stlm train configs/quickstart.yaml injection.enabled=false training.output_dir=outputs/twin
  stlm train configs/quickstart.yaml training.max_steps=50 --dry-run
  stlm train configs/quickstart.yaml training.resume_from_checkpoint=true
  torchrun --no-python --nproc_per_node 2 stlm train FILE.yaml training.per_device_train_batch_size=16
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("train", "Train a model from YAML configs, with or without injected facts.", epilog=EPILOG)
    cli.add_argument("items", nargs="*", metavar="FILE.yaml | section.key=value")
    cli.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything that needs neither corpus nor trained weights, try a step with random "
        "weights, print the resolved config, then stop",
    )
    cli.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    cli.add_argument(
        "--keys", nargs="?", const="", metavar="SECTION", help="list the keys of the config, then stop"
    )
    arguments, rest = cli.parse_known_args(argv)  # key=value may follow options
    if wrong := [item for item in rest if item.startswith("-")]:
        cli.error(f"unrecognized arguments: {' '.join(wrong)}")
    arguments.items += rest
    if arguments.keys is not None:
        return run(lambda: say(describe_keys(arguments.keys)), arguments.debug)
    return run(lambda: _train(arguments.items, arguments.dry_run, arguments.overwrite), arguments.debug)


def _train(items: list[str], dry_run: bool, overwrite: bool) -> int:
    overrides = [item for item in items if "=" in item]
    files = [item for item in items if "=" not in item]
    if wrong := next((item for item in files if KEY.match(item) and not Path(item).exists()), None):
        raise UserError(f"{wrong}: a key needs a value; write {wrong}=VALUE")
    if not files:
        raise UserError("give a config file, such as configs/quickstart.yaml")
    from tidy_stlms.configs.load import config_yaml, load_config

    config, merged = load_config(files, overrides)
    import logging

    logging.basicConfig(format="%(levelname)s: %(message)s", level=config.logging.level.upper())
    quiet_loading()
    if dry_run:
        from tidy_stlms.trainers.run_checks import check_start

        check_start(config, overwrite=overwrite)
        say(_escaped(config_yaml(merged)), end="")
        sys.stdout.flush()  # a full disk is reported in place of the next line
        print(
            "stlm: the config passes the checks of a dry run; corpus and trained weights were not read",
            file=sys.stderr,
        )
        return 0
    from tidy_stlms.trainers.run import Interrupted, command_line, train

    several = config.training.world_size > 1
    before = "as before, but without --overwrite" if overwrite else "as before"
    how_to_go_on = f"start it {before}, with training.resume_from_checkpoint=true added"
    how_to_go_on = how_to_go_on if several else f"\n  {command_line(files, overrides)}"
    try:
        summary = train(config, merged, overwrite=overwrite)
    except Interrupted as stop:
        if config.training.process_index == 0:
            stopped = f"\nstopped; saved {stop.checkpoint}. To go on: {how_to_go_on}"
            print(printable(stopped), file=sys.stderr)
        return 130
    except DiskFull as full:
        if full.resumable:
            full.remedy = how_to_go_on if several else f"go on with{how_to_go_on}"
        raise
    if summary is not None:  # the first process
        _print_summary(summary, config.training.output_dir)
    return 0


def _escaped(text: str) -> str:
    """The YAML, in which control characters of a text are escaped if there are any."""
    if printable(text) == text:
        return text
    import yaml

    return yaml.safe_dump(yaml.safe_load(text), sort_keys=False)


def _print_summary(summary: "RunSummary", folder: str) -> None:
    from tidy_stlms.eval.report.run_table import recall_table
    from tidy_stlms.scripts.tables import print_recall_table
    from tidy_stlms.scripts.terminal import Terminal

    console = Terminal()
    if summary.recall.after:
        table = recall_table(summary.recall.after, summary.recall.before)
        print_recall_table(console, table, "Recall before and after training")
    figures = (
        ("training loss", summary.train_loss, ".3f"),
        ("validation loss", summary.eval_loss, ".3f"),
        ("tokens per second", summary.tokens_per_second, ",.0f"),
    )
    shown = [f"{label} {value:{style}}" for label, value, style in figures if value is not None]
    console.print(", ".join(shown))
    console.print(f"model and report: {folder} (open {folder}/report.md)", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
