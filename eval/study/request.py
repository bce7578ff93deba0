"""What a study asks of every model, and the record of what one model gave."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import UNSET, UnsetType

from tidy_stlms.configs.records import Output
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.recall.results import DocumentScore, ProbeResult
from tidy_stlms.eval.scoring.self_check import SelfCheck
from tidy_stlms.eval.study.benchmarks import TaskResult
from tidy_stlms.eval.study.prompts import Prompt, PromptResult
from tidy_stlms.eval.styles import OVERLAP, SUITE_STYLE

TOP_K = 5  # the most probable tokens that are kept for each probe, and at each step after a prompt


@dataclass(frozen=True)
class StudyRequest:
    """What is measured of every model of a study, and how."""

    bank: FactBank | None = None
    """Measure recall of its probes."""
    style: str = SUITE_STYLE
    """How they are asked, one of STYLES of `recall/results.py`."""
    guessable: Sequence[str] = ()
    """Which guessers that know no facts beat chance in the bank, a sentence each."""
    prompts: Sequence[Prompt] = ()
    documents: Sequence[str] = ()
    """Held-out text."""
    heldout_style: str = OVERLAP
    """How documents longer than the window are read, one of HELDOUT_STYLES of `recall/results.py`."""
    benchmarks: Sequence[str] = ()
    """Tasks of lm-eval."""
    linear_probes: Sequence[str] = ()
    """Tasks of GLUE."""
    prefix: str | None = None
    """What stands before each text, as for `prefix_of`; None for each model's own."""
    generate: bool = True
    """Generate freely after each probe's prompt too."""
    max_new_tokens: int = 10
    """Length of a prompt's continuation."""
    top_k: int = TOP_K
    """The most probable tokens at each step of a prompt's continuation."""
    limit: int | None = None
    """Examples of each benchmark and linear probe; None for all."""
    num_fewshot: int | None = None
    """Examples shown before each question of a benchmark; None for the task's own number."""
    data_dir: Path | None = None
    """Local copies of the benchmarks' data."""
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    trust_remote_code: bool = False
    cache: Path | None = None
    """The folder in which results are kept; None: keep nothing."""
    progress: bool = False


class ModelInfo(Output, frozen=True, kw_only=True):
    """What a model is, and how it was measured: its entry in the study's `models`."""

    model: str
    """The label."""
    path: str
    """The model's folder or its id on the Hub."""
    revision: str | None
    """Branch, tag or commit of a model of the Hub; null if none was given."""
    step: int | None
    """Optimizer steps of training; null if the model belongs to no run."""
    run: str | None
    """The run's folder; null if the model belongs to no run."""
    device: str
    """The device that measured it, such as `cpu` or `cuda:0`."""
    dtype: str
    """The type of the weights, such as `float32`."""
    attention: str | None = None
    """The implementation of attention, such as `sdpa`; null if the model has none, or was not loaded."""
    packing: str | None = None
    """How the model read the documents of a row in training: `apart` or `joined`; null if it belongs to no
    run."""
    prefix: str | None = None
    """The special token before each text that the model was asked: `bos`, `eos` (end-of-text) or `none`;
    `own` for other tokens that the tokenizer adds; null if the model could not be loaded. Probes in BEAR's
    style have BOS, whatever this says."""
    prefix_as_trained: bool | None = None
    """Whether the same stood before each document in training; null if that is not known."""
    self_check: SelfCheck | None = None
    """Differences that the self-check found when the model was last loaded; null if it could not be."""
    parameters: int | None
    """The number of parameters; null if the model could not be loaded, like the next."""
    tokenizer: str | None
    """A hash that is equal for equal tokenizers."""
    seconds: float | None
    """Time to measure recall; null without recall, like the next."""
    probes_per_second: float | None
    """The number of probes divided by `seconds`."""
    error: str | None
    """Why the model or its recall failed, in one line; null if neither did."""
    flags: dict[str, int] | UnsetType = UNSET
    """The number of probes with each flag; left out without recall."""


@dataclass
class Measurement:
    """What one model gave. Sections that were not asked for, or that failed, are empty."""

    name: ModelName
    info: ModelInfo
    results: list[ProbeResult] = field(default_factory=list)
    prompts: list[PromptResult] = field(default_factory=list)
    documents: list[DocumentScore] = field(default_factory=list)
    benchmarks: dict[str, TaskResult] = field(default_factory=dict)
    """By task of lm-eval, and by `probe:TASK` for linear probes."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why a section failed, in one line; by `recall`, `heldout`, `prompts`, `benchmarks`, or `model`."""

    @property
    def failed(self) -> bool:
        return bool(self.errors) or any("error" in result for result in self.benchmarks.values())
