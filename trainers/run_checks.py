"""All checks of a run that need neither its corpus nor trained weights.

`stlm train` makes them first, and `stlm train --dry-run` makes only them. They change neither the run folder
nor the run's cache.
"""

import copy
import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import validate_repo_id
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import PreTrainedTokenizerBase, SchedulerType, Trainer, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames
from transformers.utils import is_liger_kernel_available

from modeling_stlm.tokenization_stlm import byte_tokenizer
from tidy_stlms.configs.corpora import short_names
from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.processes import check_processes
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import DataSection, RunConfig, STLMTrainingArguments
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.lookup import check_model_path, may_be_hub_id
from tidy_stlms.eval.study.benchmarks import check_benchmarks
from tidy_stlms.eval.texts import TextFormat, expand_files, refuse_unused
from tidy_stlms.eval.tokens import vocabulary_size
from tidy_stlms.trainers.corpus import check_end_of_text
from tidy_stlms.trainers.injection import arm_exposures, build_injection, injected_statements, load_facts
from tidy_stlms.trainers.layout import check_place
from tidy_stlms.trainers.model import choose_context_window
from tidy_stlms.trainers.packing import warn_if_joined
from tidy_stlms.trainers.resume import find_checkpoint
from tidy_stlms.trainers.stream import RowCounts
from tidy_stlms.trainers.tokenizer import load_existing_tokenizer
from tidy_stlms.trainers.trial import trial_config, try_one_step

logger = logging.getLogger(__name__)

STEPS_TO_TRY = 100  # of a schedule, if the corpus decides the number of steps


def check_run(config: RunConfig, *, notices: bool = False) -> FactBank | None:
    """Raise UserError for a config that cannot be trained; returns the run's bank.

    The bank is read or generated, the tokenizer is loaded unless it is still to be trained, and a model of
    the same config with random weights is trained for one step, within the limits of `try_one_step`.
    `notices`: log what the run itself would log of its packing.
    """
    _check_optimizer(config.training)
    _check_schedule(config.training)
    _check_reporters(config.training)
    _check_libraries(config.training)
    _check_data(config.data)
    if config.model.name_or_path:
        check_model_path(config.model.name_or_path, revision=config.model.revision)
    bank = load_facts(config.facts)
    given = [key for key in ("exposures", "fraction", "arms") if getattr(config.injection, key)]
    if bank is None and config.injection.enabled and given:
        logger.warning(
            "injection.%s: there are no facts (facts.bank, facts.spec): nothing is injected", given[0]
        )
    if bank is not None and config.injection.enabled:  # also where no plan can be made yet
        arm_exposures(config.injection, bank)
        injected_statements(bank)
    _check_model_and_plan(config, bank, notices)
    if config.evaluation.benchmarks:
        check_benchmarks(config.evaluation.benchmarks)  # lm-eval needs seconds to list its tasks
    return bank


def check_start(config: RunConfig, *, overwrite: bool) -> None:
    """Raise UserError if `stlm train` would refuse to start `config`: `check_run`, processes and folder."""
    check_processes(config.training.world_size)
    resume = bool(config.training.resume_from_checkpoint)
    check_place(Path(config.training.output_dir), resume=resume, overwrite=overwrite)
    find_checkpoint(config.training)
    check_run(config, notices=True)


