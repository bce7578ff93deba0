"""What environment.json says of a run: versions, machine and stream."""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from tidy_stlms.configs.schema import STLMTrainingArguments
from tidy_stlms.trainers.stream import Geometry

PACKAGES = ("tidy-stlms", "torch", "transformers", "datasets", "tokenizers", "accelerate", "faker")


def describe_environment(args: STLMTrainingArguments, geometry: Geometry) -> dict:
    """What is needed, beside the config, to judge or repeat a run."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "device": str(args.device),
        "threads": torch.get_num_threads(),
        "processes": args.world_size,
        "stream": asdict(geometry),
    }


def _git_commit() -> str | None:
    """The commit of this project's own code; None where it is installed without its repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
        )
    except OSError:  # there is no git
        return None
    return result.stdout.strip() or None
