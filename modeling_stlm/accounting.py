"""Counts the parameters, the memory and the computation of a causal language model without running it.

    with torch.device("meta"):
        model = STLMForCausalLM(STLMConfig())
    account(model)["parameters"]  # {"embeddings": 25731584, "attention": 5242880, ...}

It works on the meta device, so no weights are needed. The names of modules show the parts of a model, as in
Llama, GPT-2, GPT-NeoX, OPT, BLOOM and similar models. A number that cannot be computed from outside is
`None`, never a guess.
"""

import re
from collections import Counter
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

PARTS = ("embeddings", "positions", "attention", "feed-forward", "norms", "head")

# Searched in the lower-case path of the module that holds a parameter, in this order.
NAMES = (
    ("positions", r"wpe|(embed|emb)_?(pos|offsets)|pos(ition)?s?_?(embed|emb|enc)"),
    ("attention", r"attn|attention"),
    ("feed-forward", r"mlp|ffn|feed_?forward|expert|\bfc\d?\b"),
)

# Bytes of an English word as `stlm_byte` pools it, with the space in front: 5.1 in WikiText-2.
BYTES_PER_WORD = 5


def account(model: PreTrainedModel, context_window: int | None = None) -> dict[str, Any]:
    """All numbers for `model`, trained on rows of `context_window` tokens.

    Returns: `parameters` (by part), `total`, `non_embedding` (without embeddings, positions and head; Kaplan
    et al. 2020, arXiv:2001.08361), `bytes` (of the weights, by dtype), `context_window` (by default the
    model's max_position_embeddings), `training_flops_per_token`, and `cache_bytes_per_token` (by dtype). For
    a byte-pooled model, which has bytes as tokens, also `assumed_bytes_per_word`.
    """
    config = model.config
    parts = parameters_by_part(model)
    total = sum(parts.values())
    window = context_window or _count(config, "max_position_embeddings")
    numbers = cache_numbers_per_token(config)
    assumed = {"assumed_bytes_per_word": BYTES_PER_WORD} if _is_byte_pooled(config) else {}
    return {
        "parameters": parts,
        "total": total,
        "non_embedding": total - sum(parts.get(part, 0) for part in ("embeddings", "positions", "head")),
        "bytes": _by_dtype(total),
        "context_window": window,
        "training_flops_per_token": training_flops_per_token(model, window) if window else None,
        "cache_bytes_per_token": _by_dtype(numbers) if numbers is not None else None,
        **assumed,
    }


