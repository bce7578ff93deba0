"""Reads a tokenizer file of Tidy-STLMs, `bpe_NAME_SIZE.model`, as a tokenizer that AutoTokenizer loads.

Each line of the file has a pair of ids. Ids 0 to 255 are the bytes. Line i (from 0) merges its pair into id
256 + i. `<|pad|>` and `<|endoftext|>` have the two ids after the last merge. A text is not cut into words
before it is encoded: merges apply to all of its bytes, in the order of the file.
"""

import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_text

from ..tokenization_stlm import END_OF_TEXT, PAD, byte_alphabet


def read_tidy_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Read a `bpe_NAME_SIZE.model` file; every id keeps its meaning.

    Special tokens in a text become their ids, as everywhere in transformers. Tidy-STLMs encodes them as
    bytes, and so does `split_special_tokens=True`.

    Raises UserError, naming file and line, if it is no such file.
    """
    pairs = _read_pairs(Path(path))
    texts, merges = byte_alphabet(), []
    for left, right in pairs:
        merges.append((texts[left], texts[right]))
        texts.append(texts[left] + texts[right])
    vocabulary = {text: token for token, text in enumerate(texts)}
    if len(vocabulary) < len(texts):
        first = next(token for token, text in enumerate(texts) if vocabulary[text] != token)
        again = vocabulary[texts[first]]
        # the library looks tokens up by their texts, so two tokens cannot have the same text
        raise UserError(
            f"{path}: tokens {first} and {again} stand for the same bytes; it cannot be converted"
        )

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, END_OF_TEXT])  # in this order: the next two ids
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PAD
    )


def _read_pairs(path: Path) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        pair = re.fullmatch(r"(\d{1,9}) (\d{1,9})\s*", line)
        if not pair:
            raise UserError(
                f"{path}, line {number}: not a tokenizer of Tidy-STLMs, which has a pair of ids a line"
            )
        left, right = int(pair[1]), int(pair[2])
        if max(left, right) >= 256 + len(pairs):
            raise UserError(
                f"{path}, line {number}: merges {max(left, right)}, which does not exist at that point"
            )
        pairs.append((left, right))
    promised = re.search(r"_(\d+)\.model$", path.name)
    size = 256 + len(pairs) + 2
    if promised and int(promised[1]) != size:
        raise UserError(f"{path}: holds {size} tokens, its name says {promised[1]}; was it cut off?")
    return pairs
