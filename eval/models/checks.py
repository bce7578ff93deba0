"""Checks of a model right after loading: weights that fit the config, usable logits, causal attention.

Each check costs at most one forward pass over a few tokens. Without them nothing would fail later: the report
would show the recall of a broken or a wrong model.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading

logger = logging.getLogger(__name__)

# Older versions of transformers saved more than weights: causal masks (`attn.bias` of GPT-2, GPT-Neo and
# GPT-J), tables of positions, OPT's version. BERT's pooler is no part of a language model.
NOT_WEIGHTS = re.compile(
    r"\.(attn|attention)\.(bias|causal_mask)$|\.(masked_bias|version|inv_freq|position_ids)$|\.pooler\."
)


def check_fit(model: Any, info: dict[str, Any], name: str) -> None:
    """Raise UserError, naming the model, if the weights do not fit the config.

    transformers initialises missing tensors and tensors of another size at random, and drops tensors that
    the config has no place for. The model would load, but it would not be the trained one.

    Args:
        info: What `from_pretrained(..., output_loading_info=True)` returns with the model.
    """
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{name}: cannot be loaded: the weights lack {len(missing)} of a causal language model's "
            f"tensors, {missing[0]} among them"
        )
    if mismatched := sorted(info["mismatched_keys"]):
        tensor, in_file, in_config = mismatched[0]
        raise UserError(
            f"{name}: cannot be loaded: {len(mismatched)} tensors of the weights have another size than the "
            f"config says: {tensor} is {tuple(in_file)}, not {tuple(in_config)}"
        )
    ignored = {key for key in info["unexpected_keys"] if not NOT_WEIGHTS.search(key)}
    # a module that the model lacks as a whole, such as the head of a classifier, does not change its logits
    modules = {child for parent in (model, model.base_model) for child, _ in parent.named_children()}
    unexpected = sorted(key for key in ignored if key.partition(".")[0] in modules)
    if unexpected:
        raise UserError(
            f"{name}: cannot be loaded: the weights hold {len(unexpected)} tensors that the config has no "
            f"place for, {unexpected[0]} among them: config and weights are of different models"
        )
    if ignored:
        logger.warning(
            "%s: not a part of a causal language model, left out: %s", model.name_or_path, min(ignored)
        )


def check_adapter_fit(model: Any, name: str, revision: str | None) -> None:
    """Raise UserError if the adapter at `name` holds tensors that `model` (base and adapter) lacks.

    peft drops them without an error: the base model is not the one that the adapter was trained on.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    with reading(f"{name}: cannot be loaded"):
        in_file = load_peft_weights(name, device="cpu", revision=revision)
        in_model = get_peft_model_state_dict(model)
    if unexpected := sorted(in_file.keys() - in_model.keys()):
        raise UserError(
            f"{name}: cannot be loaded: the adapter holds {len(unexpected)} tensors that its base model has "
            f"no place for, {unexpected[0]} among them: it was made for another model"
        )


def check_logits(model: Any, name: str) -> None:
    """Raise UserError if logits are not finite, or the same for all tokens or for all inputs.

    Then the weights are damaged or were not loaded. `model` must be in eval mode; it reads two texts of eight
    tokens.
    """
    import torch

    from tidy_stlms.eval.models.inputs import text_config

    with reading(f"{name}: cannot be used"):
        vocabulary = int(text_config(model).vocab_size)
    # spread over the vocabulary: the first ids often are special tokens, and some of these are untrained
    ids = [tenth * vocabulary // 10 for tenth in range(1, 9)]
    logits = _trial_logits(model, [ids, ids[::-1]], name)
    if not logits.isfinite().all():
        raise UserError(
            f"{name}: its logits are not finite numbers: its weights are broken, or the dtype too narrow "
            "(try float32)"
        )
    if (logits.amin(-1) == logits.amax(-1)).all():
        raise UserError(f"{name}: it gives all tokens the same probability: its weights were lost")
    if torch.equal(logits[0], logits[1]):
        raise UserError(f"{name}: it says the same whatever it reads: its weights were lost")


def check_causal(model: Any, name: str) -> None:
    """Raise UserError if the model attends to later tokens, as BERT does without `is_decoder`.

    `model` must be in eval mode; it reads two texts of eight tokens that differ in the last one.
    """
    import torch

    # far above the rounding of a causal model, and below what attention to the last token changes, even with
    # random weights
    if lookahead(model, name) > (1e-5 if model.dtype == torch.float32 else 2e-2):
        raise UserError(
            f"{name}: not a causal language model: it looks ahead (is_decoder=true may be missing)"
        )


def lookahead(model: Any, name: str) -> float:
    """How much another last token changes the logits of the tokens before it, as `logit_difference`; 0 for a
    causal model.

    `model` must be in eval mode; it reads two texts of eight tokens.
    """
    from tidy_stlms.eval.models.inputs import logit_difference

    first, second = _trial_logits(model, [[*range(8)], [*range(7), 0]], name)[:, :-1]  # each (7, vocabulary)
    return logit_difference(first, second)


def _trial_logits(model: Any, texts: list[list[int]], name: str) -> Any:
    """The model's logits for texts of eight token ids, (texts, 8, vocabulary), in float32.

    A wrong value in a config often shows only here, as an error deep inside the model.
    """
    import torch

    from tidy_stlms.eval.models.inputs import forward_arguments

    arguments = forward_arguments(model, texts, pad_id=0, keep=8)
    with torch.no_grad(), reading(f"{name}: cannot be used: its forward pass fails"):
        logits = model(**arguments).logits[:, -8:].float()
    if logits.shape[:2] != (len(texts), 8):
        raise UserError(f"{name}: cannot be used: its logits have the shape {tuple(logits.shape)}")
    return logits


@contextlib.contextmanager
def without_load_report(progress_bar: bool = True) -> Iterator[None]:
    """Keep transformers from printing its table of missing and unexpected tensors: `check_fit` names them.

    With `progress_bar=False`, hide its progress bar too.
    """
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    hidden = not progress_bar and transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if hidden:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if hidden:
            transformers_logging.enable_progress_bar()
