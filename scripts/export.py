"""`stlm export llama`: write a model for engines that do not support STLMs."""

import sys
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.scripts.cli import parser, quiet_loading, run
from tidy_stlms.scripts.messages import say, warn

EPILOG = """\
examples:
  stlm export llama outputs/quickstart exports/quickstart
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("export", "Write a model for other engines.", epilog=EPILOG)
    commands = cli.add_subparsers(dest="command", required=True, metavar="llama")
    llama = commands.add_parser(
        "llama", help="write a folder that loads as LlamaForCausalLM, without custom code"
    )
    llama.add_argument("model", metavar="MODEL", help="a run folder, any folder of an STLM, or a Hub id")
    llama.add_argument("out", metavar="OUT", help="the folder to write; must not exist")
    llama.add_argument("--dtype", default="float32", help="float32 (default), bfloat16 or float16")
    arguments = cli.parse_args(argv)
    return run(lambda: _export_llama(arguments.model, arguments.out, arguments.dtype), arguments.debug)


def _export_llama(name: str, out: str, dtype: str) -> None:
    from modeling_stlm.export_llama import export_llama
    from tidy_stlms.eval.models.load import choose_device, choose_dtype, load_weights
    from tidy_stlms.eval.models.lookup import check_model_path

    quiet_loading()
    number_type = choose_dtype(dtype, choose_device("cpu"))
    check_model_path(name)
    _check_early(name, Path(out))
    model = load_weights(name, number_type)
    tokenizer = _load_tokenizer(name, model)
    warnings = export_llama(model, tokenizer, out)
    if tokenizer is None:
        warnings.append(f"{name} has no tokenizer: {out} is without one")
    for warning in warnings:
        warn(warning)
    say(f"{out}: written as LlamaForCausalLM")


def _check_early(name: str, out: Path) -> None:
    """UserError for what cannot be exported, before weights are loaded, which may take minutes."""
    from modeling_stlm.export_llama import to_llama_config
    from tidy_stlms.eval.models.read import read_adapter_config, read_model_config

    if out.exists():
        raise UserError(f"{out}: exists already; take another folder")
    if read_adapter_config(name) is None:  # which has no config of its own
        to_llama_config(read_model_config(name))


def _load_tokenizer(name: str, model: Any) -> Any:
    """The tokenizer of the model, or of an adapter's base model; None if there is none.

    Raises UserError for a tokenizer that cannot be read.
    """
    from tidy_stlms.eval.models.load import tokenizer_folder, tokenizer_of
    from tidy_stlms.eval.models.read import has_tokenizer

    base = getattr(model, "active_peft_config", None)
    places = [tokenizer_folder(name), *([base.base_model_name_or_path] if base else [])]
    try:
        return tokenizer_of(name, model)
    except UserError:
        if any(map(has_tokenizer, places)):
            raise
        return None


if __name__ == "__main__":
    sys.exit(main())
