"""Loading any causal language model: an STLM, a Hub id, a local folder, a peft adapter.

model, tokenizer = load_model("outputs/quickstart")
"""

import logging
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading, reason_of
from tidy_stlms.eval.checkpoint_mark import check_weights_of_run
from tidy_stlms.eval.models.checks import check_adapter_fit, check_causal, check_fit, check_logits
from tidy_stlms.eval.models.lookup import BASE_IS_ADAPTER, check_model_path
from tidy_stlms.eval.models.prefix import is_run_or_checkpoint, record_prefix, trained_prefix
from tidy_stlms.eval.models.read import (
    has_tokenizer,
    load_tokenizer,
    read_adapter,
    read_adapter_config,
    read_model_config,
    read_weights,
)
from tidy_stlms.eval.run_folder import CHECKPOINT

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


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
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    model = load_weights(name, torch_dtype, **code)
    tokenizer = tokenizer_of(name, model, **code)
    base = getattr(model, "active_peft_config", None)
    if trained_prefix(model) is None and is_run_or_checkpoint(base.base_model_name_or_path if base else name):
        record_prefix(model)
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
    if not CHECKPOINT.fullmatch(folder.name) or has_tokenizer(folder):
        return name
    return str(folder.parent) if has_tokenizer(folder.parent) else name


def tokenizer_of(
    name: str, model: Any, *, trust_remote_code: bool = False, revision: str | None = None
) -> Any:
    """The tokenizer of the loaded `model` of that name; of its base model for an adapter without one.

    Raises UserError if there is none, or it cannot be read.
    """
    place, base = tokenizer_folder(name), getattr(model, "active_peft_config", None)
    if base is not None:
        if (own := _tokenizer_of_adapter(name, trust_remote_code, revision)) is not None:
            return own
        place, revision = base.base_model_name_or_path, base.revision
    return load_tokenizer(place, revision=revision, trust_remote_code=trust_remote_code)


def load_weights(
    name: str, dtype: Any, *, trust_remote_code: bool = False, revision: str | None = None
) -> Any:
    """Load a causal language model with all of its weights, on the CPU.

    `dtype` is a torch dtype. Raises UserError, naming the model, if it cannot be loaded, if weights are
    missing or do not fit the config, and if a run's checkpoint is damaged.
    """
    check_model_path(name, revision=revision)
    check_weights_of_run(Path(name))
    adapter = read_adapter_config(name, revision)
    if adapter is None:
        return _load_whole(name, dtype, trust_remote_code, revision)
    return _load_adapted(name, adapter, dtype, trust_remote_code, revision)


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


def _load_whole(name: str, dtype: Any, trust_remote_code: bool, revision: str | None) -> Any:
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    config = read_model_config(name, **code)
    quantized = getattr(config, "quantization_config", None) is not None
    if not quantized:  # quantized tensors get their shapes only on a real device
        # First on the meta device: from_pretrained allocates tensors that do not fit the config, and a config
        # can give them any size.
        model, info = read_weights(name, config, dtype, device="meta", **code)
        check_fit(model, info, name)
    model, info = read_weights(name, config, dtype, **code)
    if quantized:
        check_fit(model, info, name)
    return model


def _load_adapted(name: str, adapter: Any, dtype: Any, trust_remote_code: bool, revision: str | None) -> Any:
    """Load a peft adapter on its base model.

    AutoPeftModel is not enough: it accepts a base model that lacks weights, and finds the base of an adapter
    without `task_type` only in some packages.
    """
    base_name = adapter.base_model_name_or_path
    if not isinstance(base_name, str) or not base_name:
        raise UserError(f"{name}: cannot be loaded: its adapter config names no base model")
    if read_adapter_config(base_name, adapter.revision) is not None:
        raise UserError(f"{name}: cannot be loaded: its base model {base_name} {BASE_IS_ADAPTER}")
    try:
        base = _load_whole(base_name, dtype, trust_remote_code, adapter.revision)
    except UserError as error:
        raise UserError(f"{name}: cannot be loaded: its base model {error}") from error
    tokenizer = _tokenizer_of_adapter(name, trust_remote_code, revision)
    if tokenizer is not None and len(tokenizer) > base.get_input_embeddings().num_embeddings:
        with reading(f"{name}: cannot be loaded"):
            base.resize_token_embeddings(len(tokenizer))
    model = read_adapter(base, name, revision)
    check_adapter_fit(model, name, revision)
    return model


def _tokenizer_of_adapter(name: str, trust_remote_code: bool, revision: str | None) -> Any:
    """The adapter's own tokenizer; None if it has none: it did not change that of its base model."""
    if Path(name).is_dir() and not has_tokenizer(name):
        return None
    try:
        return load_tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)
    except UserError:
        if Path(name).is_dir():
            raise
        return None  # of the Hub: a missing and a damaged tokenizer raise the same errors
