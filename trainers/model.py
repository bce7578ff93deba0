"""The model of a run: one from scratch, or an existing one whose training continues."""

from dataclasses import fields
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import modeling_stlm  # noqa: F401  registers its model types
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.keys import MODEL_CONFIG, check_known
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import ModelSection
from tidy_stlms.eval.models.checks import check_causal, check_logits
from tidy_stlms.eval.models.inputs import context_length_of
from tidy_stlms.eval.models.load import load_weights
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.models.sizes import check_numbers
from tidy_stlms.eval.tokens import vocabulary_size

MAX_PARAMETERS = 10**11
# Taken from the tokenizer: a model's config has defaults for them, which belong to another vocabulary.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def check_model(section: ModelSection, context_window: int | None = None) -> None:
    """Raise UserError if there is no such model, or its config is wrong; reads no weights.

    `context_window` is `data.context_window`, which must fit a model from scratch.
    """
    if section.name_or_path:
        check_model_path(section.name_or_path, revision=section.revision)
        return
    config = scratch_config(section, vocab_size=1)  # the tokenizer, which decides it, is not there yet
    choose_context_window(context_window, config)
    check_architecture(config)


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
    check_architecture(config)
    with reading(MODEL_CONFIG):  # what the config itself does not check
        model = AutoModelForCausalLM.from_config(config)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(
            f"{MODEL_CONFIG}: makes weights that are not finite numbers; is an initializer_range wrong?"
        )
    return model


def scratch_config(section: ModelSection, **defaults: Any) -> PreTrainedConfig:
    """The config of a model from scratch: `model.config`, with `defaults` for what it leaves open.

    Raises UserError if it is wrong, or if its model would be absurdly large.
    """
    config_class, given = CONFIG_MAPPING[section.type], section.config or {}
    names = [field.name for field in fields(config_class) if not field.name.startswith("_")]
    check_known(given, [*names, *config_class.attribute_map], MODEL_CONFIG)  # second names of some fields
    check_numbers(given, MODEL_CONFIG)
    with reading(MODEL_CONFIG):
        return config_class(**{**dict.fromkeys(SPECIAL_TOKENS), **defaults, **given})


def check_architecture(config: PreTrainedConfig) -> None:
    """Raise UserError if a config makes no model, or one with too many parameters.

    The model is made without weights, so it takes no memory.
    """
    with reading(MODEL_CONFIG), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MAX_PARAMETERS:
        raise UserError(
            f"{MODEL_CONFIG}: makes a model of {parameters / 1e9:,.0f} billion parameters, more than "
            f"{MAX_PARAMETERS / 1e9:,.0f} billion; lower its sizes"
        )


def choose_context_window(configured: int | None, config: PreTrainedConfig) -> int:
    """Tokens in a row: `data.context_window`, or as many as the model reads.

    Raises UserError if the model reads fewer, or does not say how many.
    """
    limit = context_length_of(config.get_text_config(decoder=True))
    window = configured or limit
    if window is None:
        raise UserError("data.context_window: the model states no max_position_embeddings; give it here")
    if limit is not None and window > limit:
        raise UserError(f"data.context_window={window}: the model reads at most {limit} tokens")
    return window
