"""Reads a checkpoint of Tidy-STLMs without running any code in it.

Such a file is a pickle, and loading a pickle can call any function of any module. So torch's restricted
unpickler (`weights_only=True`) reads it, with an explicit list of classes: those of an OmegaConf config, and
those of the state of numpy's random generator, which older checkpoints contain. A file with any other class
is refused, and the error names the class.
"""

import collections
import errno
import math
import re
import typing
import warnings
import zipfile
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
# Limits of a config, far above those of Tidy-STLMs, which have some 200 values.
DEEPEST = 40
MOST_VALUES = 10_000
LARGEST_NUMBER = 2**63 - 1
SHARED = 4  # all tensors may have so many times the file's bytes: tied weights have several names


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
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict) or not {"model", "config"} <= content.keys():
        raise UserError(f"{path}: not a checkpoint of Tidy-STLMs; one holds `model` and `config`")
    config = _Plain(path).value(content["config"], "config")
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is no mapping of sections such as `model`")
    numbers = (content.get(key) for key in STEP_KEYS)
    steps = (number for number in numbers if type(number) is int and 0 <= number <= LARGEST_NUMBER)
    return TidyCheckpoint(_weights(content["model"], path), config, next(steps, None))


class _Plain:
    """Copies a config to plain values. Raises UserError for everything else.

    A pickle can build what no config holds: a dict inside itself, lists that share their parts and would fill
    the memory when copied, containers of OmegaConf with wrong contents. So this reads their content without
    calling OmegaConf, and counts the values.
    """

    def __init__(self, path: Path):
        self.path, self.n_values = path, 0

    def value(self, value: Any, key: str, depth: int = 0) -> Any:
        from omegaconf import DictConfig, ListConfig
        from omegaconf.nodes import AnyNode

        self.n_values += 1
        if depth > DEEPEST:
            raise self.wrong(key, "is nested too deeply, or holds itself")
        if self.n_values > MOST_VALUES:
            raise self.wrong(key, f"the config holds more than {MOST_VALUES:,} values")
        if isinstance(value, DictConfig | ListConfig):
            return self.value(vars(value).get("_content"), key, depth + 1)
        if isinstance(value, AnyNode):
            return self.value(vars(value).get("_val"), key, depth + 1)
        if isinstance(value, dict):
            return {
                str(self.value(name, key, depth + 1)): self.value(item, f"{key}.{name!s:.60}", depth + 1)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item, f"{key}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:  # it could read secrets
            text = one_line(value, 60)
            raise self.wrong(key, f"{text!r} is an interpolation, which is not resolved; write the value")
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise self.wrong(key, "holds a number that is too large")
        if not isinstance(value, str | int | float | None):
            raise self.wrong(key, f"holds {type(value).__name__}, no plain value")
        return value

    def wrong(self, key: str, problem: str) -> UserError:
        return UserError(f"{self.path}: {one_line(key, 120)}: {problem}")


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
    _check_zip(path)
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


def _check_zip(path: Path) -> None:
    """Raise UserError for a compressed file: a few of its bytes could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # an older format, or damaged: torch says so
    if size > path.stat().st_size:
        raise UserError(f"{path}: is compressed, which no checkpoint is; save it again by torch.save")


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


def _weights(state: Any, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: `model` is no state dict")
    weights, n_bytes = {}, 0
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            where = one_line(name, 60) if isinstance(name, str) else f"a key of type {type(name).__name__}"
            raise UserError(f"{path}: {where}: `model` is no state dict, which maps names to tensors")
        kind = f"{tensor.dtype} ({tensor.layout}, on {tensor.device.type})"
        is_plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_nested
        if not is_plain or not tensor.is_floating_point():
            raise UserError(f"{path}: {one_line(name, 60)}: holds {kind}, not plain weights")
        n_bytes += math.prod(tensor.shape) * tensor.itemsize
        if n_bytes > SHARED * path.stat().st_size:  # views can be larger than what they view
            raise UserError(
                f"{path}: {one_line(name, 60)}: the weights are larger than the file that holds them"
            )
        while name.startswith(WRAPPERS):
            name = name[name.index(".") + 1 :]
        weights[name] = tensor
    return weights
