"""Carries out one run. This is the only file that turns a config into objects.

    claim the folder -> prepare (all that can be checked) -> lay out -> fit -> save the model -> report

`train` is what `stlm train` calls. Everything that can be checked is checked first: files, keys, tokenizer,
model, and that the facts fit. Until then only the lock is written to the run folder.
"""

import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback

from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.load import cache_folder
from tidy_stlms.configs.processes import check_processes
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import EvaluationSection, LoggingSection, RunConfig, STLMTrainingArguments
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.report.run_report import write_run_report
from tidy_stlms.eval.report.run_summary import RunSummary
from tidy_stlms.eval.run_folder import checkpoint_of
from tidy_stlms.eval.scoring.processes import in_first_process
from tidy_stlms.trainers.callbacks import (
    BenchmarksCallback,
    FirstLine,
    Lines,
    MetricsFile,
    Progress,
    PromptsCallback,
    RecallCallback,
)
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.corpus import Corpus, prepare_corpus
from tidy_stlms.trainers.documents import Documents, load_documents
from tidy_stlms.trainers.dropout import DropoutCallback
from tidy_stlms.trainers.environment import CorpusCounts, describe_environment
from tidy_stlms.trainers.hub import CheckpointPusher
from tidy_stlms.trainers.injection import build_injection
from tidy_stlms.trainers.interrupt import StopCallback, catch_signals
from tidy_stlms.trainers.layout import claimed, lay_out
from tidy_stlms.trainers.model import build_model, choose_context_window
from tidy_stlms.trainers.packing import Packing, choose_packing, warn_if_joined
from tidy_stlms.trainers.plan import InjectionPlan
from tidy_stlms.trainers.resume import check_resume, find_checkpoint
from tidy_stlms.trainers.run_checks import check_run, rows_per_step
from tidy_stlms.trainers.stream import Geometry, RowCounts, TrainingStream, ValidationRows
from tidy_stlms.trainers.text_bytes import bytes_per_token
from tidy_stlms.trainers.tokenizer import load_tokenizer
from tidy_stlms.trainers.trainer import STLMTrainer

logger = logging.getLogger(__name__)

REPORTERS = "transformers.integrations.integration_utils"  # the module of its callbacks


class Interrupted(Exception):
    """The run was asked to stop and has saved a checkpoint."""

    def __init__(self, checkpoint: Path):
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


@dataclass
class Prepared:
    """Everything a run needs, checked before anything but the lock is written to its folder."""

    args: STLMTrainingArguments
    bank: FactBank | None
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    stream: TrainingStream
    validation: ValidationRows
    collator: InjectionCollator
    plan: InjectionPlan | None
    geometry: Geometry
    corpus: CorpusCounts
    checkpoint: Path | None
    """The whole checkpoint to resume from; None for a run from the beginning."""


def train(config: RunConfig, merged: DictConfig, *, overwrite: bool = False) -> RunSummary | None:
    """Run `config` from preparation to report; returns the run's summary in the first process.

    Args:
        merged: The same config as written, which is saved with the run.
        overwrite: Replace the run that is in the folder.

    Raises UserError for what the user can correct, RunFailed if a loss, a gradient or a weight is not finite
    or the disk is full, and Interrupted after Ctrl-C or SIGTERM.
    """
    folder = Path(config.training.output_dir)
    check_processes(config.training.world_size)
    resume = bool(config.training.resume_from_checkpoint)
    with claimed(folder, resume=resume, overwrite=overwrite) as folder_is_ours:
        run = prepare(config)
        trainer = build_trainer(config, run, folder)
        trainer.folder_is_ours = folder_is_ours
        trainer.run_id = in_first_process(lambda: _open_run(trainer, run, folder, merged, overwrite))
        with _resumable_when_full():
            _fit(trainer, run.checkpoint, folder)
            trainer.save_final_model(folder)
            return _report(trainer, run, folder)


