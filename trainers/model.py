"""The model of a run: one from scratch, or an existing one whose training continues."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import modeling_stlm  # noqa: F401  registers its model types
from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.configs.load import check_keys
from tidy_stlms.configs.schema import ModelSection
from tidy_stlms.eval.models.checks import check_causal, check_logits
from tidy_stlms.eval.models.inputs import context_length
from tidy_stlms.eval.models.load import load_weights
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.tokens import vocabulary_size

# Taken from the tokenizer: a model's config has defaults for them, which belong to another vocabulary.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def check_model(section: ModelSection) -> None:
    """Raise UserError if there is no such model, or its config is wrong; reads no weights."""
    if section.name_or_path:
        check_model_path(section.name_or_path, revision=section.revision)
    else:
        scratch_config(section, vocab_size=1)  # the tokenizer, which decides it, is not there yet


def build_model(section: ModelSection, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model from `section.config`, initialised from `seed`, or the model to go on training.

    Raises UserError for a config that makes no model, a model that is not causal, and a vocabulary that is
    smaller than the tokenizer's.
    """
    set_seed(seed)
    model: Any
    if section.name_or_path:
        model = load_weights(
            section.name_or_path,
            torch.float32,
            trust_remote_code=section.trust_remote_code,
            revision=section.revision,
        )
    else:
        model = _scratch_model(section, tokenizer)
    name = f"model {section.name_or_path or section.type}"
    if section.name_or_path:
        check_logits(model.eval(), name)
    check_causal(model.eval(), name)
    embedded = model.get_input_embeddings().num_embeddings
    if (needed := vocabulary_size(tokenizer)) > embedded:
        raise UserError(
            f"model: its vocabulary has {embedded} entries, the tokenizer's ids need {needed}; leave out "
            "model.config.vocab_size, or take the model's own tokenizer"
        )
    return model


def _scratch_model(section: ModelSection, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    special = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    config = scratch_config(section, vocab_size=vocabulary_size(tokenizer), **special)
    try:
        return AutoModelForCausalLM.from_config(config)
    except (ValueError, RuntimeError) as error:  # what the config itself does not check
        raise UserError(f"model.config: {one_line(error)}") from None


def scratch_config(section: ModelSection, **defaults: Any) -> PreTrainedConfig:
    """The config of a model from scratch: `model.config`, with `defaults` for what it leaves open.

    Raises UserError if it is wrong.
    """
    config_class, given = CONFIG_MAPPING[section.type], section.config or {}
    check_keys(given, config_class, "model.config")
    try:
        return config_class(**{**dict.fromkeys(SPECIAL_TOKENS), **defaults, **given})
    except (StrictDataclassError, ValueError, TypeError) as error:
        reason = error.__cause__ or error  # strict dataclasses put a validator's own words there
        raise UserError(f"model.config: {one_line(reason)}") from None


def choose_context_window(configured: int | None, model: PreTrainedModel) -> int:
    """Tokens in a row: `data.context_window`, or as many as the model reads.

    Raises UserError if the model reads fewer, or does not say how many.
    """
    limit = context_length(model)
    window = configured or limit
    if window is None:
        raise UserError("data.context_window: the model states no max_position_embeddings; give it here")
    if limit is not None and window > limit:
        raise UserError(f"data.context_window={window}: the model reads at most {limit} tokens")
    return window
