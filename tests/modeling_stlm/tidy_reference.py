"""Tidy-STLMs' model, written from its description, with the parameter names of its checkpoints.

    h = embed(ids) + positions;  h += attn(norm(h));  h += ffn(norm(h));  logits = linear(norm(h))

Rotary embeddings turn neighbouring dimensions (2i, 2i + 1), here as complex numbers.
"""

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "leakyrelu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim))

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.weight


class LayerNorm(nn.Module):
    def __init__(self, dim, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim))
        self.bias = nn.Parameter(torch.randn(dim)) if bias else None

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight
        return normed if self.bias is None else normed + self.bias


def make_norm(name, dim, bias):
    return {
        "rms_norm": lambda: RMSNorm(dim),
        "layer_norm": lambda: LayerNorm(dim, bias),
        "none": nn.Identity,
    }[name]()


class Attention(nn.Module):
    def __init__(self, hidden, section, rope):
        super().__init__()
        self.heads, self.group, self.rope = section["num_heads"], section["group_size"], rope
        self.c_attn = nn.Linear(hidden, hidden + 2 * hidden // self.group, bias=section["bias"])
        self.c_proj = nn.Linear(hidden, hidden, bias=section["bias"])

    def forward(self, x):
        batch, length, hidden = x.shape
        head_dim, kv_width = hidden // self.heads, hidden // self.group
        q, k, v = self.c_attn(x).split([hidden, kv_width, kv_width], dim=-1)
        q, k, v = (t.view(batch, length, -1, head_dim) for t in (q, k, v))
        if self.rope:
            frequencies = 10_000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
            turns = torch.polar(torch.ones(()), torch.arange(length)[:, None] * frequencies)[:, None]
            q, k = (
                torch.view_as_real(
                    torch.view_as_complex(t.unflatten(-1, (-1, 2)).contiguous()) * turns
                ).flatten(-2)
                for t in (q, k)
            )
        out = torch.empty(batch, length, self.heads, head_dim)
        causal = torch.ones(length, length).tril().bool()
        for head in range(self.heads):
            key, value = k[:, :, head // self.group], v[:, :, head // self.group]
            scores = q[:, :, head] @ key.transpose(1, 2) / head_dim**0.5
            out[:, :, head] = scores.masked_fill(~causal, -torch.inf).softmax(-1) @ value
        return self.c_proj(out.flatten(2))


class FeedForward(nn.Module):
    def __init__(self, hidden, section):
        super().__init__()
        self.gated = section["ffn_type"] == "swiglu"
        self.linear_1 = nn.Linear(hidden, section["ffn_dim"], bias=section["bias"])
        self.linear_2 = nn.Linear(section["ffn_dim"], hidden, bias=section["bias"])
        if self.gated:
            self.linear_3 = nn.Linear(hidden, section["ffn_dim"], bias=section["bias"])
        else:
            self.act = ACTIVATIONS[section["activation"].lower()]

    def forward(self, x):
        if self.gated:
            return self.linear_2(F.silu(self.linear_1(x)) * self.linear_3(x))
        return self.linear_2(self.act(self.linear_1(x)))


class Block(nn.Module):
    def __init__(self, model):
        super().__init__()
        hidden, attn, ffn = model["hidden_dim"], model["core_model"]["attn"], model["core_model"]["ffn"]
        self.attn_norm = make_norm(attn["normalization"], hidden, attn["bias"])
        self.attn = Attention(hidden, attn, model["positional_encoding_type"] == "rope")
        self.ffn_norm = make_norm(ffn["normalization"], hidden, ffn["bias"])
        self.ffn = FeedForward(hidden, ffn)

    def forward(self, x):
        x = x + self.attn(self.attn_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class Positions(nn.Module):
    def __init__(self, model):
        super().__init__()
        kind, length, hidden = model["positional_encoding_type"], model["context_window"], model["hidden_dim"]
        self.kind = kind
        if kind == "learned":
            self.pe = nn.Embedding(length, hidden)
        if kind == "sincos":
            table = torch.zeros(1, length, hidden)
            for position in range(length):
                for column in range(0, hidden, 2):
                    angle = torch.tensor(position / 10_000 ** (column / hidden))
                    table[0, position, column], table[0, position, column + 1] = angle.sin(), angle.cos()
            self.pe = nn.Parameter(table, requires_grad=False)

    def forward(self, x):
        if self.kind == "learned":
            return x + self.pe(torch.arange(x.shape[1]))
        return x + self.pe[:, : x.shape[1]] if self.kind == "sincos" else x


class Embedder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.token_embedder = nn.Embedding(model["vocab_size"], model["hidden_dim"])
        self.positional_encodings = Positions(model)


class Core(nn.Module):
    def __init__(self, model):
        super().__init__()
        blocks = nn.ModuleList(Block(model) for _ in range(model["core_model"]["num_layers"]))
        self.transformer = nn.ModuleDict({"drop": nn.Dropout(0), "h": blocks})
        if model["core_model"]["core_model_type"] == "generic_ffn_sharing":
            for block in blocks[1:]:
                for name, linear in block.ffn.named_children():
                    first = getattr(blocks[0].ffn, name)
                    linear.weight, linear.bias = first.weight, first.bias


class Head(nn.Module):
    def __init__(self, model):
        super().__init__()
        section = model["lm_head"]
        self.layer_norm = make_norm(section["normalization"], model["hidden_dim"], section["bias"])
        self.linear = nn.Linear(model["hidden_dim"], model["vocab_size"], bias=section["bias"])


class TidyModel(nn.Module):
    """The whole model for a `model` section; every parameter is random, the norms' too."""

    def __init__(self, model):
        super().__init__()
        self.embedding_model, self.core_model, self.model_head = Embedder(model), Core(model), Head(model)
        if model["embedding_weight_tying"]:
            self.embedding_model.token_embedder.weight = self.model_head.linear.weight

    def forward(self, ids):
        x = self.embedding_model.positional_encodings(self.embedding_model.token_embedder(ids))
        for block in self.core_model.transformer["h"]:
            x = block(x)
        return self.model_head.linear(self.model_head.layer_norm(x))


def tidy_config(**changes):
    """A whole config of Tidy-STLMs, tiny; `changes` are values by dotted key, with `__` for the dots."""
    config = {
        "model": {
            "core_model": {
                "core_model_type": "generic",
                "num_layers": 3,
                "ffn": {"ffn_type": "swiglu", "ffn_dim": 40, "normalization": "rms_norm", "bias": False},
                "attn": {
                    "attn_type": "generic",
                    "num_heads": 4,
                    "normalization": "rms_norm",
                    "group_size": 2,
                    "bias": False,
                    "is_causal": True,
                },
            },
            "embedder": {
                "tokenizer_type": "gpt2",
                "embedding_model_type": "generic",
                "dataset_name": "simple_en_wiki",
            },
            "lm_head": {"normalization": "rms_norm", "bias": False, "lm_head_type": "generic"},
            "hidden_dim": 32,
            "context_window": 24,
            "vocab_size": 61,
            "model_shell_type": "standard",
            "embedding_weight_tying": True,
            "positional_encoding_type": "rope",
        },
        "trainer": {
            "dataset": "simple_en_wiki",
            "dropout_scheduler": {"dropout_type": "constant", "dropout_p": 0.1},
        },
        "general": {"seed": 42},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        section = config
        for name in path:
            section = section[name]
        section[last] = value
    return config
