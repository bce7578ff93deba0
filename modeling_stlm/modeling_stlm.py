"""The Super Tiny Language Model (STLM): a small decoder in the house style of transformers.

Pre-norm blocks, x + attention(norm(x)) and x + mlp(norm(x)), then a norm and the output layer. STLMConfig
chooses positions, attention, feed-forward and norms. The parameters have the same names as in Llama. Learned
positions are `embed_positions`, and feed-forwards that layers share are `ffns`.

This file travels to the Hub beside the weights: it may import torch, transformers and its siblings, nothing
else.
"""
# The conventions of transformers (marks on modules, position_ids beside **kwargs) are beyond a type checker.
# mypy: disable-error-code="arg-type, assignment, attr-defined, index, misc, operator"

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_stlm import STLMConfig

# transformers 5.24 renamed the keys and values of earlier tokens from `past_key_values` to `cache`. Models
# take both names; layers, masks and outputs use the one that the installed version reads.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


def given_cache(cache: Cache | None, past_key_values: Cache | None, others: dict) -> Cache | None:
    """Return the cache, which callers pass as `cache` or as `past_key_values`.

    Raises TypeError for a cache under any other name: it would be ignored in `**kwargs`, and generation
    would read only the last token.
    """
    for name, value in others.items():
        is_old_style = isinstance(value, tuple | list) and any(
            part in name for part in ("past", "cache", "kv")
        )
        if isinstance(value, Cache) or is_old_style:
            raise TypeError(f"`{name}` looks like a cache, and is not read: pass it as `{CACHE}`")
    return past_key_values if cache is None else cache


class STLMRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    from_pretrained() builds on the meta device, where buffers hold nothing. PreTrainedModel._init_weights
    fills these again, by the names of the class (`RotaryEmbedding`), the method and the attributes.
    """

    inv_freq: torch.Tensor
    original_inv_freq: torch.Tensor

    def __init__(self, config: STLMConfig):
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings

        if self.rope_type == "default":
            inv_freq, self.attention_scaling = self.compute_default_rope_parameters(config)
        else:
            inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[self.rope_type](config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)  # (head_dim / 2,)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: STLMConfig) -> tuple[torch.Tensor, float]:
        """Frequencies `1 / theta^(2i / head_dim)`, and the factor on cosines and sines: none."""
        head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim  # (head_dim / 2,)
        return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(
        self, hidden_states: torch.Tensor, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # In float32 even under autocast: bfloat16 cannot tell neighbouring angles apart at large positions.
        angles = position_ids[..., None].float() * self.inv_freq.float()  # (batch, seq, head_dim / 2)
        angles = torch.cat((angles, angles), dim=-1)  # (batch, seq, head_dim)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(hidden_states.dtype), sin.to(hidden_states.dtype)


def sinusoidal_positions(position_ids: torch.LongTensor, hidden_size: int) -> torch.Tensor:
    """Sines in even and cosines in odd columns, base 10,000 (Vaswani et al. 2017, arXiv:1706.03762).

    Computed rather than looked up: any length works, and no table is there to be lost on the meta device.
    """
    columns = torch.arange(0, hidden_size, 2, dtype=torch.float, device=position_ids.device)
    frequencies = torch.exp(columns * (-math.log(10_000.0) / hidden_size))  # (hidden / 2,)
    angles = position_ids[..., None].float() * frequencies  # (batch, seq, hidden / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (batch, seq, hidden)


def rotate_half(hidden_states: torch.Tensor) -> torch.Tensor:
    """Turn each pair of dimensions (i, i + head_dim / 2) by 90 degrees."""
    first, second = hidden_states.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn queries and keys, both (batch, heads, seq, head_dim), by the angles of their positions."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (batch, 1, seq, head_dim)
    return query * cos + rotate_half(query) * sin, key * cos + rotate_half(key) * sin


def eager_attention_forward(
    module: "STLMAttention",
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention step by step: the reference for other implementations, and the only one with weights."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)  # (batch, heads, kv_seq, head_dim)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)

    scores = query @ key.transpose(2, 3) * scaling  # (batch, heads, seq, kv_seq)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def make_norm(kind: str, config: STLMConfig) -> nn.Module:
    """The norm of that kind over the hidden size; of kind "none" it does nothing."""
    if kind == "rmsnorm":
        return nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
    if kind == "layernorm":
        return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)
    return nn.Identity()


class STLMAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: STLMConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        num_key_value_heads = config.num_key_value_heads or config.num_attention_heads
        # What the implementations behind the attention interface read from the module.
        self.num_key_value_groups = config.num_attention_heads // num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.attention_dropout = config.attention_dropout

        width, key_value_width = (
            config.num_attention_heads * self.head_dim,
            num_key_value_heads * self.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=config.attention_bias)
        self.o_proj.is_residual_out = True
        # Over each head, before the rotation, as in Qwen3 (Henry et al. 2020, arXiv:2010.04245)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]  # (batch, seq)
        head_shape = (*input_shape, -1, self.head_dim)

        query = self.q_norm(self.q_proj(hidden_states).view(head_shape)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states).view(head_shape)).transpose(1, 2)
        value = (
            self.v_proj(hidden_states).view(head_shape).transpose(1, 2)
        )  # (batch, kv_heads, seq, head_dim)
        if position_embeddings is not None:
            query, key = apply_rotary_pos_emb(query, key, *position_embeddings)

        cache = given_cache(cache, past_key_values, kwargs)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)  # (batch, kv_heads, kv_seq, head_dim)

        self._refuse_flex_gradients(query, key, value)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )  # (batch, seq, heads, head_dim), (batch, heads, seq, kv_seq)

        attn_output = attn_output.reshape(*input_shape, -1).contiguous()
        return self.o_proj(attn_output), attn_weights

    def _refuse_flex_gradients(self, *states: torch.Tensor):
        is_flex_on_cpu = (
            self.config._attn_implementation == "flex_attention" and states[0].device.type == "cpu"
        )
        if is_flex_on_cpu and any(state.requires_grad for state in states):
            raise ValueError(
                "flex_attention has no gradients on a CPU: train with attn_implementation='sdpa', and use it "
                "for inference only, under torch.no_grad()"
            )


class STLMMLP(nn.Module):
    """Gated, which with silu is SwiGLU (Shazeer 2020, arXiv:2002.05202), or plain."""

    def __init__(self, config: STLMConfig):
        super().__init__()
        hidden_size, intermediate_size, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.is_gated = config.mlp_type == "gated"
        if self.is_gated:
            self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.down_proj.is_residual_out = True
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.is_gated:
            return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class STLMDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: STLMConfig, layer_idx: int):
        super().__init__()
        self.self_attn = STLMAttention(config, layer_idx)
        self.mlp = STLMMLP(config) if config.num_ffn_groups is None else None
        self.input_layernorm = make_norm(config.attention_norm_type or config.norm_type, config)
        self.post_attention_layernorm = make_norm(config.mlp_norm_type or config.norm_type, config)
        self.resid_dropout = nn.Dropout(config.resid_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None = None,
        shared_mlp: STLMMLP | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        # The cache is among the kwargs, under the name by which GradientCheckpointingLayer takes it away.
        attn_output, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **kwargs,
        )
        hidden_states = hidden_states + self.resid_dropout(attn_output)
        mlp = self.mlp if shared_mlp is None else shared_mlp
        mlp_output = mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.resid_dropout(mlp_output)  # (batch, seq, hidden)


@auto_docstring
class STLMPreTrainedModel(PreTrainedModel):
    config: STLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["STLMDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": STLMDecoderLayer, "attentions": STLMAttention}

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # Each layer adds to the residual stream twice: starting smaller keeps the variance of the sum
        # independent of depth (GPT-2). The mark is on the Linear: only modules with parameters get here.
        if isinstance(module, nn.Linear) and getattr(module, "is_residual_out", False):
            std = self.config.initializer_range / math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)


@auto_docstring(
    custom_intro="""
    The decoder without the output layer.

    Packed documents. A row may hold several documents whose `position_ids` restart: without an
    `attention_mask`, sdpa, eager and flex_attention keep each to itself. By the convention of transformers
    any mask, one of ones too, makes a row one document. flash_attention keeps documents apart in a batch of
    one row only, and larger batches of them are refused.
    """
)
class STLMModel(STLMPreTrainedModel):
    def __init__(self, config: STLMConfig):
        super().__init__(config)
        config.validate()  # again: from_pretrained(..., hidden_size=256) changes what has been checked
        # No padding_idx: where padding borrows the end-of-text token, its embedding must go on learning.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        elif config.position_embedding_type == "rotary":
            self.rotary_emb = STLMRotaryEmbedding(config)
        self.embd_dropout = nn.Dropout(config.embd_dropout)
        self.layers = nn.ModuleList(STLMDecoderLayer(config, idx) for idx in range(config.num_hidden_layers))
        # Shared feed-forwards are the model's, which hands them to its layers: nothing is tied in the files.
        self.ffns = nn.ModuleList(STLMMLP(config) for _ in range(config.num_ffn_groups or 0))
        self.norm = make_norm(config.final_norm_type or config.norm_type, config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        past_key_values (`Cache`, *optional*):
            The key/value cache, by its name until transformers 5.23.
        cache (`Cache`, *optional*):
            The key/value cache, by its name since transformers 5.24.
        """
        cache = given_cache(cache, past_key_values, kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)  # (batch, seq, hidden)
        # Before a cache is made: with one, or with a mask, transformers no longer keeps the documents
        # apart whose position_ids restart. Those made below never do; plain causal attention then
        # needs no mask.
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: cache},
        )
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if position_ids is None:
            seen_tokens = cache.get_seq_length() if cache is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen_tokens
            position_ids = position_ids.unsqueeze(0)  # (1, seq)
            self._refuse_beyond_table(seen_tokens + inputs_embeds.shape[1] - 1)
        else:
            self._refuse_beyond_table(position_ids)
            if attention_mask is None:
                self._refuse_packed_flash(position_ids, inputs_embeds.shape[0])

        hidden_states = self.embd_dropout(self._add_positions(inputs_embeds, position_ids))
        position_embeddings = None
        if self.config.position_embedding_type == "rotary":
            position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for idx, decoder_layer in enumerate(self.layers):
            # Consecutive layers share: layer i of L uses feed-forward i * groups // L.
            group = idx * len(self.ffns) // len(self.layers)
            hidden_states = decoder_layer(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=causal_mask,
                position_ids=position_ids,
                shared_mlp=self.ffns[group] if self.ffns else None,
                **{CACHE: cache},
                **kwargs,
            )
        hidden_states = self.norm(hidden_states)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, **{CACHE: cache})

    def _add_positions(self, inputs_embeds: torch.Tensor, position_ids: torch.LongTensor) -> torch.Tensor:
        """Add learned or sinusoidal positions; the others have no part in the embeddings."""
        if self.config.position_embedding_type == "sinusoidal":
            positions = sinusoidal_positions(position_ids, self.config.hidden_size)
            return inputs_embeds + positions.to(inputs_embeds.dtype)
        if self.config.position_embedding_type != "learned":
            return inputs_embeds
        return inputs_embeds + self.embed_positions(position_ids)

    def _refuse_beyond_table(self, positions: torch.Tensor | int):
        """Raise a ValueError that says what an index error of the learned positions would not."""
        # A compiled graph cannot look at values.
        if self.config.position_embedding_type != "learned" or torch.compiler.is_compiling():
            return
        last = positions.max().item() if isinstance(positions, torch.Tensor) else positions
        if last >= self.config.max_position_embeddings:
            raise ValueError(
                f"position {last} is beyond the {self.config.max_position_embeddings} learned positions of "
                "this model (max_position_embeddings): shorten the input"
            )

    def _refuse_packed_flash(self, position_ids: torch.LongTensor, batch_size: int):
        """Raise a ValueError where transformers' flash attention would let documents see each other."""
        is_flash = "flash" in (self.config._attn_implementation or "")
        if not is_flash or batch_size == 1 or torch.compiler.is_compiling():
            return
        if (position_ids.diff(dim=-1) != 1).any():
            raise ValueError(
                "flash_attention keeps packed documents apart in a batch of one row only: use "
                "attn_implementation='sdpa', or one row at a time"
            )


@auto_docstring
class STLMForCausalLM(STLMPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: STLMConfig):
        super().__init__(config)
        self.model = STLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        past_key_values (`Cache`, *optional*):
            The key/value cache, by its name until transformers 5.23.
        cache (`Cache`, *optional*):
            The key/value cache, by its name since transformers 5.24.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            cache=cache,
            **kwargs,
        )
        # An int keeps the last positions (0 keeps all), a tensor the positions that it lists.
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])  # (batch, kept, vocab)

        loss = None
        if labels is not None:
            # Shifts the labels, computes in float32, divides by num_items_in_batch if the Trainer sends it.
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)

        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )


__all__ = ["STLMForCausalLM", "STLMModel", "STLMPreTrainedModel"]