def prepare(config: RunConfig) -> Prepared:
    """Build and check everything but the run folder. Cheap checks come before long work."""
    args = config.training
    checkpoint = in_first_process(lambda: find_checkpoint(args))
    bank = check_run(config)
    documents, tokenizer, corpus = _prepare_corpus(config, bank)  # may take hours
    model = build_model(config.model, tokenizer, args.seed)
    window = choose_context_window(config.data.context_window, model.config)
    blocks = corpus.blocks("train", window)
    args = _with_max_steps(args, len(blocks))
    rows = RowCounts(rows_per_step(args), len(blocks), args.max_steps * rows_per_step(args))
    packing = in_first_process(lambda: _choose_packing(config, model, window))
    plan, collator = build_injection(config.injection, bank, tokenizer, rows, window, args.seed, packing)
    geometry = Geometry(
        rows_per_step=rows.per_step,
        context_window=window,
        rows_per_pass=rows.per_pass,
        seed=args.seed,
        corpus=corpus.key,
        injection=collator.key if plan else None,
        model=_shapes_hash(model),
        packing=packing.name,
    )
    if checkpoint is not None:
        in_first_process(lambda: check_resume(checkpoint, args, geometry))
    return Prepared(
        args=args,
        bank=bank,
        tokenizer=tokenizer,
        model=model,
        stream=TrainingStream(blocks, rows.total, args.seed),
        validation=ValidationRows(corpus.blocks("validation", window), config.evaluation.validation_rows),
        collator=collator,
        plan=plan,
        geometry=geometry,
        corpus=CorpusCounts(
            sources=documents.sources,
            documents={"train": len(documents.train), "validation": len(documents.validation)},
            tokens=corpus.tokens,
        ),
        checkpoint=checkpoint,
    )


def _prepare_corpus(
    config: RunConfig, bank: FactBank | None
) -> tuple[Documents, PreTrainedTokenizerBase, Corpus]:
    """Documents, tokenizer and the tokenised corpus, from the cache where they have been made before.

    The first process makes them while the others wait.
    """
    args, cache = config.training, cache_folder(config.data.cache_dir)
    with args.main_process_first(desc="preparing the corpus"), _writing_cache(cache):
        documents = load_documents(config.data, args.seed, cache)
        tokenizer = load_tokenizer(config.tokenizer, config.model, documents, bank, cache)
        corpus = prepare_corpus(documents, tokenizer, cache, progress=not args.disable_tqdm)
    return documents, tokenizer, corpus


@contextlib.contextmanager
def _writing_cache(cache: Path) -> Iterator[None]:
    """Raise UserError where the cache folder cannot be written, DiskFull where it has no room."""
    try:
        with writing(cache):
            yield
    except OSError as error:
        file = error.filename2 or error.filename
        if file is None or not Path(file).absolute().is_relative_to(cache.absolute()):
            raise
        raise UserError(
            f"data.cache_dir={cache}: cannot be written ({error.strerror}); take another folder"
        ) from None


def _with_max_steps(args: STLMTrainingArguments, rows_per_pass: int) -> STLMTrainingArguments:
    """A copy of `args` with max_steps filled in. The config stays as it was written."""
    args = copy.copy(args)
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * rows_per_pass / rows_per_step(args))
    return args


def _choose_packing(config: RunConfig, model: PreTrainedModel, window: int) -> Packing:
    """The run's packing. Warns if documents are joined because the model cannot keep them apart."""
    packing = choose_packing(config.data.packing, model, config.training, window)
    warn_if_joined(packing, model.config.model_type)
    return packing


def _shapes_hash(model: PreTrainedModel) -> str:
    shapes = sorted((name, list(tensor.shape)) for name, tensor in model.state_dict().items())
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()


def build_trainer(config: RunConfig, run: Prepared, folder: Path) -> STLMTrainer:
    """The trainer with its records: metrics, recall, watched prompts.

    Raises UserError for an optimizer, a schedule or a reporter that is not available.
    """
    _name_for_reporters(config.logging, run.args)
    with reading("training"):
        trainer = STLMTrainer(
            model=run.model,
            args=run.args,
            train_dataset=run.stream,
            eval_dataset=run.validation,
            data_collator=run.collator,
            processing_class=run.tokenizer,
            geometry=run.geometry,
            eval_bytes_per_token=bytes_per_token(run.validation, run.tokenizer),
        )
        trainer.create_optimizer_and_scheduler(run.args.max_steps)  # only to see that they can be made
    trainer.optimizer = trainer.lr_scheduler = None
    if config.dropout.schedule is not None:
        trainer.add_callback(DropoutCallback(trainer, config.dropout))
    trainer.add_callback(FirstLine(run.corpus, run.geometry))
    _add_records(trainer, config.evaluation, run.bank, folder)
    return trainer


