"""`stlm info`: parameters, bytes and FLOPs of a model, computed from its config alone."""

import sys
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import to_json
from tidy_stlms.scripts.cli import parser, run
from tidy_stlms.scripts.messages import say

EPILOG = """\
examples:
  stlm info configs/models/stlm_10m.yaml
  stlm info configs/quickstart.yaml model.config.num_ffn_groups=1
  stlm info outputs/quickstart
  stlm info EleutherAI/pythia-70m --json
"""

UNKNOWN = "not known for this architecture"


def main(argv: list[str] | None = None) -> int:
    description = "Parameters by part, bytes, training FLOPs and cache size of a model. No weights are read."
    cli = parser("info", description, epilog=EPILOG)
    cli.add_argument("items", nargs="+", metavar="FILE.yaml | MODEL | section.key=value")
    cli.add_argument("--json", action="store_true", help="print JSON instead of a table")
    cli.add_argument("--trust-remote-code", action="store_true", help="run code that comes with a model")
    arguments = cli.parse_intermixed_args(argv)
    return run(lambda: _info(arguments.items, arguments.json, arguments.trust_remote_code), arguments.debug)


def _info(items: list[str], as_json: bool, trust_remote_code: bool) -> None:
    overrides = [item for item in items if "=" in item]
    names = [item for item in items if "=" not in item]
    files = [name for name in names if Path(name).suffix in (".yaml", ".yml")]
    if files and files == names:
        figures = _of_config(files, overrides, trust_remote_code)
    elif len(names) == 1 and not files and not overrides:
        figures = {
            "model": names[0],
            **_account(_read_config(names[0], trust_remote_code), None, trust_remote_code),
        }
    else:
        raise UserError("give YAML files, with section.key=value if you like, or one model folder or Hub id")
    if as_json:
        say(to_json(figures, indent=2))
    else:
        _print(figures)


def _of_config(files: list[str], overrides: list[str], trust_remote_code: bool) -> dict[str, Any]:
    """Figures of the model that `stlm train` would train."""
    from tidy_stlms.configs.load import load_config

    config, _ = load_config(files, overrides)
    section, window = config.model, config.data.context_window
    name = " ".join([*files, *overrides])
    if section.name_or_path:
        trusted = trust_remote_code or section.trust_remote_code
        model_config = _read_config(section.name_or_path, trusted, section.revision)
        _check_window(window, model_config)
        return {"model": f"{name}: {section.name_or_path}", **_account(model_config, window, trusted)}

    from tidy_stlms.trainers.model import scratch_config

    size, source = _vocabulary(config)
    model_config = scratch_config(section, **({} if size is None else {"vocab_size": size}))
    _check_window(window, model_config)
    vocabulary = {"size": model_config.vocab_size, "source": source}
    return {"model": name, "vocabulary": vocabulary, **_account(model_config, window)}


def _check_window(window: int | None, config: Any) -> None:
    """UserError if `stlm train` would refuse the rows: they are longer than the model's context."""
    from tidy_stlms.eval.models.inputs import context_length_of

    limit = context_length_of(config.get_text_config(decoder=True))
    if window is not None and limit is not None and window > limit:
        raise UserError(f"data.context_window={window}: the model reads at most {limit} tokens")


def _vocabulary(config: Any) -> tuple[int | None, str]:
    """The vocabulary size, None if it is unknown before training, and its source in words."""
    from modeling_stlm.tokenization_stlm import byte_tokenizer
    from tidy_stlms.trainers.tokenizer import DEFAULT_TOKENIZER

    tokenizer, fields = config.tokenizer, config.model.config or {}
    if "vocab_size" in fields:
        return fields["vocab_size"], "model.config.vocab_size"
    if tokenizer.train is not None:
        return tokenizer.train.vocab_size, "tokenizer.train.vocab_size; a corpus of few words gives less"
    if tokenizer.bytes or config.model.type == "stlm_byte":
        return len(byte_tokenizer()), "bytes"
    name = tokenizer.name_or_path or DEFAULT_TOKENIZER
    size = _local_tokenizer_size(name)
    if size is not None:
        return size, f"the tokenizer {name}"
    return None, f"GPT-2's size is assumed, since the tokenizer {name} is not on this machine"


def _local_tokenizer_size(name: str) -> int | None:
    from tidy_stlms.eval.models.read import load_tokenizer
    from tidy_stlms.eval.tokens import vocabulary_size

    try:
        return vocabulary_size(load_tokenizer(name, local_files_only=True))
    except UserError:
        if Path(name).is_dir():  # on this machine, and damaged
            raise
        return None


def _read_config(name: str, trust_remote_code: bool, revision: str | None = None) -> Any:
    """The transformers config of a Hub id or of a model folder, which needs no weights."""
    from tidy_stlms.eval.models.lookup import ADAPTER_CONFIG, CONFIG, check_model_path
    from tidy_stlms.eval.models.read import read_model_config

    if not (Path(name) / CONFIG).is_file():
        check_model_path(name, revision=revision)
        if (Path(name) / ADAPTER_CONFIG).is_file():
            raise UserError(f"{name}: an adapter; give its base model")
    return read_model_config(name, trust_remote_code=trust_remote_code, revision=revision)


def _account(config: Any, context_window: int | None, trust_remote_code: bool = False) -> dict[str, Any]:
    from modeling_stlm.accounting import account
    from tidy_stlms.eval.models.read import empty_model

    return account(empty_model(config, trust_remote_code=trust_remote_code), context_window)


def _print(figures: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from tidy_stlms.scripts.terminal import Terminal, literal

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part")
    for name in ("parameters", "share"):
        table.add_column(name, justify="right")
    total, flops = figures["total"], figures["training_flops_per_token"]
    for part, count in figures["parameters"].items():
        table.add_row(literal(part), f"{count:,}", f"{count / total:.1%}")
    table.add_section()
    table.add_row("all", f"{total:,}", "100.0%")

    say(figures["model"])
    Terminal().print(table)
    if "vocabulary" in figures:
        say("vocabulary: {size:,} ({source})".format(**figures["vocabulary"]))
    say(f"without embeddings, positions and head: {figures['non_embedding']:,}")
    say(f"weights: {_bytes(figures['bytes'])}")
    window = f" in rows of {figures['context_window']:,}" if flops is not None else ""
    token, assumed = "token", figures.get("assumed_bytes_per_word")
    if assumed is not None:
        token, window = "byte", f"{window}, for words of {assumed} bytes, as those of English"
    say(f"training FLOPs a {token}: {_quantity(flops)}{window}")
    say(f"cache a {token}: {_bytes(figures['cache_bytes_per_token'])}")


def _bytes(by_dtype: dict[str, int] | None) -> str:
    if by_dtype is None:
        return UNKNOWN
    return ", ".join(f"{_quantity(size)}B in {dtype}" for dtype, size in by_dtype.items())


def _quantity(number: int | None) -> str:
    """`324.3 M`, with decimal prefixes."""
    if number is None:
        return UNKNOWN
    value, prefixes = float(number), ["", "k", "M", "G", "T"]
    while value >= 1000 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:.4g} {prefixes[0]}"


if __name__ == "__main__":
    sys.exit(main())
