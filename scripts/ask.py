"""`stlm ask`: type a beginning, read how a model goes on, token by token."""

import sys

from scripts.cli import add_model_options, load, parser, run

EPILOG = """\
examples:
  stlm ask outputs/quickstart
  echo "The old farmer" | stlm ask outputs/quickstart --steps 5 --top-k 3
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("ask", "Continue prompts, with the most probable tokens at each step.", epilog=EPILOG)
    cli.add_argument("model", metavar="MODEL", help="a run folder, any model folder, or a Hub id")
    cli.add_argument("--steps", type=int, default=10, help="tokens to continue (default 10)")
    cli.add_argument("--top-k", type=int, default=5, help="tokens shown at each step (default 5)")
    add_model_options(cli)
    arguments = cli.parse_args(argv)
    return run(lambda: _ask(arguments))


def _ask(arguments) -> None:
    model, tokenizer = load(arguments.model, arguments)
    typed = sys.stdin.isatty()
    if typed:
        print("Type a beginning and Enter; an empty line or Ctrl-D ends.")
    while True:
        try:
            prompt = input("> " if typed else "")
        except EOFError:
            return
        if not prompt.strip():
            return
        _continue(model, tokenizer, prompt, arguments.steps, arguments.top_k)


def _continue(model, tokenizer, prompt: str, steps: int, k: int) -> None:
    from rich.console import Console

    from eval.recall.generation import top_tokens

    console = Console(highlight=False, markup=False)
    found = top_tokens(model, tokenizer, prompt, steps=steps, k=k)
    console.print(prompt, end="")
    console.print("".join(step.token for step in found), style="bold")
    for number, step in enumerate(found, 1):
        tokens = "  ".join(f"{text!r} {probability:.3f}" for text, probability in step.top)
        console.print(f"{number:3}  {tokens}")


if __name__ == "__main__":
    sys.exit(main())
