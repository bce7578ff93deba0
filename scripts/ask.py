"""`stlm ask`: type a beginning, read how models go on, token by token, side by side."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.scripts.cli import add_model_options, parser, quiet_loading, run
from tidy_stlms.scripts.recall import positive

if TYPE_CHECKING:
    from rich.console import Console

    from tidy_stlms.eval.scoring.generation import Step

SELF_CHECK = ("The", "The old farmer walked to the market, and then he")

EPILOG = """\
examples:
  stlm ask outputs/quickstart
  stlm ask outputs/quickstart outputs/quickstart@step=200 gpt2
  echo "The old farmer" | stlm ask outputs/quickstart --steps 5 --top-k 3
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("ask", "Continue prompts, with the most probable tokens at each step.", epilog=EPILOG)
    cli.add_argument(
        "models", nargs="+", metavar="MODEL", help="as for `stlm recall`; several answer side by side"
    )
    cli.add_argument("--steps", type=positive, default=10, help="tokens to continue (default 10)")
    cli.add_argument("--top-k", type=positive, default=5, help="tokens shown at each step (default 5)")
    cli.add_argument(
        "--control-tokens",
        action="store_true",
        help="read control tokens such as <|im_start|> in what is typed as such, not as text",
    )
    cli.add_argument(
        "--tokenizer", metavar="PATH", help="the tokenizer of Tidy-STLMs checkpoints (.pt files)"
    )
    add_model_options(cli)
    arguments = cli.parse_args(argv)
    return run(lambda: _ask(arguments))


def _ask(arguments) -> None:
    from rich.console import Console

    from tidy_stlms.eval.scoring.generation import top_tokens
    from tidy_stlms.eval.scoring.generation_check import check_generation

    models = _load(arguments)
    for label, (model, tokenizer) in models.items():
        try:
            check_generation(model, tokenizer, SELF_CHECK)
        except UserError as error:
            raise UserError(f"{label}: {error}") from None
    console = Console(highlight=False, markup=False)
    typed = sys.stdin.isatty()
    if typed:
        print("Type a beginning and Enter; an empty line or Ctrl-D ends.")
    while True:
        try:
            prompt = input("> " if typed else "")
            prompt.encode()  # bytes that are no text may come along as surrogates
        except EOFError:
            return
        except UnicodeError:
            raise UserError("standard input: not UTF-8") from None
        if not prompt.strip():
            return
        options = {"k": arguments.top_k, "control_tokens": arguments.control_tokens}
        said = {
            label: top_tokens(*model, prompt, steps=arguments.steps, **options)
            for label, model in models.items()
        }
        if len(said) == 1:
            _print_one(console, prompt, next(iter(said.values())))
        else:
            _print_several(console, prompt, said)


def _load(arguments) -> dict[str, tuple[Any, Any]]:
    """Model and tokenizer by label; all are named right before the first is loaded."""
    from tidy_stlms.configs.load import cache_folder
    from tidy_stlms.eval.models.load import load_model
    from tidy_stlms.eval.models.names import expand_names

    quiet_loading()
    names = expand_names(arguments.models, cache=cache_folder(None), tokenizer=arguments.tokenizer)
    return {
        name.label: load_model(
            name.path,
            device=arguments.device,
            dtype=arguments.dtype,
            trust_remote_code=arguments.trust_remote_code,
            revision=name.revision,
        )
        for name in names
    }


def _print_one(console: "Console", prompt: str, steps: "list[Step]") -> None:
    console.print(prompt, end="")
    console.print(_said(steps), style="bold")
    for number, step in enumerate(steps, 1):
        console.print(f"{number:3}  {_top(step)}")


def _print_several(console: "Console", prompt: str, said: "Mapping[str, list[Step]]") -> None:
    """What each model says; then a column each with its tokens at each step, or one below the other where
    the terminal is too narrow for that."""
    from rich.text import Text

    from tidy_stlms.scripts.tables import fits, row_table

    console.print(prompt)
    for label, steps in said.items():
        console.print("  ", label, ": ", sep="", end="")
        console.print(_said(steps), style="bold")
    rows = []
    for number in range(max(map(len, said.values()))):
        tops = [steps[number].top if number < len(steps) else [] for steps in said.values()]
        for place in range(max(map(len, tops))):
            cells = [_token(*top[place]) if place < len(top) else "" for top in tops]
            style = "" if place == 0 else "dim"
            rows.append([Text(str(number + 1) if place == 0 else ""), *(Text(c, style=style) for c in cells)])
    table = row_table("", ("", *said), rows, n_labels=1 + len(said))
    if fits(console, table):
        console.print(table)
        return
    for label, steps in said.items():
        console.print(label)
        for number, step in enumerate(steps, 1):
            console.print(f"{number:3}  {_top(step)}")


def _said(steps: "list[Step]") -> str:
    """The text, without characters that would steer the terminal."""
    text = "".join(step.token for step in steps)
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _top(step: "Step") -> str:
    return "  ".join(_token(text, probability) for text, probability in step.top)


def _token(text: str, probability: float) -> str:
    return f"{text!r} {probability:.3f}"


if __name__ == "__main__":
    sys.exit(main())
