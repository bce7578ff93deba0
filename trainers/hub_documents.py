"""The documents of a Hub dataset: all, or the first ones.

With `data.max_documents`, only as much is downloaded as these documents need, and they are kept in the cache:
FineWeb-Edu has terabytes. Otherwise `datasets` downloads the whole dataset and keeps it.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset, DatasetBuilder, ReadInstruction, load_dataset_builder
from datasets.exceptions import DatasetGenerationError

from tidy_stlms.configs.corpora import short_names
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, write_json
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import DataSection
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.eval.texts import HINT, no_column, tell_skipped, text_in
from tidy_stlms.trainers.kept_documents import batches_of, folder_of, joined, kept_documents

logger = logging.getLogger(__name__)

# `train`, `train[:1000]`, `train[100:200]`: these do not need the number of rows
SLICE = re.compile(r"([\w.-]+)(?:\[(\d*):(\d*)\])?", re.ASCII)


@dataclass(frozen=True)
class Part:
    """A Hub dataset, and what a document is in it."""

    path: str
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    column: str = "text"
    template: str | None = None
    """Makes a text from several columns."""

    def text(self, row: dict, place: str) -> str | None:
        if self.template is not None:
            with reading(f"{self.path}, {place}: does not fit {self.template!r}"):
                row = {self.column: self.template.format(**row)}
        return text_in(row, self.column, self.path, place)


@writing_hub_cache()
def load_hub_documents(data: DataSection, cache: Path) -> tuple[Dataset, str]:
    """The documents of `data.name`, at most `data.max_documents`, and what decides them."""
    chosen = {key: value for key in ("config", "split") if (value := getattr(data, key))}
    parts = short_names().get(data.name, [{"path": data.name, "column": data.text_column}])
    wanted = data.max_documents
    loaded, identities = [], []
    for part in (Part(**{**part, **chosen}) for part in parts):
        if wanted is None:
            documents, identity = _whole(part, data.name)
        elif wanted > 0:
            documents, identity = _first(part, wanted, data.name, cache)
            wanted -= len(documents)
        else:
            break
        loaded.append(documents)
        identities.append(identity)
    return joined(loaded), json.dumps(identities)


@contextlib.contextmanager
def _loading(part: Part, name: str) -> Iterator[None]:
    """Turn any error of the Hub into one line with the dataset and a remedy."""
    remedy = "; check data.name, data.config, data.split and the network, or use data.name=files or synthetic"
    with reading(f"data.name={name}: cannot load {part.path} from the Hub", remedy):
        try:
            yield
        except DatasetGenerationError as error:  # its text has no reason
            raise error.__cause__ or error from None


def _builder(part: Part, name: str) -> tuple[DatasetBuilder, list]:
    """What `datasets` knows of a dataset, and the identity of its documents."""
    with _loading(part, name):
        builder = load_dataset_builder(part.path, part.config, revision=part.revision)
    # builder.hash is the commit, or the state of a local folder
    return builder, [part.path, builder.config_id, builder.hash, part.split, part.column, part.template]


def _whole(part: Part, name: str) -> tuple[Dataset, list]:
    builder, identity = _builder(part, name)
    with _loading(part, name):
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=part.split)
    texts = _text_column(dataset, part)
    with _loading(part, name):
        kept = texts.filter(_hold_text, batched=True, input_columns="text", desc=f"read {part.path}")
    if not len(kept):
        raise UserError(f"data.name={name}: {part.path}: {part.split} holds no text")
    tell_skipped(len(texts) - len(kept), part.path)
    return (kept if len(kept) < len(texts) else texts), identity


def _hold_text(texts: list[str | None]) -> list[bool]:
    return [text is not None and text != "" and not text.isspace() for text in texts]


def _text_column(dataset: Dataset, part: Part) -> Dataset:
    """One column, `text`: the part's `column`, or its `template` filled with a row's fields."""
    if part.template is not None:
        return dataset.map(
            lambda row, number: {"text": part.text(row, f"row {number + 1}")},
            with_indices=True,
            remove_columns=dataset.column_names,
            desc=f"read {part.path}",
        )
    if part.column not in dataset.column_names:
        raise UserError(f"{part.path}: {no_column(part.column, dataset.column_names)}")
    dataset = dataset.select_columns([part.column])
    if getattr(dataset.features[part.column], "dtype", None) not in ("string", "large_string"):
        raise UserError(f"{part.path}: column {part.column!r} holds no text{HINT}")
    return dataset if part.column == "text" else dataset.rename_column(part.column, "text")


def _first(part: Part, count: int, name: str, cache: Path) -> tuple[Dataset, list]:
    """The first `count` documents, from our cache, from what `datasets` has downloaded, or from the Hub."""
    latest = folder_of(cache, [asdict(part), count]).with_suffix(".json")  # for when the Hub is out of reach
    try:
        builder, identity = _builder(part, name)
    except UserError as error:
        if not isinstance(error.__cause__, ConnectionError) or not latest.exists():
            raise
        logger.warning("%s: the Hub cannot be reached; the documents that were read last are used", part.path)
        identity = read_json(latest)
        return kept_documents(cache, [*identity, count], part.path), identity

    def texts() -> Iterator[str | None]:
        found = 0
        for number, row in enumerate(_rows(builder, part, name), 1):
            text = part.text(row, f"row {number}")
            found += text is not None
            yield text
            if found == count:
                break

    documents = kept_documents(cache, [*identity, count], part.path, lambda: batches_of(texts()))
    write_json(latest, identity)
    return documents, identity


def _rows(builder: DatasetBuilder, part: Part, name: str) -> Iterator[dict]:
    if Path(builder.cache_dir).exists():  # downloaded whole, by an earlier run
        with _loading(part, name):
            builder.download_and_prepare()
            yield from builder.as_dataset(split=part.split).to_iterable_dataset()
        return
    for split, first, end in _slices(builder, part, name):
        with _loading(part, name):
            yield from builder.as_streaming_dataset(split=split).skip(first).take(end - first)


def _slices(builder: DatasetBuilder, part: Part, name: str) -> list[tuple[str, int, int]]:
    """(split, first row, end) for each part of `a[:100]+b`; `datasets` cannot slice a stream."""
    found = [SLICE.fullmatch(piece) for piece in part.split.split("+")]
    if all(found):
        return [(m[1], int(m[2] or 0), int(m[3] or sys.maxsize)) for m in found if m]
    if not builder.info.splits:
        raise UserError(
            f"data.split={part.split}: the Hub does not say how many rows {part.path} has; give rows, as "
            "in train[:1000], or leave out data.max_documents to download all of it"
        )
    with _loading(part, name):
        sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
        slices = ReadInstruction.from_spec(part.split).to_absolute(sizes)
        return [(piece.splitname, piece.from_, piece.to) for piece in slices]
