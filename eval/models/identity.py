"""What makes two models the same: the fingerprint of a model, by which its results are kept."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidy_stlms.configs.files import read_json
from tidy_stlms.eval.models.load import ADAPTER_CONFIG, resolve_commit, tokenizer_folder
from tidy_stlms.eval.models.names import ModelName

# Of a folder of `save_pretrained`, what its figures follow from; of a run folder the rest may change.
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
READ_WHOLE = 2**26  # bytes; of larger files the ends, the size and the time of the last change are taken
ENDS = 2**20
# Packages whose next release may change a number's last digits, or mend it.
VERSIONS = ("torch", "transformers", "tokenizers", "peft")


def model_identity(model: ModelName) -> dict[str, Any]:
    """What the model's figures follow from, JSON-serialisable and equal for equal models.

    A model of the Hub is known by its commit. Of a folder the files are hashed; from those above 64 MB the
    first and last megabyte, their size and the time of their last change.
    """
    folder = Path(model.path)
    if not folder.is_dir():
        return {"hub": model.path, "revision": model.revision or _now(model.path)}
    identity: dict[str, Any] = {"files": _fingerprints(folder, (*MODEL_FILES, *TOKENIZER_PARTS))}
    tokenizer = tokenizer_folder(model.path)
    if tokenizer != model.path:
        identity["tokenizer"] = _fingerprints(Path(tokenizer), TOKENIZER_PARTS)
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = read_json(folder / ADAPTER_CONFIG)
        base, revision = adapter["base_model_name_or_path"], adapter.get("revision")
        identity["base"] = model_identity(ModelName(base, base, revision=revision))
    return identity


def versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONS}


@cache
def _now(name: str) -> str | None:
    return resolve_commit(name, None)


def _fingerprints(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.name: _fingerprint(path) for path in sorted(found)}


def _fingerprint(path: Path) -> str:
    state = path.stat()
    with path.open("rb") as file:
        if state.st_size <= READ_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(-ENDS, 2)
        ends.update(file.read())
    return f"{ends.hexdigest()} {state.st_size} {state.st_mtime_ns}"
