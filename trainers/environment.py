"""The content of a run's environment.json: versions, machine and stream."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tidy_stlms.configs.schema import STLMTrainingArguments
from tidy_stlms.eval.models.inputs import attention_of
from tidy_stlms.trainers.stream import Geometry

PACKAGES = ("tidy-stlms", "torch", "transformers", "datasets", "tokenizers", "accelerate", "faker")


@dataclass(frozen=True)
class CorpusCounts:
    """How much text a run has."""

    sources: dict[str, int]
    """Documents by file or dataset, those that are held out by share included."""
    documents: dict[str, int]
    """Documents of `train` and `validation`."""
    tokens: dict[str, int]
    """Their tokens, end-of-text tokens included."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """environment.json: what is needed, beside the config, to judge or repeat a run."""

    run_id: str = ""
    """A random name of the run, which its checkpoints store too. Empty until the run folder is laid out."""
    versions: dict[str, str]
    """Versions of Python and of the packages that a run depends on."""
    git_commit: str | None
    """The commit of this project's own code; null where it is installed without its repository."""
    platform: str
    """Operating system and processor."""
    device: str
    """The device that trained, such as `cpu` or `cuda:0`."""
    attention: str | None = None
    """The implementation of attention, such as `sdpa`; null if the model has none. Old files lack it and the
    next."""
    precision: str = "float32"
    """What training and its evaluations computed in: `float32`, `bfloat16` or `float16`. Weights are
    `float32`."""
    threads: int
    """Threads that torch uses in one process."""
    processes: int
    """The number of processes that trained."""
    stream: Geometry
    """How positions of the training stream map to optimizer steps, and what they hold."""
    corpus: CorpusCounts
    """Documents and tokens that were read."""


def describe_environment(
    args: STLMTrainingArguments, model: PreTrainedModel, geometry: Geometry, corpus: CorpusCounts
) -> Environment:
    """The environment of this process, without a run's id."""
    return Environment(
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        git_commit=_git_commit(),
        platform=platform.platform(),
        device=str(args.device),
        attention=attention_of(model),
        precision="bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        threads=torch.get_num_threads(),
        processes=args.world_size,
        stream=geometry,
        corpus=corpus,
    )


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
