"""The model of a run: one from scratch, or an existing one whose training continues."""

import logging
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
from tidy_stlms.eval.models.prefix import own_prefix, record_prefix
from tidy_stlms.eval.models.sizes import check_numbers
from tidy_stlms.eval.tokens import vocabulary_size

logger = logging.getLogger(__name__)

# Taken from the tokenizer: a model's config has defaults for them, which belong to another vocabulary.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
# Fields that transformers itself sets, or that do not concern a causal language model.
FIELDS_OF_TRANSFORMERS = {field.name for field in fields(PreTrainedConfig)} - {DTYPE}


def build_model(section: ModelSection, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model from `section.config`, initialised from `seed`, or the model to go on training.

    Its config records how the training stream begins documents.

    Raises UserError for a config that makes no model, weights that are not finite or give no usable logits, a
    model that is not causal, and a vocabulary that is smaller than the tokenizer's.
    """
    set_seed(seed)
    model: Any
    if section.name_or_path:
        name = f"model {section.name_or_path}"
        model = load_weights(
            section.name_or_path,
            torch.float32,
            trust_remote_code=section.trust_remote_code,
            revision=section.revision,
        )
        check_logits(model.eval(), name)
        _warn_of_own_prefix(tokenizer, name)
    else:
        name = f"model {section.type}"
        model = random_model(config_for_tokenizer(section, tokenizer), MODEL_CONFIG)
    check_causal(model.eval(), name)
    check_vocabulary(model, vocabulary_size(tokenizer))
    record_prefix(model)
    return model


def _warn_of_own_prefix(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Log a warning if a trained model was used to another token before documents than this project's stream
    puts there."""
    own = own_prefix(tokenizer)
    if own.ids not in ((), (tokenizer.eos_token_id,)):
        logger.warning(
            "%s: its tokenizer puts %s before a text. Here %s stands before documents and prompts, so the "
            "first steps, and recall at step 0, may show less than the model knows",
            *(name, tokenizer.decode(list(own.ids)), tokenizer.eos_token),
        )


def random_model(config: PreTrainedConfig, where: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model with weights drawn as its config says. Raises UserError if they are not finite numbers."""
    with reading(where):  # some wrong values show only here
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(f"{where}: makes weights that are not finite numbers; is an initializer_range wrong?")
    return model


def scratch_config(section: ModelSection, **defaults: Any) -> PreTrainedConfig:
    """The config of a model from scratch: `model.config`, with `defaults` for what it leaves open.

    Raises UserError for a wrong key or value.
    """
    config_class, given = CONFIG_MAPPING[section.type], section.config or {}
    names = [field.name for field in fields(config_class) if not field.name.startswith("_")]
    names += config_class.attribute_map  # second names of some fields
    check_known(given, [name for name in names if name not in FIELDS_OF_TRANSFORMERS], MODEL_CONFIG)
    check_numbers(given, MODEL_CONFIG)
    with reading(MODEL_CONFIG):
        return config_class(**{**dict.fromkeys(SPECIAL_TOKENS), **defaults, **given})


def config_for_tokenizer(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None
) -> PreTrainedConfig:
    """The config of a model from scratch, with vocabulary size and special tokens of the tokenizer.

    Those that `model.config` gives stay. `vocab_size` is used in place of the tokenizer's, if given.

    Raises UserError for a wrong key or value, and for a special token outside of the vocabulary.
    """
    special = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    config = scratch_config(section, vocab_size=vocab_size or vocabulary_size(tokenizer), **special)
    _check_token_ids(section.config or {}, config)
    return config


def _check_token_ids(given: dict[str, Any], config: PreTrainedConfig) -> None:
    lists = {name: value if isinstance(value, list) else [value]
             for name, value in given.items() if name.endswith("token_id")}  # fmt: skip
    for name, token_id in ((name, token_id) for name, ids in lists.items() for token_id in ids):
        size = config.get_text_config(decoder=True).vocab_size
        if token_id is not None and not 0 <= token_id < size:
            raise UserError(
                f"{MODEL_CONFIG}.{name}={token_id}: the vocabulary has {size} entries; leave it out to use "
                "the tokenizer's"
            )


def number_of_parameters(model: PreTrainedModel) -> int:
    """The number of weights, those that two modules share counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_vocabulary(model: PreTrainedModel, needed: int) -> None:
    """Raise UserError if the model embeds fewer token ids than `needed`, the size of the tokenizer."""
    embeddings: Any = model.get_input_embeddings()
    if needed > embeddings.num_embeddings:
        raise UserError(
            f"model: its vocabulary has {embeddings.num_embeddings} entries, the tokenizer's ids need "
            f"{needed}; leave out model.config.vocab_size, or take the model's own tokenizer"
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
