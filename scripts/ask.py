"""`stlm ask`: type a prompt, read how models continue it, token by token, side by side."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.scripts.cli import add_model_options, add_prefix_option, parser, quiet_loading, run
from tidy_stlms.scripts.messages import say
from tidy_stlms.scripts.recall import positive

if TYPE_CHECKING:
    from tidy_stlms.eval.scoring.generation import Step
    from tidy_stlms.scripts.terminal import Terminal

EPILOG = """\
examples:
  stlm ask outputs/quickstart
  stlm ask outputs/quickstart outputs/quickstart@step=200 gpt2
  echo "The old farmer" | stlm ask outputs/quickstart --steps 5 --top-k 3
"""


def main(argv: list[str] | None = None) -> int:
    cli = parser("ask", "Continue prompts, and show the most probable tokens at each step.", epilog=EPILOG)
    cli.add_argument(
        "models", nargs="+", metavar="MODEL", help="as for `stlm recall`; several are shown side by side"
    )
    cli.add_argument("--steps", type=positive, default=10, help="tokens to continue (default 10)")
    cli.add_argument("--top-k", type=positive, default=5, help="tokens shown at each step (default 5)")
    cli.add_argument(
        "--control-tokens",
        action="store_true",
        help="read <|im_start|> and the like in a prompt as control tokens, not as text",
    )
    cli.add_argument(
        "--tokenizer", metavar="PATH", help="the tokenizer of Tidy-STLMs checkpoints (.pt files)"
    )
    add_prefix_option(cli)
    add_model_options(cli)
    arguments = cli.parse_args(argv)
    return run(lambda: _ask(arguments), arguments.debug)


def _ask(arguments: argparse.Namespace) -> None:
    from tidy_stlms.eval.models.prefix import choices_as_trained, prefix_of, warn_of_prefix
    from tidy_stlms.eval.scoring.generation import top_tokens
    from tidy_stlms.eval.scoring.generation_check import check_generation
    from tidy_stlms.eval.scoring.self_check import SENTENCES
    from tidy_stlms.scripts.terminal import Terminal

    models = _load(arguments)
    for label, (model, tokenizer) in models.items():
        try:
            check_generation(model, tokenizer, SENTENCES, prefix=arguments.prefix)
        except UserError as error:
            raise UserError(f"{label}: {error}") from None
        warn_of_prefix(label, choices_as_trained(model, tokenizer), arguments.prefix)
    console = Terminal()
    interactive = sys.stdin.isatty()
    if interactive:
        for label, (model, tokenizer) in models.items():
            say(f"{label}: prefix {prefix_of(model, tokenizer, arguments.prefix).name}")
        say("Type a beginning and Enter; an empty line or Ctrl-D ends.")
    while True:
        try:
            prompt = input("> " if interactive else "")
            prompt.encode()  # bytes that are not UTF-8 arrive as surrogates
        except EOFError:
            return
        except UnicodeError:
            raise UserError("standard input: not UTF-8") from None
        if not prompt.strip():
            return
        options = {
            "k": arguments.top_k,
            "prefix": arguments.prefix,
            "control_tokens": arguments.control_tokens,
        }
        continuations = {
            label: top_tokens(*model, prompt, steps=arguments.steps, **options)
            for label, model in models.items()
        }
        if len(continuations) == 1:
            _print_one(console, prompt, next(iter(continuations.values())))
        else:
            _print_several(console, prompt, continuations)


def _load(arguments: argparse.Namespace) -> dict[str, tuple[Any, Any]]:
    """Model and tokenizer by label. All names are checked before the first model is loaded."""
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


def _print_one(console: "Terminal", prompt: str, steps: "list[Step]") -> None:
    console.print(prompt, end="")
    console.print(_text(steps), style="bold")
    for number, step in enumerate(steps, 1):
        console.print(f"{number:3}  {_top(step)}")


def _print_several(console: "Terminal", prompt: str, continuations: "Mapping[str, list[Step]]") -> None:
    """Print each continuation, then its tokens: a column for each model, or models below each other if the
    terminal is too narrow."""
    from tidy_stlms.scripts.tables import fits, row_table
    from tidy_stlms.scripts.terminal import literal

    console.print(prompt)
    for label, steps in continuations.items():
        console.print("  ", label, ": ", sep="", end="")
        console.print(_text(steps), style="bold")
    rows = []
    for number in range(max(map(len, continuations.values()))):
        tops = [steps[number].top if number < len(steps) else [] for steps in continuations.values()]
        for rank in range(max(map(len, tops))):
            cells = [_token(*top[rank]) if rank < len(top) else "" for top in tops]
            style = "" if rank == 0 else "dim"
            rows.append([literal(str(number + 1) if rank == 0 else ""), *(literal(c, style) for c in cells)])
    table = row_table("", ("", *continuations), rows, n_labels=1 + len(continuations))
    if fits(console, table):
        console.print(table)
        return
    for label, steps in continuations.items():
        console.print(label)
        for number, step in enumerate(steps, 1):
            console.print(f"{number:3}  {_top(step)}")


def _text(steps: "list[Step]") -> str:
    return "".join(step.token for step in steps)


def _top(step: "Step") -> str:
    return "  ".join(_token(text, probability) for text, probability in step.top)


def _token(text: str, probability: float) -> str:
    return f"{text!r} {probability:.3f}"


if __name__ == "__main__":
    sys.exit(main())
