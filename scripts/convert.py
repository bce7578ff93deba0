"""`stlm convert tidy | tidy-config`: convert checkpoints and configs of Tidy-STLMs."""

import argparse
import sys
import tempfile
from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.scripts.cli import parser, quiet_loading, run
from tidy_stlms.scripts.messages import say, warn

EPILOG = """\
examples:
  stlm convert tidy checkpoints/simple_en_wiki.pt models/wiki --tokenizer gpt2
  stlm convert tidy checkpoints/small.pt models/small --tokenizer bpe_simple_en_wiki_4000.model
  stlm convert tidy-config configs/full_configs/simple_en_wiki.yaml wiki.yaml
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("convert", "Convert checkpoints and configs of Tidy-STLMs.", epilog=EPILOG)
    commands = cli.add_subparsers(dest="command", required=True, metavar="tidy | tidy-config")

    tidy = commands.add_parser("tidy", help="convert a checkpoint into a model folder")
    tidy.add_argument("checkpoint", metavar="CHECKPOINT.pt", help="a checkpoint; no code in it is run")
    tidy.add_argument("out", metavar="OUT", help="the folder to write; must not exist")
    tidy.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or Hub id of a tokenizer, or a bpe_NAME_SIZE.model file"
    )

    config = commands.add_parser("tidy-config", help="convert a full YAML config into one for `stlm train`")
    config.add_argument(
        "config", metavar="FULL_CONFIG.yaml", help="such as one of Tidy-STLMs' configs/full_configs"
    )
    config.add_argument("out", metavar="OUT.yaml", help="the file to write; must not exist")

    arguments = cli.parse_args(argv)
    return run(lambda: _convert(arguments), arguments.debug)


def _convert(arguments: argparse.Namespace) -> None:
    if arguments.command == "tidy":
        _convert_checkpoint(arguments.checkpoint, arguments.out, arguments.tokenizer)
    else:
        _convert_config(arguments.config, Path(arguments.out))


def _convert_checkpoint(checkpoint: str, out: str, tokenizer: str | None) -> None:
    from modeling_stlm.tidy.convert import convert_checkpoint
    from tidy_stlms.eval.models.read import read_tokenizer

    quiet_loading()
    own_tokenizer = read_tokenizer(tokenizer) if tokenizer is not None else None
    for warning in convert_checkpoint(checkpoint, out, tokenizer=own_tokenizer):
        warn(warning)
    say(f"{out}: converted from {checkpoint}")


def _convert_config(source: str, out: Path) -> None:
    from modeling_stlm.tidy.architecture import FIELDS, FIXED, stlm_fields
    from tidy_stlms.configs.files import write_whole
    from tidy_stlms.configs.load import load_config
    from tidy_stlms.configs.tidy.convert import convert_tidy_config, read_tidy_config

    if out.exists():
        raise UserError(f"{out}: exists already; take another name")
    config = read_tidy_config(source)
    keys = {**dict.fromkeys(FIXED), **FIELDS}
    converted = convert_tidy_config(config, stlm_fields(config["model"], source), keys, source)
    text = converted.yaml(Path(source).name)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        write_whole(trial, text)
        try:
            load_config([trial])
        except UserError as error:
            reason = str(error).removeprefix(f"{trial}: ")
            raise UserError(f"{source}: gives no valid config: {reason}") from None
    try:
        write_whole(out, text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    say(f"{out}: {len(converted.carried)} keys of {source} carried over")
    for title, notes in (("different here", converted.changed), ("not carried over", converted.left_behind)):
        if notes:
            say(f"{title}:")
        for key, reason in notes.items():
            say(f"  {key}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
