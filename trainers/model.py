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
from tidy_stlms.configs.keys import DTYPE, MODEL_CONFIG, check_known
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import ModelSection
from tidy_stlms.eval.models.checks import check_causal, check_logits
from tidy_stlms.eval.models.inputs import context_length_of
from tidy_stlms.eval.models.load import load_weights
from tidy_stlms.eval.models.sizes import check_numbers
from tidy_stlms.eval.tokens import vocabulary_size

MAX_PARAMETERS = 10**11
# Taken from the tokenizer: a model's config has defaults for them, which belong to another vocabulary.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
# Fields that transformers itself sets, or that do not concern a causal language model.
NOT_FOR_USERS = {field.name for field in fields(PreTrainedConfig)} - {DTYPE}


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
        model = random_model(scratch_config_for(section, tokenizer), MODEL_CONFIG)
    name = f"model {section.name_or_path or section.type}"
    if section.name_or_path:
        check_logits(model.eval(), name)
    check_causal(model.eval(), name)
    check_vocabulary(model, tokenizer)
    return model


def random_model(config: PreTrainedConfig, where: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model with weights drawn as its config says. Raises UserError if they are not finite numbers."""
    with reading(where):  # what the config itself does not check
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(f"{where}: makes weights that are not finite numbers; is an initializer_range wrong?")
    return model


def scratch_config(section: ModelSection, **defaults: Any) -> PreTrainedConfig:
    """The config of a model from scratch: `model.config`, with `defaults` for what it leaves open.

    Raises UserError if it is wrong.
    """
    config_class, given = CONFIG_MAPPING[section.type], section.config or {}
    names = [field.name for field in fields(config_class) if not field.name.startswith("_")]
    names += config_class.attribute_map  # second names of some fields
    check_known(given, [name for name in names if name not in NOT_FOR_USERS], MODEL_CONFIG)
    check_numbers(given, MODEL_CONFIG)
    with reading(MODEL_CONFIG):
        config = config_class(**{**dict.fromkeys(SPECIAL_TOKENS), **defaults, **given})
    _check_token_ids(given, config)
    return config


def scratch_config_for(section: ModelSection, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The same, with vocabulary size and special tokens of the tokenizer.

    Raises UserError also if it makes no model, or one with too many parameters.
    """
    special = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    config = scratch_config(section, vocab_size=vocabulary_size(tokenizer), **special)
    parameters = number_of_parameters(shapes_of(config, MODEL_CONFIG))
    if parameters > MAX_PARAMETERS:
        raise UserError(
            f"{MODEL_CONFIG}: makes a model of {parameters / 1e9:,.0f} billion parameters, more than "
            f"{MAX_PARAMETERS / 1e9:,.0f} billion; lower its sizes"
        )
    return config


def _check_token_ids(given: dict[str, Any], config: Any) -> None:
    """Raise UserError for a special token outside of the vocabulary, which no text could hold."""
    vocab_size = config.vocab_size
    for name, value in given.items():
        if name.endswith("token_id"):
            for token_id in value if isinstance(value, list) else [value]:
                if token_id is not None and not 0 <= token_id < vocab_size:
                    raise UserError(
                        f"{MODEL_CONFIG}.{name}={token_id}: the vocabulary has {vocab_size} entries; leave "
                        "it out, and it is the tokenizer's"
                    )


def shapes_of(config: PreTrainedConfig, where: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a config on the meta device, where weights have shapes and take no memory.

    Raises UserError if the config makes none.
    """
    with reading(where), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def number_of_parameters(model: PreTrainedModel) -> int:
    """The number of weights, those that two modules share counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if the tokenizer has ids that the model does not embed."""
    embeddings: Any = model.get_input_embeddings()
    embedded = embeddings.num_embeddings
    if (needed := vocabulary_size(tokenizer)) > embedded:
        raise UserError(
            f"model: its vocabulary has {embedded} entries, the tokenizer's ids need {needed}; leave out "
            "model.config.vocab_size, or take the model's own tokenizer"
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
