"""Reads a checkpoint of Tidy-STLMs without running any code in it.

Such a file is a pickle, and loading a pickle can call any function of any module. So torch's restricted
unpickler (`weights_only=True`) reads it, with an explicit list of classes: those of an OmegaConf config, and
those of the state of numpy's random generator, which older checkpoints contain. A file with any other class
is refused, and the error names the class.
"""

import collections
import errno
import re
import typing
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidy_stlms.configs.errors import UserError, one_line

# Prefixes that torch.compile and DistributedDataParallel add to the names of parameters.
WRAPPERS = ("_orig_mod.", "module.")
# The key of the number of steps in Tidy-STLMs, and in Super Tiny Language Models.
STEP_KEYS = ("iteration", "iter_num")
CUT_OFF = "is cut off or damaged; copy it again"


@dataclass(frozen=True)
class TidyCheckpoint:
    """The parts of a checkpoint that are used. Optimizer and schedules are left out."""

    weights: dict[str, torch.Tensor]
    """The state dict, without the prefixes of torch.compile and DDP."""
    config: dict[str, Any]
    """The whole config as plain values, without interpolations."""
    iteration: int | None
    """The iteration in the file; None if it has none."""


def read_tidy_checkpoint(path: str | Path) -> TidyCheckpoint:
    """Read a `.pt` file of Tidy-STLMs.

    Raises UserError, in one line that names the file, for a file that is missing, cut off or no checkpoint,
    for a class outside the list (the error names it, and it never runs), and for a config with interpolations
    or with values that are not plain.
    """
    content = _load(Path(path))
    if not isinstance(content, dict) or not {"model", "config"} <= content.keys():
        raise UserError(f"{path}: not a checkpoint of Tidy-STLMs; one holds `model` and `config`")
    config = _plain(content["config"], path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is no mapping of sections such as `model`")
    _check_plain(config, str(path))
    steps = (content[key] for key in STEP_KEYS if isinstance(content.get(key), int))
    return TidyCheckpoint(_weights(content["model"], path), config, next(steps, None))


def _check_plain(config: Any, where: str, key: str = "config") -> None:
    """Raise UserError for `${...}`, which could read secrets, and for values that are not plain."""
    if isinstance(config, dict):
        for name, value in config.items():
            _check_plain(name, where, f"{key}.{name}")
            _check_plain(value, where, f"{key}.{name}")
    elif isinstance(config, list):
        for index, value in enumerate(config):
            _check_plain(value, where, f"{key}[{index}]")
    elif isinstance(config, str) and "${" in config:
        raise UserError(
            f"{where}: {key}: {config!r} is an interpolation, which is not resolved; write the value"
        )
    elif not isinstance(config, str | int | float | None):
        raise UserError(f"{where}: {key}: holds {type(config).__name__}, no plain value")


def _allowed() -> list[Any]:
    """The classes and functions that a checkpoint may name.

    They are those in the pickle of a DictConfig of plain values, by OmegaConf 2.3 and 2.4, and of
    `numpy.random.get_state()`, by numpy 1 and 2.
    """
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode

    containers = [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
    rebuild = np.empty(0).__reduce__()[0]  # numpy 1 and 2 name it after different modules
    functions = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    arrays = [*functions, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    return [*containers, *arrays, typing.Any, collections.defaultdict, dict, list, int]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a .pt file")
    try:
        # The list is valid only inside this block. torch would warn of a plain pickle.
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch looked for a position behind the end of the file
            raise UserError(f"{path}: {CUT_OFF}") from None
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # the outermost edge: the bytes of a foreign file can fail in any way
        raise UserError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = one_line(error)
    refused = re.search(r"GLOBAL ([\w.]+)|function <?(?:class |function )?'?([\w.]+)", text)
    if refused:
        return (
            f"holds {refused[1] or refused[2]}, which is not on the list of what a checkpoint may hold; it "
            "was refused and not run"
        )
    if "central directory" in text or "unexpected EOF" in text or isinstance(error, EOFError):
        return CUT_OFF
    return "cannot be read as a checkpoint written by torch.save"


def _plain(config: Any, path: str | Path) -> Any:
    """OmegaConf's containers as dicts and lists. Interpolations stay texts, such as `${seed}`."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(config, dict):
        return {str(key): _plain(value, path) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(value, path) for value in config]
    if not isinstance(config, DictConfig | ListConfig):
        return config
    try:
        return OmegaConf.to_container(config, resolve=False)
    except (
        Exception
    ) as error:  # the outermost edge: a pickle can build containers that OmegaConf never builds
        raise UserError(f"{path}: its config is damaged ({one_line(error, 100)})") from None


def _weights(state: Any, path: str | Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: `model` is no state dict")
    weights = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(f"{path}: {name}: `model` is no state dict, which maps names to tensors")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise UserError(f"{path}: {name}: holds {tensor.dtype} ({tensor.layout}), not plain weights")
        while name.startswith(WRAPPERS):
            name = name[name.index(".") + 1 :]
        weights[name] = tensor
    return weights
