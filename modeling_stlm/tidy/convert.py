"""Converts a checkpoint of Tidy-STLMs to a model folder that AutoModelForCausalLM loads.

warnings = convert_checkpoint("checkpoints/20251022_simple_en_wiki_1000_iters.pt", "models/wiki")

The parameters become those of an STLM. The fused projection of attention is split into queries, keys and
values. The rows of queries and keys change their order: the rotary angles turn pairs of neighbouring
dimensions of a head in Tidy-STLMs, and pairs from its two halves in transformers.
"""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.configs.files import whole_folder, write_whole

from .. import LOWEST_TRANSFORMERS, STLMConfig, STLMForCausalLM
from .architecture import FIELDS, FIXED, checked_config, dropout_fields, leaves, stlm_fields
from .checkpoint import TidyCheckpoint, read_tidy_checkpoint

BLOCKS = "core_model.transformer.h"
# Tidy-STLMs' names of the parts of a feed-forward, gated and plain.
FFN = {
    "gated": {"linear_1": "gate_proj", "linear_2": "down_proj", "linear_3": "up_proj"},
    "plain": {"linear_1": "up_proj", "linear_2": "down_proj"},
}


def convert_checkpoint(
    checkpoint: str | Path, out: str | Path, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> list[str]:
    """Convert a `.pt` file of Tidy-STLMs into the model folder `out`, which must not exist.

    Args:
        checkpoint: The file. It is read without running anything that it holds.
        out: The folder to write: weights, config, code, tokenizer and a card; all of it or nothing.
        tokenizer: The tokenizer that the model was trained with; it is saved in the folder.

    Returns warnings, a line each: no tokenizer, or one of another size than the vocabulary; weights that are
    not finite.

    Raises UserError for a file that is no such checkpoint, or holds another kind of model, naming what it is.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already; take another folder")
    source = read_tidy_checkpoint(checkpoint)
    config = convert_config(source.config, str(checkpoint))
    warnings = _settle_tokenizer(config, tokenizer, source.config)
    kept = tokenizer if tokenizer is not None and len(tokenizer) <= config.vocab_size else None
    if kept is not None:
        config.pad_token_id = kept.pad_token_id
        config.bos_token_id, config.eos_token_id = kept.bos_token_id, kept.eos_token_id
    weights = convert_weights(source.weights, config, str(checkpoint))
    broken = (name for name, tensor in source.weights.items() if not tensor.float().isfinite().all())
    if (first := next(broken, None)) is not None:
        warnings.append(f"{first} holds numbers that are not finite; did training diverge?")
    loaded: Any = STLMForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, output_loading_info=True
    )
    model, info = loaded
    # transformers would fill missing weights with random numbers
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    try:
        with whole_folder(out) as folder:
            model.save_pretrained(folder)
            if kept is not None:
                kept.save_pretrained(folder)
            write_whole(folder / "README.md", _card(checkpoint, out, source, model, kept is not None))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    return warnings


def convert_config(config: dict[str, Any], where: str) -> STLMConfig:
    """The STLMConfig of a Tidy-STLMs config, given as plain values.

    Raises UserError for a model that an STLM cannot be, and for keys of the model that are unknown here and
    may change what it computes.
    """
    model, trainer = config.get("model"), config.get("trainer")
    fields = stlm_fields(model or {}, where)
    for key, _ in leaves(model or {}):
        if key not in FIXED and key not in FIELDS and not key.startswith("embedder."):
            raise UserError(
                f"{where}: model.{one_line(key, 60)}: is unknown, so the model cannot be converted"
            )
    schedule = trainer.get("dropout_scheduler") if isinstance(trainer, dict) else None
    return checked_config(fields | dropout_fields(schedule), where)


def convert_weights(
    weights: dict[str, torch.Tensor], config: STLMConfig, where: str
) -> dict[str, torch.Tensor]:
    """The state dict of an STLMForCausalLM with that config, in float32.

    Raises UserError for parameters that are missing, left over, or of another shape than the config says.
    """
    source = _Weights(weights, where)
    result = _embeddings_and_head(source, config)
    for layer in range(config.num_hidden_layers):
        theirs, ours = f"{BLOCKS}.{layer}", f"model.layers.{layer}"
        result |= _attention(source, f"{theirs}.attn", f"{ours}.self_attn", config)
        mlp = f"{ours}.mlp" if config.num_ffn_groups is None else "model.ffns.0"
        _feed_forward(source, f"{theirs}.ffn", mlp, config, result)
        places = (("attn_norm", "input_layernorm", config.attention_norm_type),
                  ("ffn_norm", "post_attention_layernorm", config.mlp_norm_type))  # fmt: skip
        for name, norm, kind in places:
            result |= _norm(source, f"{theirs}.{name}", f"{ours}.{norm}", kind, config)
    source.finish()
    return {name: tensor.float() for name, tensor in result.items()}


class _Weights:
    """The tensors of a checkpoint. Each must be taken once."""

    def __init__(self, weights: dict[str, torch.Tensor], where: str):
        self.left, self.where = dict(weights), where

    def take(self, name: str, *shape: int) -> torch.Tensor:
        if name not in self.left:
            raise UserError(f"{self.where}: the weights lack {name}")
        tensor = self.left.pop(name)
        if tensor.shape != shape:
            raise UserError(f"{self.where}: {name} is {list(tensor.shape)}, its config wants {list(shape)}")
        return tensor

    def same(self, name: str, tensor: torch.Tensor, reason: str) -> None:
        """Take the copy `name` of `tensor`, if the checkpoint has it. Raises UserError if it differs."""
        copy = self.left.pop(name, tensor)
        # in float32: torch compares float8 with nothing else
        if copy.shape != tensor.shape or not torch.equal(copy.float(), tensor.float()):
            raise UserError(f"{self.where}: {name} differs, though {reason}")

    def finish(self) -> None:
        if self.left:
            names = sorted(self.left)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"{self.where}: no STLM has the weights {', '.join(names[:3])}{more}")


def _embeddings_and_head(source: _Weights, config: STLMConfig) -> dict[str, torch.Tensor]:
    vocabulary, hidden = config.vocab_size, config.hidden_size
    names = ("embedding_model.token_embedder.weight", "model_head.linear.weight")
    if config.tie_word_embeddings:
        kept, copy = names if names[0] in source.left else names[::-1]
        embedding = head = source.take(kept, vocabulary, hidden)
        source.same(copy, embedding, "the config ties embedding and head")
    else:
        embedding, head = (source.take(name, vocabulary, hidden) for name in names)
    result = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    if config.lm_head_bias:
        result["lm_head.bias"] = source.take("model_head.linear.bias", vocabulary)
    positions = "embedding_model.positional_encodings.pe"
    if config.position_embedding_type == "learned":
        result["model.embed_positions.weight"] = source.take(
            f"{positions}.weight", config.max_position_embeddings, hidden
        )
    if config.position_embedding_type == "sinusoidal":
        table = source.take(positions, 1, config.max_position_embeddings, hidden)
        # half precision keeps two to three digits
        close = 1e-3 if table.dtype == torch.float32 else 1e-2
        if not torch.allclose(table[0].float(), _sinusoids(*table.shape[1:]), atol=close):
            raise UserError(f"{source.where}: {positions} is not the table of sines and cosines")
    return result | _norm(source, "model_head.layer_norm", "model.norm", config.final_norm_type, config)


def _sinusoids(length: int, width: int) -> torch.Tensor:
    """Sines in even and cosines in odd columns, base 10,000 (Vaswani et al. 2017, arXiv:1706.03762)."""
    angles = torch.arange(length)[:, None] / 10_000 ** (
        torch.arange(0, width, 2) / width
    )  # (length, width / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (length, width)


def _attention(source: _Weights, theirs: str, ours: str, config: STLMConfig) -> dict[str, torch.Tensor]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    kv_width = hidden // heads * kv_heads
    result: dict[str, torch.Tensor] = {}
    for kind in ("weight", "bias") if config.attention_bias else ("weight",):
        columns = (hidden,) if kind == "weight" else ()
        fused = source.take(f"{theirs}.c_attn.{kind}", hidden + 2 * kv_width, *columns)
        query, key, value = fused.split([hidden, kv_width, kv_width])
        if config.position_embedding_type == "rotary":
            query, key = _halves(query, heads), _halves(key, kv_heads)
        result |= {
            f"{ours}.q_proj.{kind}": query,
            f"{ours}.k_proj.{kind}": key,
            f"{ours}.v_proj.{kind}": value,
        }
        result[f"{ours}.o_proj.{kind}"] = source.take(f"{theirs}.c_proj.{kind}", hidden, *columns)
    return result


def _halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the even rows of each head before its odd ones: pairs (2i, 2i + 1) become (i, i + head_dim / 2)."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _feed_forward(
    source: _Weights, theirs: str, ours: str, config: STLMConfig, result: dict[str, torch.Tensor]
) -> None:
    """Add a layer's feed-forward to `result`. If all layers share it, later ones are only compared."""
    for linear, name in FFN[config.mlp_type].items():
        wide, narrow = config.intermediate_size, config.hidden_size
        shape = (narrow, wide) if name == "down_proj" else (wide, narrow)
        for kind in ("weight", "bias") if config.mlp_bias else ("weight",):
            old, new = f"{theirs}.{linear}.{kind}", f"{ours}.{name}.{kind}"
            if new in result:
                source.same(old, result[new], "the config shares the feed-forward of all layers")
            else:
                result[new] = source.take(old, *(shape if kind == "weight" else shape[:1]))


def _norm(source: _Weights, theirs: str, ours: str, kind: str | None, config: STLMConfig) -> dict[str, Any]:
    kind = kind or config.norm_type
    if kind == "none":
        return {}
    result = {f"{ours}.weight": source.take(f"{theirs}.weight", config.hidden_size)}
    if kind == "layernorm" and config.norm_bias:
        # In Tidy-STLMs each norm has a bias or none. A bias of zeros has no effect.
        missing = f"{theirs}.bias" not in source.left
        zeros = torch.zeros(config.hidden_size)
        result[f"{ours}.bias"] = zeros if missing else source.take(f"{theirs}.bias", config.hidden_size)
    return result


def _settle_tokenizer(
    config: STLMConfig, tokenizer: PreTrainedTokenizerBase | None, source: dict[str, Any]
) -> list[str]:
    embedder = source["model"].get("embedder", {})
    named = f"{one_line(embedder.get('tokenizer_type'), 60)}, {config.vocab_size:,} tokens"
    if tokenizer is None:
        return [
            f"no tokenizer: the model was trained with {named}; `stlm convert tidy --tokenizer PATH` adds it"
        ]
    size = len(tokenizer)
    if size == config.vocab_size:
        return []
    left_out = "; it is left out, since the model has no such ids" if size > config.vocab_size else ""
    return [f"the tokenizer has {size:,} tokens, and the model was trained with {named}{left_out}"]


def _card(checkpoint: Path, out: Path, source: TidyCheckpoint, model: Any, has_tokenizer: bool) -> str:
    at = f", saved with iteration {source.iteration:,}" if source.iteration is not None else ""
    trainer = source.config.get("trainer")
    dataset = str(trainer.get("dataset")) if isinstance(trainer, dict) else ""
    data = f" It was trained on `{dataset}`." if re.fullmatch(r"[\w./-]+", dataset) else ""
    classes = ("model", "AutoModelForCausalLM"), ("tokenizer", "AutoTokenizer")
    used = classes if has_tokenizer else classes[:1]
    loading = "\n".join(
        # AutoTokenizer needs it too, or it asks whether the code of the config may run
        f'{name} = {auto}.from_pretrained("path/to/{out.name}", trust_remote_code=True)'
        for name, auto in used
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- stlm
- tidy-stlms
---

# {out.name}

A Super Tiny Language Model of {model.num_parameters():,} parameters, converted by Tidy STLMs from the
Tidy-STLMs checkpoint `{checkpoint.name}`{at}.{data}

```python
from transformers import {", ".join(auto for _, auto in used)}

{loading}
```

Needs transformers {LOWEST_TRANSFORMERS} or newer.
"""