def rows_per_step(args: STLMTrainingArguments) -> int:
    """Rows of an optimizer step, over all processes and accumulation steps together."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _check_optimizer(args: STLMTrainingArguments) -> None:
    name = OptimizerNames(args.optim).value
    model: Any = torch.nn.Linear(2, 2)
    with reading(f"training.optim={name}"):
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if not {"model", "params", "optimizer_dict"} & options.keys():  # these are for layer-wise optimizers
            optimizer_class(model.parameters(), **options)
    if args.optim_target_modules is not None:
        without = copy.copy(args)
        without.optim_target_modules = None
        if Trainer.get_optimizer_cls_and_kwargs(without, model) == (optimizer_class, options):
            raise UserError(
                f"training.optim_target_modules: the optimizer {name} does not read it; remove it"
            )
    for argument in (args.optim_args or "").replace(" ", "").split(","):
        if argument and not _optimizer_reads(argument.partition("=")[0], args, model):
            raise UserError(
                f"training.optim_args={argument}: the optimizer {name} does not read it; remove it, or use "
                "the key of the Trainer, such as training.adam_beta2"
            )


def _optimizer_reads(name: str, args: STLMTrainingArguments, model: Any) -> bool:
    """Whether the optimizer of `args` reads the argument `name` of `training.optim_args`.

    If it does, it refuses "not a number", or it gets other options with "true" than without the argument:
    a few arguments take `true` and treat all other texts as false.
    """
    args = copy.copy(args)
    options = []
    for optim_args in (None, f"{name}=true", f"{name}=not a number"):
        args.optim_args = optim_args
        try:
            options.append(Trainer.get_optimizer_cls_and_kwargs(args, model))
        except (ValueError, AttributeError):
            return True
    return any(other != options[0] for other in options)


def _check_schedule(args: STLMTrainingArguments) -> None:
    """Make the schedule; try its factors at the first, a middle and the last step, where it has them."""
    name, given = SchedulerType(args.lr_scheduler_type).value, args.lr_scheduler_kwargs
    key = f"training.lr_scheduler_type={name} with training.learning_rate={args.learning_rate:g}"
    if given is not None:
        key += f" and training.lr_scheduler_kwargs={given}"
    steps = args.max_steps if args.max_steps > 0 else STEPS_TO_TRY
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=args.learning_rate)
    optimizer.step()  # torch warns of a schedule that steps first
    with reading(key):
        schedule = get_scheduler(name, optimizer, args.get_warmup_steps(steps), steps, given)
        factors = [
            factor(step)
            for step in (0, steps // 2, steps - 1)
            for factor in getattr(schedule, "lr_lambdas", ())
        ]
        are_rates = all(0 <= factor < math.inf for factor in factors)
        if isinstance(schedule, ReduceLROnPlateau):  # it reads most of its arguments when it lowers the rate
            for _ in range(min(schedule.patience + schedule.cooldown, STEPS_TO_TRY) + 3):
                schedule.step(1.0)
    if not are_rates:
        raise UserError(f"{key}: the learning rate is negative or infinite at some step; take other values")


def _check_reporters(args: STLMTrainingArguments) -> None:
    """Make the callbacks, as the Trainer will: they look for their packages."""
    with reading(f"training.report_to={args.report_to}"):
        for callback in get_reporting_integration_callbacks(args.report_to):
            if isinstance(callback, type):
                callback()


def _check_libraries(args: STLMTrainingArguments) -> None:
    """What transformers, torch and the Hub check only when training has begun."""
    if args.push_to_hub and args.hub_model_id:
        with reading(f"training.hub_model_id={args.hub_model_id}"):
            validate_repo_id(args.hub_model_id)
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


def _check_model_and_plan(config: RunConfig, bank: FactBank | None, notices: bool) -> None:
    """Try the model, then make the plan, unless the corpus decides the tokenizer or the number of rows."""
    training = config.tokenizer.train
    if training is None:
        tokenizer = load_existing_tokenizer(config.tokenizer, config.model)
        check_end_of_text(tokenizer)
        vocab_size = vocabulary_size(tokenizer)
    else:  # bytes stand in for the tokenizer, which is trained on the corpus
        tokenizer, vocab_size = byte_tokenizer(), training.vocab_size
    model_config = trial_config(config.model, tokenizer, vocab_size)
    if model_config is None:
        return
    window = choose_context_window(config.data.context_window, model_config)
    packing = try_one_step(model_config, config, tokenizer, vocab_size, window)
    if notices and packing is not None:
        warn_if_joined(packing, model_config.model_type)
    if training is None:
        _check_plan(config, bank, tokenizer, window)


def _check_plan(
    config: RunConfig, bank: FactBank | None, tokenizer: PreTrainedTokenizerBase, window: int
) -> None:
    """Make the plan, unless the corpus decides the number of rows, or where the passes end."""
    args = config.training
    if args.max_steps > 0 and config.injection.span == "run":
        total = args.max_steps * rows_per_step(args)
        rows = RowCounts(rows_per_step(args), per_pass=total, total=total)
        build_injection(config.injection, bank, tokenizer, rows, window, args.seed)


def _check_data(data: DataSection) -> None:
    training: list[Path] = []
    if data.name == "files":
        training = expand_files(data.train_files, "data.train_files")
    elif data.name != "synthetic" and not _is_dataset(data.name):
        raise UserError(
            f"data.name={shown(data.name)}: must be files, synthetic, a short name of configs/datasets.yaml "
            "or the id of a Hub dataset, such as owner/name; local files are data.train_files"
        )
    held_out: list[Path] = []
    if data.validation_files is not None:
        held_out = expand_files(data.validation_files, "data.validation_files")
    trained = {file.resolve() for file in training}
    if both := next((file for file in held_out if file.resolve() in trained), None):
        raise UserError(
            f"data.validation_files: {both}: is in data.train_files too, so it would be no held-out text; "
            "remove it from one of them"
        )
    keys = {"documents": "data.documents", "separator": "data.separator"}
    if data.name in ("files", "synthetic", *short_names()):  # other datasets read the column too
        keys["column"] = "data.text_column"
    refuse_unused(training + held_out, TextFormat(data.text_column, data.documents, data.separator), keys)


def _is_dataset(name: str) -> bool:
    """Whether a name can be that of a dataset: a short name, a local folder or a Hub id."""
    return name in short_names() or may_be_hub_id(name) or os.path.isdir(name)
