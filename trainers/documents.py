"""The documents of a corpus: local files, Hub datasets, or the built-in synthetic one.

Whatever the source, the result is two `datasets.Dataset`s with one column, `text`.
"""

import csv
import glob
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from datasets import Dataset, Features, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tidy_stlms import configs
from tidy_stlms.configs.errors import UserError, first_line
from tidy_stlms.configs.files import split_documents
from tidy_stlms.configs.schema import DataSection
from tidy_stlms.eval.hub import writing_hub_cache
from tidy_stlms.trainers.synthetic import DEFAULT_DOCUMENTS, synthetic_documents

TEXT = Features({"text": Value("large_string")})
READABLE = (".txt", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Documents:
    """A corpus before tokenisation."""

    train: Dataset
    validation: Dataset
    source: str
    """Its name in messages."""
    key: str
    """Hash of everything that decides the documents and their split."""


def load_documents(data: DataSection, seed: int, cache: Path) -> Documents:
    """Read the corpus that `data` names and split off its held-out part.

    Raises UserError for a missing, empty or non-UTF-8 file, a missing column, an unknown name, or a
    Hub that cannot be reached.
    """
    if data.name == "files":
        train, identity = _from_files(data.train_files, "data.train_files", data, cache)
    elif data.name == "synthetic":
        count = data.max_documents or DEFAULT_DOCUMENTS
        train = Dataset.from_dict({"text": list(synthetic_documents(count, seed))})
        identity = f"synthetic {count} {seed}"
    else:
        train, identity = _from_hub(data)
    if data.max_documents is not None:
        train = train.select(range(min(data.max_documents, len(train))))

    key: list = [identity, data.max_documents]
    if data.validation_files is not None:
        validation, held_out = _from_files(data.validation_files, "data.validation_files", data, cache)
        key.append(held_out)
    else:
        if len(train) < 2:
            raise UserError(
                f"{data.name}: has {len(train)} documents, so none can be held out; give "
                "data.validation_files, or data.documents=block or line"
            )
        parts = train.train_test_split(test_size=max(data.validation_fraction, 1 / len(train)), seed=seed)
        train, validation = parts["train"], parts["test"]
        key += [data.validation_fraction, seed]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return Documents(train, validation, f"data.name={data.name}", digest)


def _from_files(
    patterns: list[str] | str | None, key: str, data: DataSection, cache: Path
) -> tuple[Dataset, str]:
    files = expand_files(patterns, key)
    parts, identity = [], []
    for file in files:
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        columns = data.documents if file.suffix == ".txt" else data.text_column
        identity.append(f"{digest} {file.suffix} {columns}")
        # datasets keeps an Arrow copy of what a generator yields, and finds it by the fingerprint
        parts.append(_read_file(file, data, cache / "documents", identity[-1]))
    return _joined(parts), json.dumps(identity)


def expand_files(patterns: list[str] | str | None, key: str) -> list[Path]:
    """The files of paths and globs, in order. Raises UserError, naming `key`, if one cannot be read."""
    if not patterns:
        raise UserError(f"{key}: give one or more files, as data.name=files needs them")
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
        if not names:
            raise UserError(f"{key}: {pattern}: no such file")
        files += [Path(name) for name in names]
    for file in files:
        if file.suffix not in READABLE:
            raise UserError(
                f"{key}: {file}: cannot read {file.suffix or 'this'} files, only {', '.join(READABLE)}"
            )
        if file.is_dir():
            raise UserError(f"{key}: {file}: is a folder; write {file}/*.txt")
    return files


def read_texts(patterns: list[str], key: str, column: str) -> Iterator[str]:
    """The texts of files that may be larger than memory, those of a .txt file line by line.

    Raises UserError, naming `key`, for files that are missing or of another kind.
    """
    files = expand_files(patterns, key)
    return chain.from_iterable(_texts(file, column) for file in files)


def _texts(file: Path, column: str) -> Iterator[str]:
    if file.suffix == ".parquet":
        rows = _parquet(file, column, streaming=True)
    else:
        rows = _documents_of(str(file), column, "line")
    return (row["text"] for row in rows if row["text"])


def _parquet(file: Path, column: str, **options: Any) -> Any:
    try:
        dataset = Dataset.from_parquet(str(file), **options)
    except (pa.ArrowInvalid, DatasetGenerationError):
        raise UserError(f"{file}: not a Parquet file, or a broken one") from None
    return _text_column(dataset, column, str(file))


def _read_file(file: Path, data: DataSection, cache: Path, identity: str) -> Dataset:
    if file.suffix == ".parquet":
        return _parquet(file, data.text_column, cache_dir=str(cache))
    arguments = {"file": str(file), "column": data.text_column, "documents": data.documents}
    if next(_documents_of(**arguments), None) is None:
        raise UserError(f"{file}: holds no text; is it the right file?")
    try:
        return Dataset.from_generator(
            _documents_of,
            features=TEXT,
            gen_kwargs=arguments,
            cache_dir=str(cache),
            fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        )
    except DatasetGenerationError as error:  # datasets wraps whatever our generator raises
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


def _documents_of(file: str, column: str, documents: str) -> Iterator[dict[str, str]]:
    reader = {".txt": _text_documents, ".jsonl": _jsonl_documents, ".csv": _csv_documents}[Path(file).suffix]
    argument = documents if file.endswith(".txt") else column
    try:
        for text in reader(file, argument):
            yield {"text": text}
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: not UTF-8 (byte {error.object[error.start]:#x}); convert it to UTF-8"
        ) from None


# The text loader of `datasets` has the same three modes and other results: its `paragraph` does not end at a
# line of spaces, its `line` yields empty lines and keeps the spaces around others, and it leaves a byte order
# mark in the text.
def _text_documents(file: str, documents: str) -> Iterator[str]:
    with open(file, encoding="utf-8-sig") as handle:
        if documents == "file":
            yield handle.read()
        elif documents == "line":
            yield from (line.strip() for line in handle if line.strip())
        else:
            yield from split_documents(line.rstrip("\n") for line in handle)


def _jsonl_documents(file: str, column: str) -> Iterator[str]:
    with open(file, encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{file}, line {number}: not valid JSON ({error.msg})") from None
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                columns = ", ".join(row) if isinstance(row, dict) else "no object"
                raise UserError(f"{file}, line {number}: no text in column {column!r}; {_hint(columns)}")
            yield row[column]


def _csv_documents(file: str, column: str) -> Iterator[str]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open(file, encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        if column not in (reader.fieldnames or []):
            raise UserError(f"{file}: no column {column!r}; {_hint(', '.join(reader.fieldnames or []))}")
        yield from (row[column] for row in reader if row[column])


def _hint(columns: str) -> str:
    return f"there is {columns or 'none'}; set data.text_column (stlm facts: --text-column)"


def _text_column(dataset: Dataset, column: str, source: str) -> Dataset:
    """Only `column`, as `text`. Raises UserError if it is missing or holds something else."""
    if column not in dataset.column_names:
        raise UserError(f"{source}: no column {column!r}; {_hint(', '.join(dataset.column_names))}")
    dataset = dataset.select_columns([column])
    if getattr(dataset.features[column], "dtype", None) not in ("string", "large_string"):
        raise UserError(
            f"{source}: column {column!r} holds no text; set data.text_column (stlm facts: --text-column)"
        )
    return dataset if column == "text" else dataset.rename_column(column, "text")


def short_names() -> dict[str, list[dict]]:
    """The corpora that have a short name: for each, the parts it is made of."""
    table = yaml.safe_load((Path(configs.__file__).parent / "datasets.yaml").read_text(encoding="utf-8"))
    return {name: parts if isinstance(parts, list) else [parts] for name, parts in table.items()}


@writing_hub_cache()
def _from_hub(data: DataSection) -> tuple[Dataset, str]:
    parts = short_names().get(data.name, [{"path": data.name, "column": data.text_column}])
    loaded = []
    for part in parts:
        path, config = part["path"], data.config or part.get("config")
        try:
            dataset = load_dataset(path, config, split="train", revision=part.get("revision"))
        except (DatasetNotFoundError, OSError) as error:
            reason = first_line(error)
            raise UserError(
                f"data.name={data.name}: cannot load {path} from the Hub ({reason}); check the name and "
                "the network, or use data.name=files or synthetic"
            ) from None
        except (ValueError, RuntimeError) as error:  # an unknown configuration, a dataset that is a script
            raise UserError(f"data.name={data.name}: {first_line(error)}") from None
        loaded.append(_texts_of(dataset, part))
    return _joined(loaded), json.dumps([d._fingerprint for d in loaded])


def _joined(parts: list[Dataset]) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    return concatenate_datasets([part.cast(TEXT) for part in parts])  # string and large_string do not mix


def _texts_of(dataset: Dataset, part: dict) -> Dataset:
    """One text column: the part's `column`, or its `template` filled with a row's fields."""
    template = part.get("template")
    if template is None:
        return _text_column(dataset, part.get("column", "text"), part["path"])
    return dataset.map(
        lambda row: {"text": template.format(**row)},
        remove_columns=dataset.column_names,
        desc=f"read {part['path']}",
    )