def _name_for_reporters(section: LoggingSection, args: STLMTrainingArguments) -> None:
    """Pass project, group and tags on to W&B, which reads the environment, and to Trackio."""
    os.environ.setdefault("WANDB_PROJECT", section.project)
    if section.group:
        os.environ.setdefault("WANDB_RUN_GROUP", section.group)
    if section.tags:
        os.environ.setdefault("WANDB_TAGS", ",".join(section.tags))
    args.project = section.project  # Trackio's


def _add_records(
    trainer: STLMTrainer, evaluation: EvaluationSection, bank: FactBank | None, folder: Path
) -> None:
    """Add the callbacks that write logs and print progress."""
    for theirs, ours in ((ProgressCallback, Progress), (PrinterCallback, Lines)):
        if trainer.pop_callback(theirs):
            trainer.add_callback(ours)
    trainer.add_callback(MetricsFile(folder))
    if bank is not None:
        trainer.add_callback(RecallCallback(trainer, bank, evaluation, folder))
    if evaluation.benchmarks:
        trainer.add_callback(BenchmarksCallback(trainer, evaluation))
    if evaluation.prompts:
        trainer.add_callback(PromptsCallback(trainer, evaluation, folder))


def _open_run(trainer: STLMTrainer, run: Prepared, folder: Path, merged: DictConfig, overwrite: bool) -> str:
    """Make the Hub's repository and start the reporters, then lay out the folder; returns the run's id."""
    if run.args.push_to_hub:
        trainer.pusher = CheckpointPusher(run.args, folder)
    _start_reporters(trainer)
    environment = describe_environment(run.args, run.model, run.geometry, run.corpus)
    return lay_out(
        folder, merged, environment, run.bank, run.plan, checkpoint=run.checkpoint, overwrite=overwrite
    )


def _start_reporters(trainer: STLMTrainer) -> None:
    """Start W&B and others now. They would start, and perhaps fail, when training begins.

    Raises UserError if one cannot be started, such as W&B without a login.
    """
    for callback in trainer.callback_handler.callbacks:
        if callback.__module__ == REPORTERS and hasattr(callback, "setup"):
            with reading(f"training.report_to: {type(callback).__name__} cannot start"):
                callback.setup(trainer.args, trainer.state, trainer.model)


@contextlib.contextmanager
def _resumable_when_full() -> Iterator[None]:
    """From here on, a run that was ended by a full disk can be resumed, and its error says so."""
    try:
        yield
    except DiskFull as full:
        full.resumable = True
        raise


def _fit(trainer: STLMTrainer, checkpoint: Path | None, folder: Path) -> None:
    """Train to the last step. Raises Interrupted, after a checkpoint, if the user asks to stop."""
    with catch_signals() as stop:
        stopping = StopCallback(stop, trainer.accelerator)
        trainer.add_callback(stopping)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopping.stopped_early:
        if trainer.pusher is not None:
            trainer.pusher.wait()
        raise Interrupted(checkpoint_of(folder, trainer.state.global_step))
    trainer.check_weights()


def _report(trainer: STLMTrainer, run: Prepared, folder: Path) -> RunSummary | None:
    """Write the report and push the run, in the first process; returns its summary there, None elsewhere."""
    summary = None
    if trainer.is_world_process_zero():
        summary = write_run_report(
            folder,
            steps=trainer.state.global_step,
            tokens=len(run.stream) * run.geometry.context_window,
            tokens_per_second=trainer.tokens_per_second,
            parameters=run.model.num_parameters(),
        )
        if trainer.pusher is not None:
            logger.warning("pushed to %s", trainer.pusher.push_end())
    trainer.accelerator.wait_for_everyone()
    return summary


def command_line(files: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that resumes a run started by `stlm train`."""
    other_overrides = [o for o in overrides if not o.startswith("training.resume_from_checkpoint")]
    return shlex.join(["stlm", "train", *files, *other_overrides, "training.resume_from_checkpoint=true"])
