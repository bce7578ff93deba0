"""Encodes text the same way for corpus, statements, prompts, answers and held-out text.

`<|endoftext|>` or `<|pad|>` in a text is encoded as its characters: only this project's code adds control
tokens to a row. Added tokens that are not special (whitespace runs, `<think>`) are words of the tokenizer's
vocabulary, and stay.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tidy_stlms.configs.errors import UserError, shown


def encode_texts(
    tokenizer: Any, texts: Sequence[str], *, offsets: bool = False, control_tokens: bool = False
) -> Any:
    """Encode each text alone: `input_ids` without BOS or end-of-text; with `offsets` also `offset_mapping`.

    With `control_tokens`, control tokens in the texts become control tokens, for chat formats typed by hand.

    Raises UserError, quoting the text, if its plain characters become a control token: some Unigram
    vocabularies hold control tokens as ordinary pieces.
    """
    if tokenizer.is_fast or control_tokens:
        encoding = _encode(tokenizer, texts, split=not control_tokens, offsets=offsets)
    else:
        encoding = _encode_in_python(tokenizer, texts)
    if not control_tokens:
        control = control_ids(tokenizer)
        for text, ids in zip(texts, encoding["input_ids"], strict=True):
            if not control.isdisjoint(ids):
                token = tokenizer.convert_ids_to_tokens(next(i for i in ids if i in control))
                start = max(0, text.find(token) - 20)
                raise UserError(
                    f"{text[start : start + 60]!r}: the tokenizer reads {token!r} in it as a control token, "
                    "not as text; take it out of the text, or use another tokenizer"
                )
    return encoding


def _encode(tokenizer: Any, texts: Sequence[str], *, split: bool, offsets: bool = False) -> Any:
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_offsets_mapping=offsets,
        return_attention_mask=False,
        return_token_type_ids=False,
        # an argument of each call: as an attribute of the tokenizer it would also act on other callers
        split_special_tokens=split,
        verbose=False,
    )


def _encode_in_python(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[list[int]]]:
    """Encode with a tokenizer written in Python, which splits all added tokens into characters or none.

    So only texts that contain a control token are split.
    """
    controls = control_texts(tokenizer)
    special = control_ids(tokenizer)
    words = [str(token) for i, token in tokenizer.added_tokens_decoder.items() if i not in special]
    ids: list[list[int]] = []
    for text in texts:
        split = any(control in text for control in controls)
        if split and (word := next((word for word in words if word in text), None)):
            raise UserError(
                f"{shown(text)}: this tokenizer cannot read its control token as text and keep {word!r} "
                "whole; take one of them out of the text, or use a fast tokenizer"
            )
        ids += _encode(tokenizer, [text], split=split)["input_ids"]
    return {"input_ids": ids}


def encode_with_own_tokens(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text with the special tokens that the tokenizer adds by itself: BOS, end-of-text, or none."""
    return tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]


def control_ids(tokenizer: Any) -> set[int]:
    """Ids of the special tokens, which no text may produce.

    The unknown token is one of them only if it is also BOS, end-of-text or padding: GPT-2 uses one token for
    all four.
    """
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if tokenizer.unk_token_id not in roles:
        special.discard(tokenizer.unk_token_id)
    return special


def control_texts(tokenizer: Any) -> list[str]:
    """The control tokens as they would be typed in a text."""
    return [token for token in tokenizer.convert_ids_to_tokens(sorted(control_ids(tokenizer))) if token]


def vocabulary_size(tokenizer: Any) -> int:
    """The highest id plus one. `len(tokenizer)` is lower if ids have gaps."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def tokenizer_hash(tokenizer: Any) -> str:
    """8 hex digits, equal for tokenizers that make the same tokens of every text.

    Hashes the serialised tokenizer without its settings for padding and truncation, which scoring does not
    use; slow tokenizers by class, vocabulary and special tokens.
    """
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    content["start and end"] = [tokenizer.bos_token, tokenizer.eos_token]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """64 hex digits for the key of a prepared corpus.

    Stricter than `tokenizer_hash`: the class and the settings for padding and truncation count too. Every
    checkpoint holds a corpus key, so another formula would refuse to resume the runs that exist.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    identity = f"{type(tokenizer).__name__} {tokenizer.eos_token_id} {rules}"
    return hashlib.sha256(identity.encode()).hexdigest()
