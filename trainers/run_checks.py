"""All checks of a run that need neither its corpus nor its weights.

`stlm train` makes them first, and `stlm train --dry-run` makes only them. Nothing is written.
"""

import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames
from transformers.utils import is_liger_kernel_available

from tidy_stlms.configs.corpora import short_names
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.processes import check_processes
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import (
    DataSection,
    ModelSection,
    RunConfig,
    STLMTrainingArguments,
    TokenizerSection,
)
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.load import load_tokenizer
from tidy_stlms.eval.models.lookup import HUB_ID
from tidy_stlms.eval.study.benchmarks import check_benchmarks
from tidy_stlms.trainers.documents import expand_files
from tidy_stlms.trainers.injection import arm_exposures, injected_statements, load_facts
from tidy_stlms.trainers.layout import check_place
from tidy_stlms.trainers.model import check_model

STEPS_TO_TRY = 100  # of a schedule, if the corpus decides the number of steps


def check_run(config: RunConfig) -> FactBank | None:
    """Raise UserError for a config that cannot be trained; returns the run's bank.

    The bank is read or generated. A model of the Hub is looked up, but neither model nor tokenizer of the Hub
    is loaded.
    """
    _check_optimizer(config.training)
    _check_schedule(config.training)
    _check_reporters(config.training)
    _check_libraries(config.training)
    _check_data(config.data)
    check_model(config.model, config.data.context_window)
    _check_tokenizer(config.tokenizer, config.model)
    bank = load_facts(config.facts)
    if bank is not None and config.injection.enabled:
        arm_exposures(config.injection, bank)
        injected_statements(bank)
    if config.evaluation.benchmarks:
        check_benchmarks(config.evaluation.benchmarks)  # lm-eval needs seconds to list its tasks
    return bank


def check_start(config: RunConfig, *, overwrite: bool) -> None:
    """Raise UserError if `stlm train` would refuse to start `config`: `check_run`, processes and folder."""
    check_processes(config.training.world_size)
    resume = bool(config.training.resume_from_checkpoint)
    check_place(Path(config.training.output_dir), resume=resume, overwrite=overwrite)
    check_run(config)


def _check_optimizer(args: STLMTrainingArguments) -> None:
    model: Any = torch.nn.Linear(2, 2)
    with reading(f"training.optim={OptimizerNames(args.optim).value}"):
        optimizer, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if not {"model", "params", "optimizer_dict"} & options.keys():  # these are for layer-wise optimizers
            optimizer(model.parameters(), **options)


def _check_schedule(args: STLMTrainingArguments) -> None:
    """Make the schedule, and try its rates at the beginning, in the middle and at the end."""
    key = f"training.lr_scheduler_kwargs={args.lr_scheduler_kwargs}"
    steps = args.max_steps if args.max_steps > 0 else STEPS_TO_TRY
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    with reading(key):
        schedule = get_scheduler(
            args.lr_scheduler_type, optimizer, args.get_warmup_steps(steps), steps, args.lr_scheduler_kwargs
        )
        factors = [
            factor(step)
            for factor in getattr(schedule, "lr_lambdas", ())
            for step in (0, steps // 2, steps - 1)
        ]
        are_finite = all(map(math.isfinite, factors))
    if not are_finite:
        raise UserError(f"{key}: give a learning rate that is not a finite number")


def _check_reporters(args: STLMTrainingArguments) -> None:
    """Make the callbacks, as the Trainer will: they look for their packages."""
    with reading(f"training.report_to={args.report_to}"):
        for callback in get_reporting_integration_callbacks(args.report_to):
            if isinstance(callback, type):
                callback()


def _check_libraries(args: STLMTrainingArguments) -> None:
    """What transformers and torch check only when training has begun."""
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise UserError("training.use_liger_kernel: needs the package liger-kernel; pip install liger-kernel")
    if args.dataloader_num_workers == 0:
        for key in ("dataloader_persistent_workers", "dataloader_prefetch_factor"):
            if getattr(args, key):
                raise UserError(f"training.{key}: needs training.dataloader_num_workers above 0")
    if args.torch_compile:
        backend, mode = args.torch_compile_backend, args.torch_compile_mode
        with reading(f"training.torch_compile_backend={backend}, training.torch_compile_mode={mode}"):
            torch.compile(torch.nn.Linear(2, 2), backend=backend or "inductor", mode=mode)


def _check_data(data: DataSection) -> None:
    if data.name == "files":
        expand_files(data.train_files, "data.train_files")
    elif data.name != "synthetic" and not _is_dataset(data.name):
        raise UserError(
            f"data.name={data.name!r:.100}: must be files, synthetic, a short name of configs/datasets.yaml "
            "or the id of a Hub dataset, such as owner/name; local files are data.train_files"
        )
    if data.validation_files is not None:
        expand_files(data.validation_files, "data.validation_files")


def _is_dataset(name: str) -> bool:
    """Whether a name can be that of a dataset: a short name, a local folder or a Hub id."""
    is_hub_id = HUB_ID.fullmatch(name) is not None and not name.startswith(".")
    return name in short_names() or is_hub_id or os.path.isdir(name)


def _check_tokenizer(section: TokenizerSection, model: ModelSection) -> None:
    """Load a tokenizer that is a folder. One of the Hub is loaded when the run starts."""
    name = section.name_or_path
    if not name:
        return
    if Path(name).exists():
        load_tokenizer(name, trust_remote_code=model.trust_remote_code)
    elif not HUB_ID.fullmatch(name) or ("/" in name and Path(name).parent.is_dir()):
        raise UserError(
            f"tokenizer.name_or_path={name}: no such folder; give a tokenizer's folder or a Hub id"
        )
