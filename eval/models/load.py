"""Loading any causal language model: an STLM, a Hub id, a local folder, a peft adapter.

model, tokenizer = load_model("outputs/quickstart")
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reason_of
from tidy_stlms.eval.checkpoint_mark import check_weights_of_run
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.models.checks import (
    check_adapter_fit,
    check_causal,
    check_fit,
    check_logits,
    without_load_report,
)
from tidy_stlms.eval.models.lookup import CONFIG, check_model_path
from tidy_stlms.eval.run_folder import CHECKPOINT

logger = logging.getLogger(__name__)

# A folder with any of these has a tokenizer.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)
DTYPES = ("float32", "bfloat16", "float16")


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
            run's checkpoint without a tokenizer gets the tokenizer of the run.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" or None: CUDA, else MPS, else the CPU.
        dtype: "float32", "bfloat16", "float16"; "auto" or None: bfloat16 on a CUDA device that has it,
            else float32.
        trust_remote_code: Run code that comes with the model. STLMs need none here.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        UserError: If there is no model, no tokenizer or no such device, if the model needs code of its own,
            if its weights do not fit its config or give no probabilities, or if it attends to later tokens.
    """
    name = str(name_or_path)
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    model = load_weights(name, torch_dtype, trust_remote_code=trust_remote_code, revision=revision)
    try:
        tokenizer = _tokenizer_of(tokenizer_folder(name), model, trust_remote_code, revision)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{name}: its tokenizer cannot be loaded: {reason_of(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer for a folder without tokenizer files
        raise UserError(f"{name}: the tokenizer is empty; save the model's tokenizer beside it")
    logger.info("%s: on %s in %s", name, torch_device, torch_dtype)
    model = model.to(torch_device).eval()
    check_logits(model, name)
    check_causal(model, name)
    return model, tokenizer


def free_memory() -> None:
    """Return the memory of models that are no longer referenced to the device, before another is loaded."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def tokenizer_folder(name: str) -> str:
    """The folder or Hub id of a model's tokenizer: the model's own, or the run's for a `run/checkpoint-N`
    without tokenizer files."""
    folder = Path(name)
    if not CHECKPOINT.fullmatch(folder.name) or _has_any(folder, TOKENIZER_FILES):
        return name
    return str(folder.parent) if _has_any(folder.parent, TOKENIZER_FILES) else name


@writing_hub_cache()
def load_weights(
    name: str, dtype: Any, *, trust_remote_code: bool = False, revision: str | None = None
) -> Any:
    """Load a causal language model with all of its weights, on the CPU.

    `dtype` is a torch dtype. Raises UserError, naming the model, if it cannot be loaded, if weights are
    missing or do not fit the config, and if a run's checkpoint is damaged.
    """
    from safetensors import SafetensorError
    from transformers.utils.peft_utils import find_adapter_config_file

    import modeling_stlm  # noqa: F401  registers STLMs, so that their folders need no remote code

    check_model_path(name, revision=revision)
    check_weights_of_run(Path(name))
    # pass False rather than nothing: transformers would ask on stdin
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        if find_adapter_config_file(name, revision=revision) is not None:
            return _load_adapted(name, dtype, options)
        return _load_whole(name, dtype, options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UserWarning) as error:
        raise UserError(f"{name}: cannot be loaded: {reason_of(error)}") from error


@writing_hub_cache()
def load_tokenizer(name: str, **options: Any) -> Any:
    """`AutoTokenizer.from_pretrained`, which also reads a folder with GPT-2's `vocab.json` and `merges.txt`
    alone: AutoTokenizer needs a config to know the tokenizer's class."""
    from transformers import AutoTokenizer, GPT2Tokenizer

    present = [(Path(name) / file).is_file() for file in ("vocab.json", "merges.txt")]
    described = ("tokenizer.json", "tokenizer_config.json", CONFIG)
    if all(present) and not any((Path(name) / file).exists() for file in described):
        return GPT2Tokenizer.from_pretrained(name)
    return AutoTokenizer.from_pretrained(name, **options)


def choose_device(device: str | None) -> Any:
    """The torch device of that name; for None and "auto" CUDA, else MPS, else the CPU.

    Raises UserError if there is no such device.
    """
    import torch

    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r}: {reason_of(error)}; try device=auto") from error


def choose_dtype(dtype: str | None, device: Any) -> Any:
    """The torch dtype of that name; for None and "auto" bfloat16 on GPUs that compute in it, else float32.

    On CPUs bfloat16 is slower than float32 and less exact. Raises UserError for another name.
    """
    import torch

    if dtype in (None, "auto"):
        # GPUs that emulate bfloat16 gain no speed from it, and lose digits
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: not one of auto, {', '.join(DTYPES)}")
    return getattr(torch, str(dtype))


def _load_whole(name: str, dtype: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    # tensors of another size would raise an error that names none of them: `check_fit` names one
    with without_load_report():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, info = loaded
    check_fit(model, info)
    return model


def _load_adapted(name: str, dtype: Any, options: dict[str, Any]) -> Any:
    """Load a peft adapter on its base model.

    AutoPeftModel is not enough: it accepts a base model that lacks weights, and finds the base of an adapter
    without `task_type` only in some packages.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(name, revision=options["revision"])
    base = _load_whole(config.base_model_name_or_path, dtype, {**options, "revision": config.revision})
    try:
        n_tokens = len(load_tokenizer(name, **options))
    except (OSError, ValueError):
        n_tokens = 0  # an adapter without a tokenizer uses its base model's
    if n_tokens > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(n_tokens)
    with warnings.catch_warnings():
        # tensors that the adapter's file lacks would keep their random values
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
        # an adapter has its own tokenizer only if it changed that of its base model
        return load_tokenizer(
            base.base_model_name_or_path, revision=base.revision, trust_remote_code=trust_remote_code
        )


def _has_any(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)
