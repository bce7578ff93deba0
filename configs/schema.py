"""Every key of a run's configuration: a dataclass for each section, and a docstring below each field.

    stlm train --keys            # prints all keys with their types, defaults and docstrings

A key that is left out of the YAML has the default given here. `training` is transformers'
TrainingArguments, with other defaults, which suit a small model.
"""

import inspect
import os
import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import torch
from omegaconf import MISSING
from transformers import SchedulerType, TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from tidy_stlms.configs.errors import UserError, did_you_mean, one_line, shown
from tidy_stlms.configs.processes import check_devices, check_launcher, launched_processes, needs_cpu
from tidy_stlms.configs.reading import reading

# The default schedule ends at this share of the learning rate, unless its arguments give another end.
DEFAULT_SCHEDULE, MIN_LR_RATE = "cosine_with_min_lr", 0.1
# Arguments of the Trainer that users may not change.
FIXED = {
    "logging_nan_inf_filter": False,
    "train_sampling_strategy": "sequential",
    "remove_unused_columns": False,
    "auto_find_batch_size": False,
    "ignore_data_skip": False,
    "save_only_model": False,
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
}
# Arguments that only other loops of evaluation, or scripts of transformers, read.
WITHOUT_EFFECT = (
    "do_train",
    "do_eval",
    "do_predict",
    "prediction_loss_only",
    "label_names",
    "include_for_metrics",
    "batch_eval_metrics",
    "eval_do_concat_batches",
    "eval_use_gather_object",
    "eval_accumulation_steps",
    "greater_is_better",
)
COUNTED_TOKENS = [True, False, "all", "non_padding", "no"]  # of include_num_input_tokens_seen
# Keys of the Trainer that take one of a few words, which their fields do not list as `choices`.
ENUMS: dict[str, type[Enum]] = {
    "optim": OptimizerNames,
    "lr_scheduler_type": SchedulerType,
    "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": SaveStrategy,
    "hub_strategy": HubStrategy,
}
WORDS_LIMIT = 200  # characters
TRAINER_SCHEDULE_ARGUMENTS = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")


@dataclass
class ModelSection:
    """What is trained: a model from scratch (`type`, `config`), or an existing one (`name_or_path`)."""

    type: str = "stlm"
    """From scratch: `stlm` (a decoder over tokens), `stlm_byte` (bytes pooled into words), or any causal
    language model of transformers (`gpt2`, `gpt_neox`, `mamba`, ...) to compare with."""
    name_or_path: str | None = None
    """A Hub id or folder of a causal language model to go on training; leaves `config` unused."""
    revision: str | None = None
    """Branch, tag or commit of `name_or_path`."""
    trust_remote_code: bool = False
    """Run the model's own code from the Hub. Only for repositories you trust."""
    license: str | None = None
    """Licence named on the model card, as the Hub spells it: `mit`, `apache-2.0`, ..."""
    config: dict[str, Any] | None = field(default_factory=dict)
    """For a model from scratch: fields of STLMConfig (`hidden_size`, ...), or of the config of another
    `type`. `null` removes the fields of earlier files, for training `name_or_path` or for other fields."""


@dataclass
class TokenizerTraining:
    """A byte-level BPE, trained on the corpus and on the bank's statements, of control facts too."""

    vocab_size: int = 2048
    """Entries of the vocabulary, the two special tokens and the 256 bytes included."""
    max_documents: int = 200_000
    """Documents of the corpus that are read, from its beginning."""


@dataclass
class TokenizerSection:
    """The tokenizer: an existing one, one that is trained for this run, or bytes. Give one of the three keys.

    Without any of them, it is the tokenizer of `model.name_or_path`. For a model from scratch it is GPT-2's,
    for a byte model bytes.
    """

    name_or_path: str | None = None
    """A Hub id or folder that AutoTokenizer can read."""
    train: TokenizerTraining | None = None
    """Train a tokenizer for this run."""
    bytes: bool = False
    """Use bytes as tokens: 256 bytes, `<|pad|>` and `<|endoftext|>`."""


