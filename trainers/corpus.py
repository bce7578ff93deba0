"""Turns a corpus (on disk, on the Hub or built in) into memory-mapped files of token ids.

Documents are tokenised in batches (the tokenizers library spreads a batch over the cores), an
end-of-text token follows each, and the ids are written as uint16 or uint32. The result is cached
under a key of everything that decides its ids. It is written whole, so that an interrupted preparation is
never used.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once, read_json, write_json
from tidy_stlms.eval.tokens import control_texts, encode_texts, tokenizer_fingerprint, vocabulary_size
from tidy_stlms.trainers.documents import Documents
from tidy_stlms.trainers.stream import Blocks

logger = logging.getLogger(__name__)

VERSION = 2  # raise it when the same documents would give other tokens
BATCH = 1_000  # documents tokenised at a time


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: `train.bin` and `validation.bin`, flat files of token ids."""

    folder: Path
    key: str
    """Hash of the documents, their split and the tokenizer."""
    dtype: str
    """`uint16`, or `uint32` for more than 65,536 ids."""
    tokens: dict[str, int]
    """Tokens of `train` and `validation`, end-of-text tokens included."""

    def blocks(self, split: str, context_window: int) -> Blocks:
        """The rows of a split. Raises UserError if its text is shorter than one row."""
        blocks = Blocks(self.folder / f"{split}.bin", self.dtype, context_window)
        if not len(blocks):
            raise UserError(
                f"data: the {split} part has {self.tokens[split]} tokens, less than one row of "
                f"{context_window}; give more text, raise data.validation_fraction or lower "
                "data.context_window"
            )
        return blocks


def prepare_corpus(documents: Documents, tokenizer: Any, cache: Path, progress: bool = True) -> Corpus:
    """Tokenise both parts of `documents`, or read them from `cache`.

    Raises UserError if the tokenizer has no end-of-text token.
    """
    check_end_of_text(tokenizer)
    key = _key(documents.key, tokenizer)
    folder = cache / "corpora" / key
    dtype = "uint16" if vocabulary_size(tokenizer) <= 1 << 16 else "uint32"

    def build(temporary: Path) -> None:
        tokens = {
            split: _write_tokens(dataset, tokenizer, temporary / f"{split}.bin", dtype, split, progress)
            for split, dataset in (("train", documents.train), ("validation", documents.validation))
        }
        write_json(temporary / "meta.json", {"dtype": dtype, "tokens": tokens})

    build_once(folder, build)
    return _read_corpus(folder, key)


def check_end_of_text(tokenizer: Any) -> None:
    """Raise UserError if the tokenizer has no end-of-text token."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            "tokenizer: it has no end-of-text token, which must stand between documents; set its "
            "eos_token and save it, or take another"
        )


def _read_corpus(folder: Path, key: str) -> Corpus:
    """A prepared corpus. Raises UserError if one of its files has another size than when it was written."""
    damaged = UserError(f"{folder}: is damaged; remove it, and it will be prepared anew")
    try:
        meta = read_json(folder / "meta.json")
        corpus = Corpus(folder, key, meta["dtype"], meta["tokens"])
        for split, tokens in corpus.tokens.items():
            if (folder / f"{split}.bin").stat().st_size != tokens * np.dtype(corpus.dtype).itemsize:
                raise damaged
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        raise damaged from None
    return corpus


def _key(documents_key: str, tokenizer: Any) -> str:
    parts = [VERSION, documents_key, tokenizer_fingerprint(tokenizer)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _write_tokens(
    dataset: Dataset, tokenizer: Any, path: Path, dtype: str, split: str, progress: bool
) -> int:
    """Write the ids of all documents to `path`; returns their number."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    total = n_with_control_tokens = 0
    controls = control_texts(tokenizer)
    with (
        path.open("wb") as file,
        tqdm(total=len(dataset), desc=f"tokenise {split}", unit="doc", disable=not progress) as bar,
    ):
        for texts in _batches(dataset):
            n_with_control_tokens += sum(any(control in text for control in controls) for text in texts)
            encoded = encode_texts(tokenizer, texts)["input_ids"]
            flat = np.concatenate([[*ids, tokenizer.eos_token_id] for ids in encoded])
            file.write(flat.astype(dtype).data)  # tofile hides the reason when the disk is full
            total += len(flat)
            bar.update(len(texts))
    if n_with_control_tokens:
        logger.warning(
            "%d %s documents hold a control token (%s): it is encoded as plain text and ends no document",
            *(n_with_control_tokens, split, ", ".join(controls)),
        )
    return total


def _batches(dataset: Dataset) -> Iterator[list[str]]:
    for batch in dataset.iter(batch_size=BATCH):
        yield batch["text"]
