"""The documents of a corpus: local files, Hub datasets, or the built-in synthetic one.

Whatever the source, the result is two `datasets.Dataset`s with one column, `text`, none of them empty.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from datasets import Dataset

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import DataSection
from tidy_stlms.eval.file_kinds import kind_of
from tidy_stlms.eval.rows import text_lines
from tidy_stlms.eval.texts import TextFormat, expand_files, is_mark, text_arrays, texts_of
from tidy_stlms.trainers.hub_documents import load_hub_documents
from tidy_stlms.trainers.kept_documents import Batch, batches_of, joined, kept_documents
from tidy_stlms.trainers.synthetic import DEFAULT_DOCUMENTS, synthetic_documents

VERSION = 2  # raise it when the same files would give other documents


@dataclass(frozen=True)
class Documents:
    """A corpus before tokenisation."""

    train: Dataset
    validation: Dataset
    source: str
    """Its name in messages."""
    key: str
    """Hash of everything that decides the documents and their split."""
    sources: dict[str, int]
    """The number of documents by file or dataset, without the validation files."""


def load_documents(data: DataSection, seed: int, cache: Path) -> Documents:
    """Read the corpus that `data` names and split off its held-out part.

    Raises UserError for a file that is missing, empty or broken, a missing column, an unknown name, or a
    Hub that cannot be reached.
    """
    if data.name == "files":
        train, identity, sources = _from_files(data.train_files, "data.train_files", data, cache)
    elif data.name == "synthetic":
        count = data.max_documents or DEFAULT_DOCUMENTS
        train = Dataset.from_dict({"text": list(synthetic_documents(count, seed))})
        identity, sources = f"synthetic {count} {seed}", {"synthetic": len(train)}
    else:
        train, identity = load_hub_documents(data, cache)
        sources = {data.name: len(train)}
    if data.max_documents is not None:
        train = train.select(range(min(data.max_documents, len(train))))

    key: list = [VERSION, identity, data.max_documents]
    if data.validation_files is not None:
        validation, held_out, _ = _from_files(data.validation_files, "data.validation_files", data, cache)
        key.append(held_out)
    else:
        if len(train) < 2:
            raise UserError(_too_few(data))
        # Split numbers: for documents, datasets would write files with their order beside the cached ones.
        numbers = Dataset.from_dict({"number": range(len(train))})
        share = max(data.validation_fraction, 1 / len(train))
        parts = numbers.train_test_split(test_size=share, seed=seed)
        train, validation = (
            train.select(parts[part]["number"], keep_in_memory=True) for part in ("train", "test")
        )
        key += [data.validation_fraction, seed]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return Documents(train, validation, f"data.name={data.name}", digest, sources)


def _too_few(data: DataSection) -> str:
    """Why a corpus of one document cannot be split, and which keys would help."""
    if data.name != "files":
        where = f"data.name={data.name}"
        return f"{where}: has 1 document, so none can be held out; give data.validation_files"
    (file,) = expand_files(data.train_files, "data.train_files")  # each file has a document or is refused
    remedies = []
    if kind_of(file) == ".txt" and data.separator is None:
        mark = next((line.strip() for line in text_lines(file) if is_mark(line)), None)
        if mark and data.documents == "block":
            remedies.append(f"set data.separator={mark!r} if that stands between its documents")
        if data.documents == "file":
            remedies.append("set data.documents=block")
        has_lines = len(list(islice(filter(str.strip, text_lines(file)), 2))) > 1
        if data.documents != "line" and has_lines:
            remedies.append("set data.documents=line")
    remedies.append("give data.validation_files")
    *first, last = remedies
    remedy = f"{', '.join(first)}, or {last}" if first else last
    return f"data.train_files: {file}: has 1 document, so none can be held out; {remedy}"


def _from_files(
    patterns: list[str] | str | None, key: str, data: DataSection, cache: Path
) -> tuple[Dataset, str, dict[str, int]]:
    """The documents of some files, what decides them as JSON, and their number by file."""
    form = TextFormat(data.text_column, data.documents, data.separator)
    parts, identity, sources = [], [], {}
    for file in expand_files(patterns, key):
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        identity.append([VERSION, digest, kind_of(file), file.suffix.lower(), *astuple(form)])
        parts.append(kept_documents(cache, identity[-1], str(file), partial(_batches, file, form)))
        sources[str(file)] = len(parts[-1])
    return joined(parts), json.dumps(identity), sources


def _batches(file: Path, form: TextFormat) -> Iterator[Batch]:
    if kind_of(file) == ".parquet":
        return text_arrays(file, form.column)
    return batches_of(texts_of(file, form))