def parameters_by_part(model: PreTrainedModel) -> dict[str, int]:
    """Number of parameters of each part, in the order of `PARTS`. Tied and shared parameters count once.

    A tied output layer counts as embedding. A module without a known name is a part of its own, such as
    `mixer` in Mamba.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():  # each tensor once, by its first name
        path = name.rpartition(".")[0]
        module = model.get_submodule(path)
        if module is embeddings:
            part = "embeddings"
        elif module is head:
            part = "head"
        else:
            part = _part(path, module)
        counts[part] += parameter.numel()
    order = [*PARTS, *sorted(counts.keys() - set(PARTS))]
    return {part: counts[part] for part in order if counts[part]}


def training_flops_per_token(model: PreTrainedModel, context_window: int) -> int | None:
    """Floating-point operations to train on one token: `6 N + 12 L H Q T`.

    As in appendix B of PaLM (Chowdhery et al. 2022, arXiv:2204.02311). Each of the N weights that a token is
    multiplied with costs a multiplication and an addition forward, and twice as much backward. The attention
    has L layers with H heads of width Q, over all T tokens of the row, including those that the mask hides.
    A weight counts as often as a token uses it: a shared feed-forward once in each layer, a tied embedding
    once, as output layer. Embedding lookups, norms and activations are left out.

    For a byte-pooled model, the operations for a byte. A word of `BYTES_PER_WORD` bytes passes the layers
    over words once. In the layers over bytes, a byte attends to two chunks of `max_word_bytes`.

    `None` if the number of uses of a weight is not known: mixtures of experts, convolutions, recurrences,
    sliding windows.
    """
    config = model.config
    weights = _weights_per_token(model)
    heads = _attention_shape(config)
    if weights is None or heads is None:
        return None
    layers, query_heads, _, head_dim = heads
    attention: float = 12 * layers * query_heads * head_dim * context_window
    if _is_byte_pooled(config):
        byte_layers = config.num_byte_encoder_layers + config.num_byte_decoder_layers
        over_bytes = 12 * byte_layers * config.byte_hidden_size * 2 * config.max_word_bytes
        attention = over_bytes + attention / BYTES_PER_WORD**2  # fewer queries, and fewer keys for each
    return round(6 * weights + attention)


def cache_numbers_per_token(config: PreTrainedConfig) -> int | None:
    """Numbers in the cache of generation for a token: a key and a value for each key/value head and layer."""
    if _is_byte_pooled(config):
        return 0  # such a model has no cache: it reads the whole text at every step
    heads = _attention_shape(config)
    if heads is None:
        return None
    layers, _, key_value_heads, head_dim = heads
    return 2 * layers * key_value_heads * head_dim


def _part(path: str, module: nn.Module) -> str:
    path = path.lower()
    leaf = path.rpartition(".")[2]
    if "norm" in type(module).__name__.lower() or re.search(r"norm|\bln_", leaf):
        return "norms"
    for part, pattern in NAMES:
        if re.search(pattern, path):
            return part
    # the name after the layer's number, or else the last name: backbone.layers.0.mixer.in_proj is "mixer"
    after_number = re.search(r"\.\d+\.([^.]+)", path)
    return after_number.group(1) if after_number else leaf or "other"


def _weights_per_token(model: PreTrainedModel) -> float | None:
    """The weights of all matrix products, each counted as often as a token uses it."""
    known, total = set(), 0.0
    # a shared module is listed, and counted, under each of its names
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear | Conv1D):
            total += module.weight.numel() * _uses(name, model.config)
            known.add(id(module.weight))
        elif isinstance(module, nn.Embedding):
            known.add(id(module.weight))
    if any(parameter.dim() > 1 and id(parameter) not in known for parameter in model.parameters()):
        return None
    return total


def _uses(name: str, config: PreTrainedConfig) -> float:
    """How often a token uses the module with this name. An STLM uses a shared feed-forward once a layer."""
    uses = 1.0
    if _is_byte_pooled(config) and re.search(r"\b(words\.|pool_proj|context_proj)", name):
        uses /= BYTES_PER_WORD
    shared_ffn = re.search(r"\bffns\.(\d+)\.", name)
    if config.model_type in ("stlm", "stlm_byte") and shared_ffn is not None:
        layers, groups = config.num_hidden_layers, config.num_ffn_groups
        uses *= sum(layer * groups // layers == int(shared_ffn.group(1)) for layer in range(layers))
    return uses


def _is_byte_pooled(config: PreTrainedConfig) -> bool:
    return config.model_type == "stlm_byte"


def _attention_shape(config: PreTrainedConfig) -> tuple[int, int, int, int] | None:
    """Layers, query heads, key/value heads, head width; None unless all layers have plain attention."""
    layers, heads = (_count(config, f"num_{name}") for name in ("hidden_layers", "attention_heads"))
    other_kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    other_keys = ("sliding_window", "kv_lora_rank", "multi_query")
    has_other_attention = other_kinds or any(getattr(config, key, None) for key in other_keys)
    if layers is None or heads is None or has_other_attention or config.is_encoder_decoder:
        return None
    width, head_dim = _count(config, "hidden_size"), _count(config, "head_dim")
    key_value_heads = _count(config, "num_key_value_heads") or heads
    if head_dim is None and width is not None:
        head_dim = width // heads
    return None if head_dim is None else (layers, heads, key_value_heads, head_dim)


def _count(config: PreTrainedConfig, name: str) -> int | None:
    """A field that holds one number above 0, else None. Some models have a list, a number for each layer."""
    value = getattr(config, name, None)
    return value if type(value) is int and value > 0 else None


def _by_dtype(numbers: int) -> dict[str, int]:
    return {"float32": 4 * numbers, "bfloat16": 2 * numbers}
