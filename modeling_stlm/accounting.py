"""What a causal language model is made of and what it costs, counted without running it.

    with torch.device("meta"):
        model = STLMForCausalLM(STLMConfig())
    account(model)["parameters"]  # {"embeddings": 25731584, "attention": 5242880, ...}

All of it works on the meta device, so no weights are needed. Parts are told by the names of modules, as they
are in Llama, GPT-2, GPT-NeoX, OPT, BLOOM and their kin. What cannot be told from outside is `None`, never a
guess.
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

# What `stlm_byte` makes of English: 5.1 bytes in WikiText-2, the space in front of a word among them.
BYTES_PER_WORD = 5


def account(model: PreTrainedModel, context_window: int | None = None) -> dict[str, Any]:
    """All the figures of `model`, for training on rows of `context_window` tokens.

    Returns: `parameters` (by part), `total`, `non_embedding` (without embeddings, positions and head; Kaplan
    et al. 2020, arXiv:2001.08361), `bytes` (of the weights, by dtype), `context_window` (by default the
    model's max_position_embeddings), `training_flops_per_token`, and `cache_bytes_per_token` (by dtype). Of a
    byte-pooled model, whose tokens are bytes, also `assumed_bytes_per_word`.
    """
    config = model.config
    parts = parameters_by_part(model)
    total = sum(parts.values())
    window = context_window or getattr(config, "max_position_embeddings", None)
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
    """Number of parameters of each part, in the order of `PARTS`; a tied or shared one counts once.

    A tied output layer counts as embedding. What no known name covers is a part by the name of its module:
    for Mamba `mixer`.
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

    As in appendix B of PaLM (Chowdhery et al. 2022, arXiv:2204.02311): a multiplication and an addition
    forward and twice that backward for each of the N weights that a token is multiplied with, and for the
    attention of L layers with H heads of width Q over all T tokens of the row, also those that the mask
    hides. Weights count as often as they are used: shared feed-forwards in each of their layers, a tied
    embedding as the output layer. Looking up embeddings, norms and activations count as nothing.

    Of a byte-pooled model it is a byte's: a word of `BYTES_PER_WORD` passes the layers over words once, and
    in those over bytes a byte attends to two chunks of `max_word_bytes`.

    `None` where it is not known how often a weight is used: mixtures of experts, convolutions, recurrences,
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
    """Numbers that generation keeps for a token: a key and a value for each key/value head of each layer."""
    if _is_byte_pooled(config):
        return 0  # it reads the text anew at every step
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
    # what stands behind the layer's number, else the last name: backbone.layers.0.mixer.in_proj is "mixer"
    found = re.search(r"\.\d+\.([^.]+)", path)
    return found.group(1) if found else leaf or "other"


def _weights_per_token(model: PreTrainedModel) -> float | None:
    """The weights of all matrix products, as often as a token meets them."""
    known, total = set(), 0.0
    # a module that stands in several places is used in each of them
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
    """How often a token uses the module of that name: an STLM's shared feed-forward once a layer."""
    uses = 1.0
    if _is_byte_pooled(config) and re.search(r"\b(words\.|pool_proj|context_proj)", name):
        uses /= BYTES_PER_WORD
    found = re.search(r"\bffns\.(\d+)\.", name)
    if config.model_type in ("stlm", "stlm_byte") and found is not None:
        layers, groups = config.num_hidden_layers, config.num_ffn_groups
        uses *= sum(layer * groups // layers == int(found.group(1)) for layer in range(layers))
    return uses


def _is_byte_pooled(config: PreTrainedConfig) -> bool:
    return config.model_type == "stlm_byte"


def _attention_shape(config: PreTrainedConfig) -> tuple[int, int, int, int] | None:
    """Layers, query heads, key/value heads, head width; None where not all layers are plain attention."""
    layers, heads = (getattr(config, f"num_{name}", None) for name in ("hidden_layers", "attention_heads"))
    other_kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    other_keys = ("sliding_window", "kv_lora_rank", "multi_query")
    odd = other_kinds or any(getattr(config, key, None) for key in other_keys)
    if not (layers and heads) or odd or config.is_encoder_decoder:
        return None
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return layers, heads, getattr(config, "num_key_value_heads", None) or heads, head_dim


def _by_dtype(numbers: int) -> dict[str, int]:
    return {"float32": 4 * numbers, "bfloat16": 2 * numbers}
