"""Encodes text the same way for corpus, statements, prompts, answers and held-out text.

`<|endoftext|>` or `<|pad|>` in a text is encoded as its characters: only this project's code adds control
tokens to a row. Added tokens that are not special (whitespace runs, `<think>`) are words of the tokenizer's
vocabulary, and stay.
"""

from collections.abc import Sequence
from typing import Any

from tidy_stlms.configs.errors import UserError


def encode_texts(
    tokenizer: Any, texts: Sequence[str], *, offsets: bool = False, control_tokens: bool = False
) -> Any:
    """Ids of each text, `input_ids`, without BOS or end-of-text; with `offsets` also `offset_mapping`.

    `control_tokens` reads control tokens in the texts as such, for chat formats typed by hand.

    Raises UserError for a text in which the tokenizer makes a control token even of plain characters, as
    some Unigram vocabularies do.
    """
    if tokenizer.is_fast or control_tokens:
        encoding = _encode(tokenizer, texts, split=not control_tokens, offsets=offsets)
    else:
        encoding = _encode_slowly(tokenizer, texts)
    if not control_tokens:
        control = control_ids(tokenizer)
        for text, ids in zip(texts, encoding["input_ids"], strict=True):
            if not control.isdisjoint(ids):
                found = tokenizer.convert_ids_to_tokens(next(i for i in ids if i in control))
                where = max(0, text.find(found) - 20)
                raise UserError(
                    f"{text[where : where + 60]!r}: the tokenizer reads {found!r} in it as a control token, "
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
        # passed with every call: set as an attribute of the tokenizer, it would change what others encode
        split_special_tokens=split,
        verbose=False,
    )


def _encode_slowly(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[list[int]]]:
    """Tokenizers in Python split all added tokens or none: only texts with a control token are split."""
    controls = control_texts(tokenizer)
    special = control_ids(tokenizer)
    words = [str(token) for i, token in tokenizer.added_tokens_decoder.items() if i not in special]
    ids: list[list[int]] = []
    for text in texts:
        split = any(control in text for control in controls)
        if split and (word := next((word for word in words if word in text), None)):
            raise UserError(
                f"{text[:60]!r}: this tokenizer cannot read its control token as text and keep {word!r} "
                "whole; take one of them out of the text, or use a fast tokenizer"
            )
        ids += _encode(tokenizer, [text], split=split)["input_ids"]
    return {"input_ids": ids}


def encode_with_own_tokens(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text with what the tokenizer puts around it by itself: BOS, end-of-text, or nothing."""
    return tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]


def control_ids(tokenizer: Any) -> set[int]:
    """Ids of the special tokens, which no text may produce. The unknown token counts only if it is also BOS,
    end-of-text or padding (GPT-2 uses one token for both)."""
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if tokenizer.unk_token_id not in roles:
        special.discard(tokenizer.unk_token_id)
    return special


def control_texts(tokenizer: Any) -> list[str]:
    """How the control tokens are written."""
    return [token for token in tokenizer.convert_ids_to_tokens(sorted(control_ids(tokenizer))) if token]


def vocabulary_size(tokenizer: Any) -> int:
    """One more than the highest id, which `len(tokenizer)` is not where ids have gaps."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))
