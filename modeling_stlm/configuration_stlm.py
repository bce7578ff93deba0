"""The shape of a Super Tiny Language Model (STLM).

This file travels to the Hub beside the weights: it may import transformers and its siblings, nothing else.
"""

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters


# No `from __future__ import annotations` here: it would turn off the type checks of `@strict`.
@strict
class STLMConfig(PreTrainedConfig):
    """Configuration of an STLM: a decoder with rotary positions, RMSNorm, SwiGLU and grouped-query attention.

    The defaults are the default model of Tidy-STLMs: 49.86M parameters with GPT-2's vocabulary.

    Args:
        vocab_size: Rows of the embedding, at least the tokenizer's `len()`.
        hidden_size: Width of the residual stream.
        intermediate_size: Width inside the SwiGLU feed-forward.
        num_hidden_layers: Number of decoder layers.
        num_attention_heads: Number of query heads.
        num_key_value_heads: Number of key/value heads, each shared by a group of query heads. `None`: one for
            every query head.
        head_dim: Width of one head. `None`: `hidden_size // num_attention_heads`.
        max_position_embeddings: Longest sequence in tokens.
        hidden_act: Activation of the feed-forward's gate, a name from `transformers.activations.ACT2FN`.
        rms_norm_eps: Epsilon of the norms.
        rope_parameters: As in transformers; `None`: `{"rope_type": "default", "rope_theta": 10000}`.
        embd_dropout: Dropout on the token embeddings.
        attention_dropout: Dropout on the attention probabilities.
        resid_dropout: Dropout on what a block adds to the residual stream.
        initializer_range: Standard deviation of the initial weights. The projections into the residual stream
            get `initializer_range / sqrt(2 * num_hidden_layers)` (GPT-2, section 2.3).
        use_cache: Whether the model returns its keys and values for the next call.
        tie_word_embeddings: Whether the output layer is the transposed embedding.
        pad_token_id, bos_token_id, eos_token_id: Ids of the tokenizer, `None` until there is one.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type or an impossible shape. Its `__cause__`
            is the `TypeError` or `ValueError` that names the field and the remedy.
    """

    model_type = "stlm"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 50257
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    head_dim: int | None = None
    max_position_embeddings: int = 512
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_parameters: RopeParameters | dict | None = None
    embd_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    resid_dropout: float | int = 0.0
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        # save_pretrained() enters only the class that is being saved into auto_map. With all three, the
        # folder opens with AutoModel as well as with AutoModelForCausalLM, whichever of the two was saved.
        kwargs["auto_map"] = {
            "AutoConfig": "configuration_stlm.STLMConfig",
            "AutoModel": "modeling_stlm.STLMModel",
            "AutoModelForCausalLM": "modeling_stlm.STLMForCausalLM",
            **(kwargs.get("auto_map") or {}),
        }
        # Nothing else is derived: the saved config is the one that was written, and an override that arrives
        # later, as in from_pretrained(..., hidden_size=256), meets no head_dim derived from the old value.
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}: it must be at least 1")

        heads, key_value_heads = self.num_attention_heads, self.num_key_value_heads
        if self.head_dim is None and self.hidden_size % heads != 0:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) is not a multiple of `num_attention_heads` ({heads}): "
                "change one of the two, or set `head_dim`"
            )
        if key_value_heads is not None and heads % key_value_heads != 0:
            raise ValueError(
                f"`num_attention_heads` ({heads}) is not a multiple of `num_key_value_heads` "
                f"({key_value_heads}): set the latter to a divisor of {heads}, or to null (= {heads})"
            )
        head_dim = self.head_dim or self.hidden_size // heads
        if head_dim % 2 != 0:
            raise ValueError(
                f"rotary positions turn dimensions in pairs, and the width of a head is odd ({head_dim}): "
                "set an even `head_dim`, or change `hidden_size` or `num_attention_heads`"
            )
        # Half of the scaled variants in transformers multiply config.head_dim as it is, None or not.
        rope_type = self.rope_parameters["rope_type"]
        if rope_type != "default" and self.head_dim is None:
            raise ValueError(
                f"`rope_parameters.rope_type` {rope_type!r} needs `head_dim`: set it to {head_dim}"
            )
        if self.hidden_act not in ACT2FN:
            raise ValueError(
                f"`hidden_act` is {self.hidden_act!r}: choose one of {', '.join(sorted(ACT2FN))}"
            )

    def validate_dropout(self):
        for name in ("embd_dropout", "attention_dropout", "resid_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be in [0, 1)")


__all__ = ["STLMConfig"]
