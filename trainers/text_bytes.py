"""Bytes of text per token. With them, losses under different tokenizers can be compared.

bits per byte = nats per token / ln 2 / bytes per token
"""

import json
import re

import numpy as np
from transformers import PreTrainedTokenizerBase

from tidy_stlms.eval.tokens import vocabulary_size
from tidy_stlms.trainers.stream import ValidationRows

# SentencePiece writes a byte that is no character of its vocabulary like this.
BYTE_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """UTF-8 bytes of each token's text, (vocabulary,) int64; 0 for special tokens."""
    # a vocabulary may have gaps: an id in one of them has no text
    tokens = [
        token or "" for token in tokenizer.convert_ids_to_tokens(list(range(vocabulary_size(tokenizer))))
    ]
    if is_byte_level(tokenizer):  # one character of the token's name for each byte
        sizes = [len(token) for token in tokens]
    else:
        sizes = [
            1 if BYTE_FALLBACK.fullmatch(token) else len(token.replace("▁", " ").removeprefix("##").encode())
            for token in tokens
        ]
    sizes_of = np.array(sizes, dtype=np.int64)
    sizes_of[[i for i in tokenizer.all_special_ids if i < len(sizes_of)]] = 0
    return sizes_of


def bytes_per_token(rows: ValidationRows, tokenizer: PreTrainedTokenizerBase) -> float | None:
    """Mean bytes of the predicted tokens of these rows: all but the first of each row.

    None if there are none, as in an empty validation set.
    """
    sizes = token_bytes(tokenizer)
    counts = [
        (sizes[rows[i]["input_ids"][1:]].sum(), len(rows[i]["input_ids"]) - 1) for i in range(len(rows))
    ]
    total_bytes, total_tokens = (
        (int(sum(column)) for column in zip(*counts, strict=True)) if counts else (0, 0)
    )
    return total_bytes / total_tokens if total_bytes else None


def is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether tokens are written in GPT-2's alphabet of 256 printable characters, one for each byte."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and '"ByteLevel"' in json.dumps(json.loads(backend.to_str()).get("decoder"))