@dataclass
class DataSection:
    """The corpus, and how it becomes rows of tokens."""

    name: str = "synthetic"
    """`files`, `synthetic` (built in), a short name of configs/datasets.yaml, or a Hub dataset id."""
    config: str | None = None
    """The Hub dataset's configuration, such as `20231101.simple`."""
    split: str | None = None
    """The Hub dataset's split, or a part of it: `validation`, `train[:1%]`, ...; `train` when left out."""
    train_files: list[str] | str | None = None
    """For `files`: paths or globs of .txt, .jsonl, .ndjson, .json, .csv, .tsv or .parquet files; all but
    .parquet may be compressed (.gz, .zst). An existing path is not a glob."""
    validation_files: list[str] | str | None = None
    """Held-out files; without them `validation_fraction` of the documents is held out."""
    text_column: str = "text"
    """The column that holds a document's text."""
    validation_fraction: float = 0.01
    """Share of the documents held out, chosen by `training.seed`."""
    documents: str = "block"
    """What a document is in a .txt file: a `block` between blank lines, a `line`, or the whole `file`."""
    separator: str | None = None
    """The line between documents of a .txt file, such as `<|endoftext|>`. It belongs to no document. Blank
    lines are then part of the text."""
    max_documents: int | None = None
    """Use at most this many documents, the first ones. Of a Hub dataset, only what they need is downloaded.
    For `synthetic`: make this many."""
    context_window: int | None = None
    """Tokens in a row; the model's max_position_embeddings when left out."""
    packing: str | None = None
    """How the documents of a row are read: `apart` (each by itself, positions from its end-of-text) or
    `joined` (each after those before it). When left out, `apart` if the model can, else `joined`."""
    cache_dir: str | None = None
    """Folder for prepared corpora; $STLM_CACHE or ~/.cache/tidy-stlms when left out."""


@dataclass
class FactsSection:
    """The facts to learn: a bank on disk, or a spec to generate one from."""

    bank: str | None = None
    """A bank's folder, or `hub:owner/name[@revision]`."""
    spec: str | None = None
    """A spec such as configs/facts/people.yaml; the bank is written into the run folder."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Keys of the spec to change, such as `people: 16`."""
    seed: int | None = None
    """Seed of the generated bank, apart from `training.seed`; the spec's own when left out."""


@dataclass
class InjectionSection:
    """When, how often and where the training stream states injected facts."""

    enabled: bool = True
    """`false`: no injection, and everything else the same (the twin run)."""
    exposures: int | None = None
    """How often each fact is seen in the whole run, and as often again in its questions if the bank trains on
    them. This or `fraction`."""
    arms: dict[str, int] = field(default_factory=dict)
    """Exposures of arms, by name. They replace the numbers in the bank and `exposures`."""
    fraction: float | None = None
    """Share of all training tokens that injected statements take. This or `exposures`."""
    strategy: str = "uniform"
    """`uniform` (evenly spaced), `random`, `start` or `end` (within `window` of the span)."""
    span: str = "run"
    """What the strategy spreads over: the whole `run`, or every `pass` over the corpus."""
    window: float = 0.25
    """For `start` and `end`: the share of the span that is used."""
    placement: str = "splice"
    """`splice`: between documents of an ordinary row; `row`: alone in a row, padding masked."""
    seed: int | None = None
    """Seed of positions and wordings; `training.seed` when left out."""


@dataclass
class DropoutSection:
    """Dropout that changes during training (arXiv:2409.05423); the model's own dropout without `schedule`."""

    schedule: str | None = None
    """`constant` (`start`), `linear` (from `start` to `end`) or `triangle` (up to `end` and back)."""
    start: float = 0.0
    """Probability at the beginning."""
    end: float = 0.1
    """Probability at the end (`linear`) or at the peaks (`triangle`)."""
    begin: float = 0.0
    """When the change begins: up to 1, a share of all steps; above 1, a number of steps."""
    until: float = 1.0
    """When it ends, in the same units. The probability does not change before `begin` and after `until`."""
    cycles: int = 1
    """Number of triangles."""


@dataclass
class EvaluationSection:
    """What is measured before, during and after training."""

    recall_steps: int = 100
    """Steps between measurements of recall, which come at step 0 and at the end too; 0: only these two."""
    generate: bool = True
    """Also generate after each prompt, for `exact_match` and `containment`."""
    batch_tokens: int | None = None
    """Tokens in one forward pass of the scorer; 1,024 on a CPU and 8,192 elsewhere when left out."""
    validation_rows: int = 256
    """At most this many held-out rows, evenly spaced, for the validation loss."""
    benchmarks: list[str] = field(default_factory=list)
    """Tasks of lm-eval to run, such as `[blimp, arc_easy]`. Their scores go to metrics.jsonl."""
    benchmark_steps: int = 0
    """Steps between their runs, which come at step 0 and at the end too; 0: only these two."""
    benchmark_limit: int | None = None
    """At most this many examples of each task."""
    benchmark_data_dir: str | None = None
    """Folder with local copies of their datasets. Datasets without a copy are read from the Hub."""
    prompts: list[dict[str, str]] = field(default_factory=list)
    """Prompts to watch in generations.jsonl: `{sentence: ..., answer: ...}`. The answer may be left out.
    `joint: ""` if there is no space between the two."""
    prompt_steps: int | None = None
    """Steps between records of the prompts; `recall_steps` when left out."""
    max_new_tokens: int = 16
    """Length of their continuations, in tokens."""
    top_k: int = 5
    """Number of most probable tokens to record at each step of a continuation."""


