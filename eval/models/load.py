"""Loading any causal language model: an STLM, a Hub id, a local folder, a peft adapter.

model, tokenizer = load_model("outputs/quickstart")
"""

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.configs.files import read_json
from tidy_stlms.eval.checkpoint_mark import check_weights_of_run
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.models.checks import (
    check_adapter_fit,
    check_causal,
    check_fit,
    check_logits,
    without_load_report,
)
from tidy_stlms.eval.run_folder import CHECKPOINT

logger = logging.getLogger(__name__)

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
# any of them makes a tokenizer
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)
DTYPES = ("float32", "bfloat16", "float16")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT = 10.0  # seconds


@writing_hub_cache()
def load_model(
    name_or_path: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """Load a causal language model, in eval mode on its device, and its tokenizer.

    Args:
        name_or_path: A Hub id, a folder of `save_pretrained` (a run folder is one), or a peft adapter. A
            run's checkpoint without a tokenizer takes the run's.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" or None: CUDA, else MPS, else the CPU.
        dtype: "float32", "bfloat16", "float16"; "auto" or None: bfloat16 on a CUDA device that has it,
            else float32.
        trust_remote_code: Run code that comes with the model. STLMs need none here.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        UserError: Where there is no model, no tokenizer, no such device, foreign code is needed, the weights
            do not fit the config or give no probabilities, or the model looks ahead.
    """
    name = str(name_or_path)
    place = choose_device(device)
    number_type = choose_dtype(dtype, place)
    model = load_weights(name, number_type, trust_remote_code=trust_remote_code, revision=revision)
    try:
        tokenizer = _tokenizer_of(tokenizer_folder(name), model, trust_remote_code, revision)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{name}: its tokenizer cannot be loaded: {_reason(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # what transformers makes of a folder without tokenizer files
        raise UserError(f"{name}: the tokenizer is empty; save the model's tokenizer beside it")
    logger.info("%s: on %s in %s", name, place, number_type)
    model = model.to(place).eval()
    check_logits(model, name)
    check_causal(model, name)
    return model, tokenizer


def free_memory() -> None:
    """Give back what a model that is no longer referred to has held, before the next is loaded."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def tokenizer_folder(name: str) -> str:
    """Where a model's tokenizer lies: beside it, or for a bare `run/checkpoint-N` in the run's folder."""
    folder = Path(name)
    if not CHECKPOINT.fullmatch(folder.name) or _has_any(folder, TOKENIZER_FILES):
        return name
    return str(folder.parent) if _has_any(folder.parent, TOKENIZER_FILES) else name


def tokenizer_hash(tokenizer: Any) -> str:
    """8 hex digits, equal for tokenizers that make the same tokens of every text.

    From the serialised tokenizer without its settings for padding and truncation, which scoring does
    without; slow tokenizers by class, vocabulary and special tokens.
    """
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    content["start and end"] = [tokenizer.bos_token, tokenizer.eos_token]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


@writing_hub_cache()
def load_weights(
    name: str, dtype: Any, *, trust_remote_code: bool = False, revision: str | None = None
) -> Any:
    """A causal language model with all of its weights, on the CPU; UserError where that cannot be had."""
    from safetensors import SafetensorError
    from transformers.utils.peft_utils import find_adapter_config_file

    import modeling_stlm  # noqa: F401  registers STLMs, so that their folders need no remote code

    check_model_path(name, revision=revision)
    check_weights_of_run(Path(name))
    # False rather than nothing, or transformers asks on stdin
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        if find_adapter_config_file(name, revision=revision) is not None:
            return _load_adapted(name, dtype, options)
        return _load_whole(name, dtype, options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UserWarning) as error:
        raise UserError(f"{name}: cannot be loaded: {_reason(error)}") from error


@writing_hub_cache()
def load_tokenizer(name: str, **options: Any) -> Any:
    """AutoTokenizer's, which of GPT-2's bare `vocab.json` and `merges.txt` cannot tell whose they are."""
    from transformers import AutoTokenizer, GPT2Tokenizer

    present = [(Path(name) / file).is_file() for file in ("vocab.json", "merges.txt")]
    described = ("tokenizer.json", "tokenizer_config.json", CONFIG)
    if all(present) and not any((Path(name) / file).exists() for file in described):
        return GPT2Tokenizer.from_pretrained(name)
    return AutoTokenizer.from_pretrained(name, **options)


def check_model_path(path: str | Path, *, revision: str | None = None) -> None:
    """Cheaply make sure that there is a model, before anything long starts: UserError if there is none.

    Of a folder the config is read and the weights are looked for; the Hub is asked once for an id.
    """
    name, folder = str(path), Path(path)
    if folder.is_dir():
        _check_folder(folder)
    elif folder.exists():
        raise UserError(f"{name}: not a model (a file); give a folder with {CONFIG} and weights, or a Hub id")
    elif not HUB_ID.fullmatch(name) or ("/" in name and folder.parent.is_dir()):
        raise UserError(f"{name}: not a model (no such folder); give a model folder or a Hub id")
    else:
        _check_hub_id(name, revision)


def resolve_commit(name: str, revision: str | None) -> str | None:
    """The commit that a model of the Hub has at `revision` now; the downloaded one where the Hub cannot be
    asked, and None where there is neither."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        return HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT).sha
    except (OSError, HTTPError):
        found = (try_to_load_from_cache(name, file, revision=revision) for file in (CONFIG, ADAPTER_CONFIG))
        return next((Path(path).parent.name for path in found if isinstance(path, str)), None)


def choose_device(device: str | None) -> Any:
    """The torch device of that name, or the best that there is for None and "auto"."""
    import torch

    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r}: {_reason(error)}; try device=auto") from error


def choose_dtype(dtype: str | None, device: Any) -> Any:
    """The torch dtype of that name; for None and "auto" bfloat16 where a GPU computes in it, else float32.

    Not on CPUs: their bfloat16 is slower than float32, and coarser.
    """
    import torch

    if dtype in (None, "auto"):
        # ones that only emulate it are slow, and small numbers are better off in float32
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: not one of auto, {', '.join(DTYPES)}")
    return getattr(torch, str(dtype))


def _load_whole(name: str, dtype: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    with without_load_report():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, info = loaded
    check_fit(model, info)
    return model


def _load_adapted(name: str, dtype: Any, options: dict[str, Any]) -> Any:
    """A peft adapter on its base model. Not by AutoPeftModel, which bears a base that lacks weights, and
    knows that of an adapter without `task_type` in some packages only."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(name, revision=options["revision"])
    base = _load_whole(config.base_model_name_or_path, dtype, {**options, "revision": config.revision})
    try:
        n_tokens = len(load_tokenizer(name, **options))
    except (OSError, ValueError):
        n_tokens = 0  # the base model's serves
    if n_tokens > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(n_tokens)
    with warnings.catch_warnings():
        # what the file lacks would stay as it was made at random
        warnings.filterwarnings("error", message=".*missing adapter keys")
        model = PeftModel.from_pretrained(base, name, revision=options["revision"])
    check_adapter_fit(model, name, options["revision"])
    return model


def _tokenizer_of(name: str, model: Any, trust_remote_code: bool, revision: str | None) -> Any:
    try:
        return load_tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        base = getattr(model, "active_peft_config", None)
        if base is None:
            raise
        # an adapter brings a tokenizer only if it changed it
        return load_tokenizer(
            base.base_model_name_or_path, revision=base.revision, trust_remote_code=trust_remote_code
        )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's weights, in a form that is read."""
    return any(next(folder.glob(pattern), None) for pattern in WEIGHTS)


def _has_any(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER_CONFIG).is_file():
        base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        if not base:
            raise UserError(f"{folder}/{ADAPTER_CONFIG}: base_model_name_or_path is missing")
        try:
            check_model_path(base)
        except UserError as error:
            raise UserError(f"{folder}: its base model cannot be had: {error}") from None
    elif (folder / CONFIG).is_file():
        read_json(folder / CONFIG)
    else:
        raise UserError(f"{folder}: not a model (no {CONFIG}); give a model folder or a Hub id")
    if not has_weights(folder):
        raise UserError(f"{folder}: not a model (no weights beside its config); was its run cut off?")


def _check_hub_id(name: str, revision: str | None) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    names = (CONFIG, ADAPTER_CONFIG)
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in names):
        return
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        reason = "no such folder, and no such model on the Hub, or a private one that needs `hf auth login`"
        raise UserError(f"{name}: not a model ({reason})") from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: the model on the Hub has no revision {revision!r}") from None
    except (OSError, HTTPError) as error:
        reason = f"no such folder, and the Hub cannot be asked: {_reason(error)}"
        raise UserError(f"{name}: not a model ({reason})") from None
    if not any(sibling.rfilename in names for sibling in info.siblings or []):
        raise UserError(f"{name}: not a model (the Hub's repository has no {CONFIG})")


def _reason(error: BaseException) -> str:
    """An error of another library in one line."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own: read that, and pass --trust-remote-code if you trust it"
    return one_line(error, 200)
