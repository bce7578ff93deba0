"""Reads a user's model with transformers and peft: config, tokenizer, weights, adapter.

No other file calls `from_pretrained` on a user's model. Whatever these libraries raise ends in one line that
names the model. Code that comes with a model runs only with `trust_remote_code`.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json_object
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.models.checks import without_load_report
from tidy_stlms.eval.models.lookup import CONFIG, may_be_hub_id
from tidy_stlms.eval.models.sizes import check_numbers

# A folder with any of these has a tokenizer.
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
# A tokenizer is tried on this text: some wrong values in its files show only when it is used.
TRIAL_TEXT = "The 3 mills\n"


@writing_hub_cache()
def read_model_config(name: str, *, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """The config of a model folder or a Hub id.

    Raises UserError, naming the model, if it cannot be read or states absurd sizes.
    """
    from transformers import AutoConfig, PreTrainedConfig

    import modeling_stlm  # noqa: F401  registers STLMs, so that their folders need no remote code

    what = f"{name}: its config cannot be read"
    if (Path(name) / CONFIG).is_file():
        fields = read_json_object(Path(name) / CONFIG)
    else:
        with reading(what):
            fields, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    check_numbers(fields, f"{name}: its config")  # first: a config class may make a list of all layers
    with reading(what, _version_remedy(fields, trust_remote_code)):
        # pass False rather than nothing: transformers would ask on stdin
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)


def empty_model(
    config: Any,
    *,
    trust_remote_code: bool = False,
    what: str = "no causal language model can be made of this config",
) -> Any:
    """The causal language model of a config on the meta device, where weights have shapes and no content.

    Raises UserError, beginning with `what`, if none can be made of it, or its sizes are absurd.
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_numbers(vars(config), "the config")
    with reading(what), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


@writing_hub_cache()
def read_weights(
    name: str,
    config: Any,
    dtype: Any,
    *,
    device: str = "cpu",
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """A causal language model with its weights, and `from_pretrained`'s lists of missing and other tensors.

    `config` is what `read_model_config` has read. With `device` "meta", no weights are loaded: only their
    names and shapes are compared with the config.

    Raises UserError, naming the model, if it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    # tensors of another size would raise an error that names none of them: `check_fit` names one
    options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if device != "cpu":
        options["device_map"] = device
    remedy = _version_remedy(config, trust_remote_code)
    with (
        without_load_report(progress_bar=device == "cpu"),
        reading(f"{name}: cannot be loaded", remedy),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "error", message="Casting complex values"
        )  # it would drop the imaginary parts
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code, **options
        )
    return loaded


@writing_hub_cache()
def read_adapter_config(name: str, revision: str | None = None) -> Any:
    """The config of a peft adapter; None if `name` is no adapter."""
    from peft import PeftConfig
    from transformers.utils.peft_utils import find_adapter_config_file

    with reading(f"{name}: cannot be loaded"):
        if find_adapter_config_file(name, revision=revision) is None:
            return None
        config = PeftConfig.from_pretrained(name, revision=revision)
    check_numbers(config.to_dict(), f"{name}: its adapter config")
    return config


@writing_hub_cache()
def read_adapter(base: Any, name: str, revision: str | None = None) -> Any:
    """The peft adapter `name` on its base model."""
    from peft import PeftModel

    with reading(f"{name}: cannot be loaded"), warnings.catch_warnings():
        # tensors that the adapter's file lacks would keep their random values
        warnings.filterwarnings("error", message=".*missing adapter keys")
        # low_cpu_mem_usage: nothing is allocated for a rank that the adapter's file does not have
        return PeftModel.from_pretrained(base, name, revision=revision, low_cpu_mem_usage=True)


@writing_hub_cache()
def load_tokenizer(name: str, **options: Any) -> Any:
    """The tokenizer of a folder or Hub id; also of a folder with GPT-2's `vocab.json` and `merges.txt` alone.

    `options` are those of `AutoTokenizer.from_pretrained`. Raises UserError, naming the folder, for a
    tokenizer that cannot be read or that has no tokens.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    import modeling_stlm  # noqa: F401  registers STLMs, so that their folders need no remote code

    folder = Path(name)
    if not folder.is_dir() and not may_be_hub_id(name):
        raise UserError(f"{name}: no tokenizer there (no such folder); give a folder or a Hub id")
    if folder.is_dir() and not has_tokenizer(folder):  # transformers would make an empty one
        raise UserError(f"{name}: no tokenizer there; save the model's tokenizer in the folder")
    if (folder / CONFIG).is_file():  # AutoTokenizer reads it too
        check_numbers(read_json_object(folder / CONFIG), f"{folder / CONFIG}")
    options = {"trust_remote_code": False, **options}
    # AutoTokenizer needs a config to know the class of a tokenizer that consists of these two files
    present = [(folder / file).is_file() for file in ("vocab.json", "merges.txt")]
    described = ("tokenizer.json", "tokenizer_config.json", CONFIG)
    is_bare = all(present) and not any((folder / file).exists() for file in described)
    with reading(f"{name}: its tokenizer cannot be loaded", _package_remedy(folder)):
        tokenizer = (
            GPT2Tokenizer.from_pretrained(name) if is_bare else AutoTokenizer.from_pretrained(name, **options)
        )
        with _without_panic_messages():
            special = tokenizer.all_special_ids
            is_empty = len(tokenizer) <= len(special)
            tokenizer.decode([*tokenizer(TRIAL_TEXT)["input_ids"], *special])
            tokenizer.get_vocab(), tokenizer.added_tokens_decoder, tokenizer.convert_ids_to_tokens(special)
    if is_empty:  # transformers makes it of a tokenizer_config.json without a vocabulary
        raise UserError(f"{name}: the tokenizer is empty; save the model's tokenizer beside it")
    return tokenizer


def read_tokenizer(source: str | Path) -> Any:
    """The tokenizer for a checkpoint of Tidy-STLMs: a `bpe_NAME_SIZE.model` file, a folder or a Hub id.

    Raises UserError if there is none, or it cannot be read.
    """
    from modeling_stlm.tidy.tokenizer import read_tidy_tokenizer

    return read_tidy_tokenizer(source) if Path(source).is_file() else load_tokenizer(str(source))


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds files of a tokenizer."""
    return any(path.is_file() for pattern in TOKENIZER_FILES for path in Path(folder).glob(pattern))


@contextlib.contextmanager
def _without_panic_messages() -> Iterator[None]:
    """Drop what is written to standard error inside the block.

    The library tokenizers is written in Rust. When it panics, it prints up to sixty lines before Python gets
    the error.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _package_remedy(folder: Path) -> str:
    """What to install for a SentencePiece tokenizer: transformers may name another package."""
    needed = any(folder.glob("*.model")) and not (folder / "tokenizer.json").is_file()
    if not needed or find_spec("sentencepiece") is not None:
        return ""
    return "; a tokenizer of SentencePiece needs `pip install sentencepiece protobuf`"


def _version_remedy(config: Any, trust_remote_code: bool) -> str:
    """A hint for a model whose own code runs: it may be written for another version of transformers."""
    from importlib.metadata import version

    fields = config if isinstance(config, dict) else vars(config)
    if not trust_remote_code or not fields.get("auto_map"):
        return ""
    written = f"{fields.get('transformers_version') or 'another version'!s:.20}"
    return (
        f"; its own code may not fit transformers {version('transformers')} (it was saved by {written}): ask "
        "its author for newer code, or install that version"
    )