@dataclass
class LoggingSection:
    """Names for W&B and Trackio (switched on by training.report_to), and the level of log messages."""

    project: str = "tidy-stlms"
    """Project of W&B and Trackio."""
    group: str | None = None
    """W&B group, for the runs of one sweep."""
    tags: list[str] = field(default_factory=list)
    """W&B tags."""
    level: str = "warning"
    """Level of log messages on the terminal: debug, info, warning or error."""


@dataclass
class STLMTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments, with defaults for training a small model on a stream."""

    output_dir: str = ""  # type: ignore[assignment]
    """The run folder; `outputs/` and the name of the last config file when left out."""
    resume_from_checkpoint: bool | str | None = None  # type: ignore[assignment]
    """`true`: go on from the newest whole checkpoint of `output_dir`, or from the start if it has none. A
    path: go on from this checkpoint."""
    max_steps: int = -1
    """Optimizer steps. If it is not positive, the run makes `num_train_epochs` passes over the corpus."""
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 8
    """Rows of each process. Rows of a step: this times processes times `gradient_accumulation_steps`."""
    per_device_eval_batch_size: int = 8
    learning_rate: float = 6e-4
    lr_scheduler_type: str = "cosine_with_min_lr"
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """Arguments of the schedule. For `cosine_with_min_lr`, `min_lr_rate` is 0.1 if neither it nor `min_lr` is
    given."""
    warmup_steps: float = 0.05
    """Below 1: a share of all steps."""
    weight_decay: float = 0.1
    """Weight decay of matrices. Biases, norms and other vectors are not decayed."""
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    logging_steps: float = 10
    logging_first_step: bool = True
    eval_strategy: str = "steps"
    eval_steps: float | None = 100
    save_strategy: str = "steps"
    save_steps: float = 500
    save_total_limit: int | None = 2
    ddp_find_unused_parameters: bool | None = False
    parallelism_config: Any = None
    """Not supported: several processes share the rows of a step (DDP)."""
    train_sampling_strategy: str = "sequential"
    """Fixed: the stream itself shuffles, so that the rows of a step depend only on its number."""
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False
    """Fixed: the filter would hide a loss that is not finite. Training must stop at such a loss."""

    def __post_init__(self):
        self._check_fixed()
        self._check_effect()
        self._check_choices()
        self._check_unsupported()
        self._check_schedule()
        check_launcher()
        self._check_precision()
        if needs_cpu():
            self.use_cpu = True
        check_devices()
        if not torch.cuda.is_available():
            self.dataloader_pin_memory = False  # without a GPU it has no effect, and torch warns
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()  # a progress bar is unreadable in a log file
        with reading("training"):
            super().__post_init__()
        if (self.accelerator_config.gradient_accumulation_kwargs or {}).get("num_steps"):
            raise UserError(
                "training.accelerator_config.gradient_accumulation_kwargs.num_steps: set "
                "training.gradient_accumulation_steps instead"
            )
        if self.accelerator_config.split_batches or self.accelerator_config.dispatch_batches:
            raise UserError(
                "training.accelerator_config: split_batches and dispatch_batches would change which process "
                "sees which rows; remove them"
            )

    def _check_fixed(self) -> None:
        for key, value in FIXED.items():
            if getattr(self, key) != value:
                raise UserError(
                    f"training.{key}={getattr(self, key)!r}: must stay {value!r}, or what a run sees, saves "
                    "or measures would not be what its report says; remove the key"
                )

    def _check_effect(self) -> None:
        """Refuse keys that nothing reads: a user would believe that they act."""
        without = dict.fromkeys(WITHOUT_EFFECT, "has no effect here")
        if not self.gradient_checkpointing:
            without["gradient_checkpointing_kwargs"] = "has no effect without gradient_checkpointing=true"
        for argument in fields(self):
            given = getattr(self, argument.name)
            if argument.name in without and given not in (argument.default, []):
                raise UserError(f"training.{argument.name}={given}: {without[argument.name]}; remove it")

    def _check_choices(self) -> None:
        """Raise UserError, naming the key, for a wrong word; TrainingArguments names only the word."""
        choices = {argument.name: argument.metadata.get("choices") for argument in fields(self)}
        choices |= {key: [word.value for word in words] for key, words in ENUMS.items()}
        choices["include_num_input_tokens_seen"] = COUNTED_TOKENS
        for key, words in choices.items():
            value = getattr(self, key)
            if words and value is not None and value not in words:
                hint = did_you_mean(str(value), map(str, words))
                listed = one_line(", ".join(map(str, words)), WORDS_LIMIT)
                raise UserError(f"training.{key}={shown(value)}: must be one of {listed}{hint}")

    def _check_unsupported(self) -> None:
        if self.hub_token:
            raise UserError(
                "training.hub_token: would be written into config.yaml; remove it, and log in with "
                "`hf auth login` or set HF_TOKEN"
            )
        if self.ddp_backend is not None and launched_processes() == 1:
            raise UserError(
                f"training.ddp_backend={self.ddp_backend}: is for several processes, and this is the only "
                "one; remove it"
            )
        if self.hub_strategy in ("checkpoint", "all_checkpoints"):
            raise UserError(
                f"training.hub_strategy={self.hub_strategy}: would push optimizer states; choose every_save "
                "or end"
            )
        if self.save_strategy == "best":
            raise UserError("training.save_strategy=best: not supported; choose steps, epoch or no")
        for key in ("fsdp", "deepspeed", "parallelism_config"):
            if getattr(self, key) not in (None, False, "", []):  # what TrainingArguments takes for off
                raise UserError(f"training.{key}: not supported; remove it, and use several processes (DDP)")

    def _check_schedule(self) -> None:
        """Refuse arguments of another schedule, and a schedule without those that it needs."""
        self.lr_scheduler_kwargs = schedule_arguments(self.lr_scheduler_type, self.lr_scheduler_kwargs)
        parameters = _schedule_parameters(self.lr_scheduler_type)
        if "kwargs" in parameters:
            return
        given = self.lr_scheduler_kwargs or {}
        for name, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in given:
                raise UserError(
                    f"training.lr_scheduler_kwargs.{name}: the schedule {self.lr_scheduler_type} needs it; "
                    f"it takes {', '.join(parameters)}"
                )
        for name in given:
            if name not in parameters:
                takes = f"takes {', '.join(parameters)}" if parameters else "takes none"
                raise UserError(
                    f"training.lr_scheduler_kwargs.{name}: the schedule {self.lr_scheduler_type} {takes}; "
                    "set training.lr_scheduler_kwargs=null, or to arguments of its own"
                )

    def _check_precision(self) -> None:
        """Refuse a precision that only the environment sets. The saved config would not show it."""
        precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if precision not in ("no", "") and not (self.bf16 or self.fp16):
            raise UserError(
                f"ACCELERATE_MIXED_PRECISION={precision}: is not in the config; set training.bf16=true (or "
                "training.fp16=true), or unset it"
            )


def schedule_arguments(schedule: str, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The arguments `given`, with `min_lr_rate` added for the default schedule without `min_lr`.

    Drops a `min_lr_rate` with its default value if the schedule does not take it, or if there is a `min_lr`.
    Configs of older runs hold it, and it would stay when a user changes the schedule.
    """
    arguments = dict(given or {})
    does_not_fit = "min_lr_rate" not in _schedule_parameters(schedule) or "min_lr" in arguments
    if arguments.get("min_lr_rate") == MIN_LR_RATE and does_not_fit:
        del arguments["min_lr_rate"]
    if schedule == DEFAULT_SCHEDULE and not {"min_lr", "min_lr_rate"} & arguments.keys():
        arguments["min_lr_rate"] = MIN_LR_RATE
    return arguments or None


def _schedule_parameters(schedule: str) -> dict[str, inspect.Parameter]:
    """The parameters of a schedule, except those that the Trainer sets. Empty for an unknown schedule."""
    try:
        make: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(schedule)]
    except (ValueError, KeyError):
        return {}
    parameters = inspect.signature(make).parameters.items()
    return {name: parameter for name, parameter in parameters if name not in TRAINER_SCHEDULE_ARGUMENTS}


@dataclass
class RunConfig:
    """A whole run."""

    model: ModelSection = field(default_factory=ModelSection)
    tokenizer: TokenizerSection = field(default_factory=TokenizerSection)
    data: DataSection = field(default_factory=DataSection)
    facts: FactsSection = field(default_factory=FactsSection)
    injection: InjectionSection = field(default_factory=InjectionSection)
    training: STLMTrainingArguments = MISSING
    dropout: DropoutSection = field(default_factory=DropoutSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)
