"""Checks cheaply whether a folder or a Hub id is a model, before anything long starts."""

import re
from pathlib import Path

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import read_json_object
from tidy_stlms.configs.reading import reason_of
from tidy_stlms.eval.models.sizes import check_numbers

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
# Weights in one file, or the list of several, in the order in which transformers looks for them.
WHOLE_OR_INDEX = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
BASE_IS_ADAPTER = "is an adapter itself; merge it into its own base first (peft's merge_and_unload)"
LONGEST_NAME = 1_000
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT = 10.0  # seconds


def check_model_path(path: str | Path, *, revision: str | None = None) -> None:
    """Raise UserError, naming the path, if there is no model.

    In a folder, it reads the config and only looks for weights. An id that is not in the cache costs one
    request to the Hub.
    """
    name, folder = str(path), Path(path)
    if len(name) > LONGEST_NAME:  # the file system would refuse it with the whole name
        raise UserError(f"{name:.60}...: not a model (the name is too long); give a folder or a Hub id")
    if folder.is_dir():
        _check_folder(folder)
    elif folder.exists():
        raise UserError(f"{name}: not a model (a file); give a folder with {CONFIG} and weights, or a Hub id")
    elif not may_be_hub_id(name):
        raise UserError(f"{name}: not a model (no such folder); give a model folder or a Hub id")
    else:
        _check_hub_id(name, revision)


def may_be_hub_id(name: str) -> bool:
    """Whether a name has the form of a Hub id and does not look like a path.

    A path has a dot in front, or an existing folder before its last slash.
    """
    is_path = name.startswith(".") or ("/" in name and Path(name).parent.is_dir())
    return HUB_ID.fullmatch(name) is not None and not is_path


def resolve_commit(name: str, revision: str | None) -> str | None:
    """The commit that `revision` of a Hub model stands for now.

    If the Hub cannot be reached, the commit in the cache; None if there is none there.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        return HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT).sha
    except (OSError, HTTPError):
        files = (try_to_load_from_cache(name, file, revision=revision) for file in (CONFIG, ADAPTER_CONFIG))
        # the cache keeps the files of a commit in a folder that has the commit's name
        return next((Path(file).parent.name for file in files if isinstance(file, str)), None)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's weights in a format that `load_model` reads."""
    return any(next(folder.glob(pattern), None) for pattern in WEIGHTS)


def read_adapter_base(folder: Path) -> tuple[str, str | None]:
    """The base model of the adapter in a folder, and its revision.

    Raises UserError if adapter_config.json is damaged or names none.
    """
    adapter = read_json_object(folder / ADAPTER_CONFIG)
    base, revision = adapter.get("base_model_name_or_path"), adapter.get("revision")
    if not isinstance(base, str) or not base:
        raise UserError(f"{folder}/{ADAPTER_CONFIG}: base_model_name_or_path is missing; name the base model")
    if not isinstance(revision, str | None):
        raise UserError(f"{folder}/{ADAPTER_CONFIG}: revision must be text, got {shown(revision)}")
    return base, revision


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER_CONFIG).is_file():
        base, revision = read_adapter_base(folder)
        if (Path(base) / ADAPTER_CONFIG).is_file():  # two adapters could name each other
            raise UserError(f"{folder}: its base model {base} {BASE_IS_ADAPTER}")
        try:
            check_model_path(base, revision=revision)
        except UserError as error:
            raise UserError(f"{folder}: its base model cannot be read: {error}") from None
    elif (folder / CONFIG).is_file():
        check_numbers(read_json_object(folder / CONFIG), f"{folder / CONFIG}")
    elif checkpoints := sorted(folder.glob("checkpoint-*")):
        raise UserError(
            f"{folder}: a run that has not ended; take a checkpoint ({folder}@last), or go on with the run "
            f"(it has {len(checkpoints)})"
        )
    else:
        raise UserError(f"{folder}: not a model (no {CONFIG}); give a model folder or a Hub id")
    if not has_weights(folder):
        raise UserError(f"{folder}: not a model (no weights beside its config); was its run cut off?")
    file = next((folder / name for name in WHOLE_OR_INDEX if (folder / name).is_file()), None)
    if file is not None and file.suffix == ".json":
        _check_index(file)


def _check_index(index: Path) -> None:
    """Raise UserError if the list of a model's weight files names one that is not beside it."""
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict):
        raise UserError(f"{index}: weight_map must map tensors to files; copy the file again")
    for name in files.values():
        # a name only: weights are read from this folder and nowhere else
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise UserError(f"{index}: {shown(name)} is not the name of a file beside it")
        if not (index.parent / name).is_file():
            raise UserError(f"{index}: {name:.60} is missing; copy it too")


def _check_hub_id(name: str, revision: str | None) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    names = (CONFIG, ADAPTER_CONFIG)
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in names):
        return
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        reason = "no such folder, and no such model on the Hub, or a private one that needs `hf auth login`"
        raise UserError(f"{name}: not a model ({reason})") from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: the model on the Hub has no revision {revision!r}") from None
    except (OSError, HTTPError) as error:
        reason = f"no such folder, and the Hub cannot be asked: {reason_of(error)}"
        raise UserError(f"{name}: not a model ({reason})") from None
    if not any(sibling.rfilename in names for sibling in info.siblings or []):
        raise UserError(f"{name}: not a model (the Hub's repository has no {CONFIG})")
