"""Reads the `model` section of a Tidy-STLMs config as fields of STLMConfig.

Blocks of Tidy-STLMs are pre-norm: x + attn(norm(x)) and x + ffn(norm(x)). `group_size` is the number of query
heads that share a key/value head. A norm has a bias if the part after it has one. Dropout does not belong to
the `model` section: a schedule in the trainer sets it.
"""

from collections.abc import Iterator
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from tidy_stlms.configs.errors import UserError, one_line

from ..configuration_stlm import STLMConfig

POSITIONS = {"rope": "rotary", "learned": "learned", "sincos": "sinusoidal", "none": "none"}
NORMS = {"rms_norm": "rmsnorm", "layer_norm": "layernorm", "none": "none"}
ACTIVATIONS = {
    "gelu": "gelu",  # the exact one
    "relu": "relu",
    "silu": "silu",
    "leakyrelu": "leaky_relu",
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
# Keys with only one value that an STLM can have.
FIXED = {
    "model_shell_type": "standard",
    "embedder.embedding_model_type": "generic",
    "lm_head.lm_head_type": "generic",
    "core_model.attn.attn_type": "generic",
    "core_model.attn.is_causal": True,
}
# The field of STLMConfig for each of the other keys.
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_dim": "hidden_size",
    "context_window": "max_position_embeddings",
    "embedding_weight_tying": "tie_word_embeddings",
    "positional_encoding_type": "position_embedding_type",
    "core_model.core_model_type": "num_ffn_groups",
    "core_model.num_layers": "num_hidden_layers",
    "core_model.attn.num_heads": "num_attention_heads",
    "core_model.attn.group_size": "num_key_value_heads",
    "core_model.attn.bias": "attention_bias",
    "core_model.attn.normalization": "attention_norm_type",
    "core_model.ffn.ffn_type": "mlp_type",
    "core_model.ffn.ffn_dim": "intermediate_size",
    "core_model.ffn.activation": "hidden_act",
    "core_model.ffn.bias": "mlp_bias",
    "core_model.ffn.normalization": "mlp_norm_type",
    "lm_head.bias": "lm_head_bias",
    "lm_head.normalization": "final_norm_type",
}


def stlm_fields(model: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of STLMConfig that make the model of a Tidy-STLMs config.

    Args:
        model: The `model` section as plain values.
        where: The file, for messages.

    Raises UserError, naming key and value, for a model that an STLM cannot be.
    """
    section = _Section(model, where)
    for key, wanted in FIXED.items():
        section.choice(key, {wanted: wanted})
    heads, group = section.number("core_model.attn.num_heads"), section.number("core_model.attn.group_size")
    if heads % group != 0:
        raise UserError(
            f"{where}: model.core_model.attn.group_size={group}: does not divide num_heads={heads}"
        )
    gated = section.choice("core_model.ffn.ffn_type", {"swiglu": True, "generic": False})
    layer = section.choice("core_model.core_model_type", {"generic": None, "generic_ffn_sharing": 1})
    norms = {
        "attention_norm_type": section.choice("core_model.attn.normalization", NORMS),
        "mlp_norm_type": section.choice("core_model.ffn.normalization", NORMS),
        "final_norm_type": section.choice("lm_head.normalization", NORMS),
    }
    biases = [section.flag(f"{part}.bias") for part in ("core_model.attn", "core_model.ffn", "lm_head")]
    fields = {
        "vocab_size": section.number("vocab_size"),
        "hidden_size": section.number("hidden_dim"),
        "intermediate_size": section.number("core_model.ffn.ffn_dim"),
        "num_hidden_layers": section.number("core_model.num_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads // group,
        "max_position_embeddings": section.number("context_window"),
        "position_embedding_type": section.choice("positional_encoding_type", POSITIONS),
        "attention_bias": biases[0],
        "mlp_type": "gated" if gated else "plain",
        "hidden_act": "silu" if gated else section.choice("core_model.ffn.activation", ACTIVATIONS),
        "mlp_bias": biases[1],
        "num_ffn_groups": layer,
        "norm_type": norms["attention_norm_type"],
        "norm_bias": any(
            bias and norm == "layernorm" for bias, norm in zip(biases, norms.values(), strict=True)
        ),
        "rms_norm_eps": 1e-6,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": section.flag("embedding_weight_tying"),
        "lm_head_bias": biases[2],
    }
    if len(set(norms.values())) > 1:
        fields |= norms
    checked_config(fields, where)
    return fields


def checked_config(fields: dict[str, Any], where: str) -> STLMConfig:
    """STLMConfig of these fields. Raises UserError, naming the file, if they do not fit together."""
    try:
        return STLMConfig(**fields)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise UserError(f"{where}: model: {' '.join(str(error.__cause__ or error).split())}") from None


def dropout_fields(dropout_scheduler: Any) -> dict[str, float]:
    """The dropouts of STLMConfig for a constant `trainer.dropout_scheduler`; empty for any other one."""
    section = dropout_scheduler if isinstance(dropout_scheduler, dict) else {}
    probability = section.get("dropout_p", section.get("dropout"))  # the second in older configs
    if section.get("dropout_type") != "constant" or not isinstance(probability, int | float):
        return {}
    return dict.fromkeys(("embd_dropout", "attention_dropout", "resid_dropout"), float(probability))


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) such as `("core_model.attn.bias", False)`. An empty mapping counts as a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Section:
    """Reads values by their dotted keys. Raises UserError for missing and wrong ones."""

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise UserError(f"{where}: model: the section is missing")
        self.values, self.where = values, where

    def value(self, key: str) -> Any:
        value: Any = self.values
        for name in key.split("."):
            if not isinstance(value, dict) or name not in value:
                raise UserError(f"{self.where}: model.{key}: is missing")
            value = value[name]
        return value

    def choice(self, key: str, choices: dict[Any, Any]) -> Any:
        value = self.value(key)
        name = value.lower() if isinstance(value, str) else value
        if isinstance(name, dict | list) or name not in choices:
            known = ", ".join(str(choice) for choice in choices)
            raise self.wrong(key, value, f"cannot be converted; only {known} can")
        return choices[name]

    def number(self, key: str) -> int:
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, value, "must be a whole number of at least 1")
        return value

    def flag(self, key: str) -> bool:
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "must be true or false")
        return value

    def wrong(self, key: str, value: Any, problem: str) -> UserError:
        return UserError(f"{self.where}: model.{key}={one_line(value, 60)}: {problem}")
