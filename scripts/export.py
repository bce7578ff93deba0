"""`stlm export llama`: a model for engines that know nothing of STLMs."""

import sys

from scripts.cli import parser, quiet_loading, run

EPILOG = """\
examples:
  stlm export llama outputs/quickstart exports/quickstart
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("export", "Write a model for other engines.", epilog=EPILOG)
    commands = cli.add_subparsers(dest="command", required=True, metavar="llama")
    llama = commands.add_parser("llama", help="a stock LlamaForCausalLM folder, without custom code")
    llama.add_argument("model", metavar="MODEL", help="a run folder, any folder of an STLM, or a Hub id")
    llama.add_argument("out", metavar="OUT", help="the folder to write; must not exist")
    llama.add_argument("--dtype", default="float32", help="float32 (default), bfloat16 or float16")
    arguments = cli.parse_args(argv)
    return run(lambda: _export_llama(arguments.model, arguments.out, arguments.dtype))


def _export_llama(name: str, out: str, dtype: str) -> None:
    from eval.models import load_model
    from modeling_stlm.export_llama import export_llama

    quiet_loading()
    model, tokenizer = load_model(name, device="cpu", dtype=dtype)
    for warning in export_llama(model, tokenizer, out):
        print(f"stlm: warning: {warning}", file=sys.stderr)
    print(f"{out}: written as LlamaForCausalLM")


if __name__ == "__main__":
    sys.exit(main())
