"""The identity of a model: results in the cache are found by it, and two equal models share them."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidy_stlms.eval.models.load import tokenizer_folder
from tidy_stlms.eval.models.lookup import ADAPTER_CONFIG, read_adapter_base, resolve_commit
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.models.prefix import is_run_or_checkpoint

# The files on which a model's figures depend. The other files of a run folder may change.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    ADAPTER_CONFIG,
    "*.safetensors",
    "*model*.bin",
    "*.index.json",
    "*.py",
)
TOKENIZER_PARTS = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
)
# Files up to this size are hashed whole. Hashing gigabytes takes longer than many evaluations, so of larger
# files the ends are hashed, with their size and the time of the last change.
READ_WHOLE = 2**26  # bytes
ENDS = 2**20  # bytes at the beginning and at the end
# Packages whose next release may change the last digits of a figure, or correct it.
VERSIONS = ("torch", "transformers", "tokenizers", "peft")


def model_identity(model: ModelName) -> dict[str, Any]:
    """What the model's figures depend on: JSON-serialisable, and equal for equal models.

    For a model of the Hub its commit; for a folder hashes of its files, and those of an adapter's base model.
    """
    folder = Path(model.path)
    if not folder.is_dir():
        return {"hub": model.path, "revision": model.revision or _current_commit(model.path)}
    identity: dict[str, Any] = {"files": _fingerprints(folder, (*MODEL_FILES, *TOKENIZER_PARTS))}
    identity["of_run"] = is_run_or_checkpoint(folder)  # decides the prefix of models that do not record it
    tokenizer = tokenizer_folder(model.path)
    if tokenizer != model.path:
        identity["tokenizer"] = _fingerprints(Path(tokenizer), TOKENIZER_PARTS)
    if (folder / ADAPTER_CONFIG).is_file():
        base, revision = read_adapter_base(folder)
        identity["base"] = model_identity(ModelName(base, base, revision=revision))
    return identity


def versions() -> dict[str, str]:
    """Versions of the packages that compute the figures."""
    return {name: version(name) for name in VERSIONS}


@cache  # one request to the Hub for each model, not one for each figure
def _current_commit(name: str) -> str | None:
    return resolve_commit(name, None)


def _fingerprints(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.name: _fingerprint(path) for path in sorted(files)}


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    with path.open("rb") as file:
        if stat.st_size <= READ_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(-ENDS, 2)
        ends.update(file.read())
    return f"{ends.hexdigest()} {stat.st_size} {stat.st_mtime_ns}"
