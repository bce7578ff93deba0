"""What a file holds: by the ending of its name, and by its first bytes.

    kind_of("people.CSV.gz")                      # ".csv"
    check_kind(Path("a.txt"), "data.train_files: a.txt")      # UserError: ... is compressed with gzip; ...

The ending decides how a file is read. A file whose first bytes show something else is refused.
"""

from pathlib import Path

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading

ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
KINDS = (".txt", *ROWS)
PACKED = {".gz": "gzip", ".zst": "zstd"}
SIGNATURES = {
    b"%PDF-": "a PDF document",
    b"%!PS": "a PostScript document",
    rb"{\rtf": "an RTF document",
    b"PK\x03\x04": "a ZIP archive, or a Word, Excel or OpenDocument file",
    b"\xd0\xcf\x11\xe0": "an old Word or Excel file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
HEAD = max(map(len, SIGNATURES))
# Kinds that are read, if the file's name has the right ending.
ENDINGS = {
    "compressed with gzip": ".gz",
    "compressed with zstd": ".zst",
    "a Parquet file": ".parquet",
}
REMEDIES = {
    "a ZIP archive, or a Word, Excel or OpenDocument file": "unpack the archive, or save the text by itself",
    "compressed with bzip2": "decompress it",
    "compressed with xz": "decompress it",
    "UTF-16 text": "convert it to UTF-8",
    "a pointer of Git LFS, not the file itself": "fetch the file with `git lfs pull`",
}


def kind_of(path: str | Path) -> str:
    """The ending that says how to read a file: ".csv" for `Data.CSV.gz`; empty if it is none of `KINDS`."""
    ending = _unpacked(path).suffix.lower()
    return ending if ending in KINDS else ""


def stem_of(path: str | Path) -> str:
    """A file's name without its endings: "Data" for `Data.CSV.gz`."""
    return _unpacked(path).stem


def is_packed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() in PACKED


def _unpacked(path: str | Path) -> Path:
    """The name of a compressed file without .gz or .zst."""
    path = Path(path)
    return path.with_suffix("") if is_packed(path) else path


def check_kind(path: Path, what: str, kinds: tuple[str, ...] = KINDS) -> None:
    """Raise UserError, which begins with `what`, unless `path` is a file of one of these kinds."""
    with reading(what):
        is_file, is_folder, exists = path.is_file(), path.is_dir(), path.exists()
    if is_folder:
        raise UserError(f"{what}: is a folder; write {path}/*{kinds[0]}")
    if not exists:
        raise UserError(f"{what}: no such file")
    if not is_file:
        raise UserError(f"{what}: is a pipe or a device; write its content to a file")
    kind = kind_of(path)
    if kind not in kinds:
        raise UserError(
            f"{what}: cannot read {_unpacked(path).suffix or 'such'} files, only {', '.join(kinds)}, also "
            f"compressed ({', '.join(PACKED)})"
        )
    if kind == ".parquet" and is_packed(path):
        raise UserError(f"{what}: decompress it; the content of a Parquet file is compressed already")
    with reading(what), path.open("rb") as file:
        head = file.read(HEAD)
    if (content := misnamed(path, head)) is not None:
        raise UserError(f"{what}: is {content}; {remedy_for(content, path) or 'save its text by itself'}")


def misnamed(path: Path, head: bytes) -> str | None:
    """What a file holds by its first bytes, if they are known and its ending says something else."""
    kind = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
    return None if kind is None or ENDINGS.get(kind) == path.suffix.lower() else kind


def remedy_for(kind: str, path: Path) -> str | None:
    """What to do with a file of this kind whose name has another ending; None if nothing helps."""
    if kind not in ENDINGS:
        return REMEDIES.get(kind)
    if kind == "a Parquet file":
        return f"rename it to {stem_of(path)}.parquet"
    return (
        "decompress it"
        if kind_of(path) == ".parquet"
        else f"rename it to {_unpacked(path).name}{ENDINGS[kind]}"
    )
