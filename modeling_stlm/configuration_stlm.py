"""The shape of a Super Tiny Language Model (STLM).

This file travels to the Hub beside the weights: it may import transformers and its siblings, nothing else.
"""

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters

POSITIONS = ("rotary", "learned", "sinusoidal", "none")
NORMS = ("rmsnorm", "layernorm", "none")
MLPS = ("gated", "plain")
# Names of transformers.activations.ACT2FN: "gelu" is the exact one, the two behind it approximate it by tanh.
ACTIVATIONS = (
    "silu",
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "relu",
    "relu2",
    "leaky_relu",
    "tanh",
    "sigmoid",
)
# What Super Tiny Language Models has besides, and why it is not here.
REFUSED_ACTIVATIONS = {
    "learned": "an activation with weights of its own is not offered",
    "none": "without an activation the feed-forward is one linear map",
}


# No `from __future__ import annotations` here: it would turn off the type checks of `@strict`.
@strict
class STLMConfig(PreTrainedConfig):
    """Configuration of an STLM: a decoder whose positions, attention, feed-forward and norms can be chosen.

    The defaults are the default model of Tidy-STLMs, with rotary positions, RMSNorm, SwiGLU and grouped-query
    attention: 49.86M parameters with GPT-2's vocabulary.

    Args:
        vocab_size: Rows of the embedding, at least the tokenizer's `len()`.
        hidden_size: Width of the residual stream.
        num_hidden_layers: Number of decoder layers.
        max_position_embeddings: Longest sequence in tokens. Learned positions are refused beyond it.
        tie_word_embeddings: Whether the output layer is the transposed embedding.
        lm_head_bias: Whether the output layer has a bias.

        position_embedding_type: "rotary" (Su et al. 2021), "learned" (a table, added to the token
            embeddings), "sinusoidal" (sines and cosines, added likewise; Vaswani et al. 2017) or "none".
        rope_parameters: For rotary positions, as in transformers; `None`: `{"rope_type": "default",
            "rope_theta": 10000}`.

        num_attention_heads: Number of query heads.
        num_key_value_heads: Number of key/value heads, each shared by a group of query heads. `None`: one for
            every query head.
        head_dim: Width of one head. `None`: `hidden_size // num_attention_heads`.
        attention_bias: Whether the four projections of attention have biases.
        qk_norm: Whether queries and keys pass through an RMSNorm over `head_dim` before they are turned.

        mlp_type: "gated", `down(act(gate(x)) * up(x))`, SwiGLU with "silu"; or "plain", `down(act(up(x)))`.
        intermediate_size: Width inside the feed-forward.
        hidden_act: Its activation: silu, gelu (exact), gelu_new, gelu_pytorch_tanh, relu, relu2 (squared),
            leaky_relu, tanh or sigmoid.
        mlp_bias: Whether the projections of the feed-forward have biases.
        num_ffn_groups: Number of feed-forwards, each shared by consecutive layers: layer i of L uses number
            `i * num_ffn_groups // L`. 1: one for all layers. `None`: every layer has its own.

        norm_type: "rmsnorm", "layernorm" or "none".
        attention_norm_type, mlp_norm_type, final_norm_type: The norm in front of attention, of the
            feed-forward and of the output layer. `None`: `norm_type`.
        norm_bias: Whether the LayerNorms have biases.
        rms_norm_eps, layer_norm_eps: Epsilon of the norms of each kind.

        embd_dropout: Dropout on the embeddings.
        attention_dropout: Dropout on the attention probabilities.
        resid_dropout: Dropout on what a block adds to the residual stream.
        initializer_range: Standard deviation of the initial weights. The projections into the residual stream
            get `initializer_range / sqrt(2 * num_hidden_layers)` (GPT-2, section 2.3).
        use_cache: Whether the model returns its keys and values for the next call.
        pad_token_id, bos_token_id, eos_token_id: Ids of the tokenizer, `None` until there is one.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type or an impossible shape. Its `__cause__`
            is the `TypeError` or `ValueError` that names the field and the remedy.
    """

    model_type = "stlm"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    vocab_size: int = 50257
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    head_dim: int | None = None
    max_position_embeddings: int = 512
    position_embedding_type: str = "rotary"
    rope_parameters: RopeParameters | dict | None = None
    attention_bias: bool = False
    qk_norm: bool = False
    mlp_type: str = "gated"
    hidden_act: str = "silu"
    mlp_bias: bool = False
    num_ffn_groups: int | None = None
    norm_type: str = "rmsnorm"
    attention_norm_type: str | None = None
    mlp_norm_type: str | None = None
    final_norm_type: str | None = None
    norm_bias: bool = False
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-5
    embd_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    resid_dropout: float | int = 0.0
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = True
    lm_head_bias: bool = False
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
        unasked = not (self.rope_parameters or {"rope_theta", "rope_scaling"} & kwargs.keys())
        super().__post_init__(**kwargs)
        if unasked and self.position_embedding_type != "rotary":
            self.rope_parameters = None  # transformers has filled in its defaults

    @property
    def base_model_tp_plan(self) -> dict[str, str]:  # type: ignore[override]
        """How tensor parallelism splits this model's layers, as Llama's; without names that it has not."""
        attention, mlp = "layers.*.self_attn", "layers.*.mlp" if self.num_ffn_groups is None else "ffns.*"
        plan = {f"{attention}.{name}_proj": "colwise" for name in "qkv"}
        plan[f"{attention}.o_proj"] = "rowwise"
        if self.qk_norm:
            plan |= {f"{attention}.{name}_norm": "replicated_with_grad_allreduce" for name in "qk"}
        if self.mlp_type == "gated":
            plan[f"{mlp}.gate_proj"] = "colwise"
        return plan | {f"{mlp}.up_proj": "colwise", f"{mlp}.down_proj": "rowwise"}

    def validate_architecture(self):
        # One after the other: @strict would call them by alphabet, heads could then divide by 0.
        self._check_numbers()
        self._check_choices()
        self._check_heads()
        self._check_positions()

    def _check_numbers(self):
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            "num_ffn_groups",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}: it must be at least 1")
        if self.num_ffn_groups is not None and self.num_ffn_groups > self.num_hidden_layers:
            raise ValueError(
                f"`num_ffn_groups` ({self.num_ffn_groups}) is more than `num_hidden_layers` "
                f"({self.num_hidden_layers}), and some feed-forwards would never be used: lower it, or set "
                "it to null for one a layer"
            )
        for name in ("rms_norm_eps", "layer_norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be above 0")
        if not self.initializer_range >= 0:
            raise ValueError(f"`initializer_range` is {self.initializer_range}: it must be at least 0")

    def _check_choices(self):
        choices = {
            "position_embedding_type": POSITIONS,
            "mlp_type": MLPS,
            "norm_type": NORMS,
            "attention_norm_type": (None, *NORMS),
            "mlp_norm_type": (None, *NORMS),
            "final_norm_type": (None, *NORMS),
        }
        for name, names in choices.items():
            value = getattr(self, name)
            if value not in names:
                raise ValueError(f"`{name}` is {value!r}: choose one of {', '.join(filter(None, names))}")
        if self.hidden_act not in ACTIVATIONS:
            reason = REFUSED_ACTIVATIONS.get(self.hidden_act)
            raise ValueError(
                f"`hidden_act` is {self.hidden_act!r}: {reason + '; ' if reason else ''}"
                f"choose one of {', '.join(ACTIVATIONS)}"
            )
        used = {
            self.norm_type if place is None else place
            for place in (self.attention_norm_type, self.mlp_norm_type, self.final_norm_type)
        }
        if self.norm_bias and "layernorm" not in used:
            raise ValueError(
                "`norm_bias` is for LayerNorm, and no norm is one: set `norm_type` to layernorm, or "
                "`norm_bias` to false"
            )

    def _check_heads(self):
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

    def _check_positions(self):
        kind = self.position_embedding_type
        if kind == "sinusoidal" and self.hidden_size % 2 != 0:
            raise ValueError(
                f"sinusoidal positions fill columns in pairs, and `hidden_size` is odd ({self.hidden_size}): "
                "make it even, or change `position_embedding_type`"
            )
        if kind != "rotary":
            if self.rope_parameters is not None:
                raise ValueError(
                    f"`rope_parameters` are for rotary positions, and `position_embedding_type` is {kind!r}: "
                    "set the former to null, or the latter to rotary"
                )
            return
        head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        if head_dim % 2 != 0:
            raise ValueError(
                f"rotary positions turn dimensions in pairs, and the width of a head is odd ({head_dim}): "
                "set an even `head_dim`, or change `hidden_size` or `num_attention_heads`"
            )
        rope = self.rope_parameters or {}
        rope_type, rope_types = rope.get("rope_type", "default"), ("default", *ROPE_INIT_FUNCTIONS)
        if rope_type not in rope_types:
            raise ValueError(
                f"`rope_parameters.rope_type` is {rope_type!r}: choose one of {', '.join(rope_types)}"
            )
        for name in ("rope_theta", "factor"):
            value = rope.get(name, 1)
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"`rope_parameters.{name}` is {value!r}: it must be a number above 0")
        # Half of the scaled variants in transformers multiply config.head_dim as it is, None or not.
        if rope_type != "default" and self.head_dim is None:
            raise ValueError(
                f"`rope_parameters.rope_type` {rope_type!r} needs `head_dim`: set it to {head_dim}"
            )

    def validate_rope(self):
        try:
            super().validate_rope()
        except KeyError as error:  # for a key that is missing; @strict expects a ValueError
            raise ValueError(str(error.args[0])) from None

    def validate_dropout(self):
        for name in ("embd_dropout", "attention_dropout", "resid_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be in [0, 1)")


__all__ = ["STLMConfig"]
