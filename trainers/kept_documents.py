"""Keeps the documents of a source as an Arrow file in the cache, so that it is read once.

`cache/documents/KEY/` holds `documents.arrow`, which `datasets` maps into memory, and `meta.json`. KEY is a
hash of what decides the documents. The folder is written whole.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once, read_json, write_json
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.texts import tell_skipped

TEXT = Features({"text": Value("large_string")})
Batch = tuple[pa.Array, int]  # texts, and the number of rows that were skipped
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1_000, 2**24  # written at a time, whichever comes first


def kept_documents(
    cache: Path, identity: list, source: str, read: Callable[[], Iterable[Batch]] | None = None
) -> Dataset:
    """The texts in the cache; if it has none, those that `read` yields, which are kept.

    Logs how many rows were skipped. Raises UserError if there is no text, or neither cache nor `read`.
    """
    folder = folder_of(cache, identity)
    if read is not None:
        build_once(folder, lambda temporary: _write(temporary, read(), source))
    with reading(f"{folder}: is damaged", "; remove it, and it will be made again"):
        tell_skipped(int(read_json(folder / "meta.json")["skipped"]), source)
        return Dataset.from_file(str(folder / "documents.arrow"))


def folder_of(cache: Path, identity: list) -> Path:
    return cache / "documents" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def joined(parts: list[Dataset]) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    return concatenate_datasets([part.cast(TEXT) for part in parts])  # string and large_string do not mix


def batches_of(texts: Iterable[str | None]) -> Iterator[Batch]:
    """Texts in batches that fit into memory. None is a skipped row."""
    batch: list[str] = []
    characters = skipped = 0
    for text in texts:
        if text is None:
            skipped += 1
            continue
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield pa.array(batch, pa.large_string()), skipped
            batch, characters, skipped = [], 0, 0
    yield pa.array(batch, pa.large_string()), skipped


def _write(folder: Path, batches: Iterable[Batch], source: str) -> None:
    documents = skipped = 0
    schema = TEXT.arrow_schema
    with (folder / "documents.arrow").open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for texts, n_skipped in batches:
            writer.write_batch(pa.record_batch([texts], schema=schema))
            documents += len(texts)
            skipped += n_skipped
    if not documents:
        raise UserError(f"{source}: holds no text; is it the right file?")
    write_json(folder / "meta.json", {"documents": documents, "skipped": skipped})
