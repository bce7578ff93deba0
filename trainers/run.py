"""One run from its config: the only place where a config becomes objects.

    prepare (all that can be checked) -> run folder -> train -> save -> summary and report

`train` is what `stlm train` calls. Nothing but the lock is written to the run folder before everything
that can be checked beforehand has been: files, keys, tokenizer, model, and that the facts fit.
"""

import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import platform
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback

from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.load import cache_folder
from tidy_stlms.configs.processes import check_processes
from tidy_stlms.configs.schema import RunConfig, STLMTrainingArguments
from tidy_stlms.eval.checkpoint_mark import read_mark
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.report.run_report import write_run_report
from tidy_stlms.eval.scoring.processes import in_first_process
from tidy_stlms.trainers.build import (
    arm_exposures,
    build_injection,
    build_model,
    load_facts,
    load_tokenizer,
    scratch_config,
)
from tidy_stlms.trainers.callbacks import (
    BenchmarksCallback,
    Lines,
    MetricsFile,
    Progress,
    PromptsCallback,
    RecallCallback,
)
from tidy_stlms.trainers.checkpoints import (
    check_logs,
    check_optimizer_settings,
    checkpoint_to_resume,
    load_stream_state,
    named_checkpoint,
    step_of,
)
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.corpus import prepare_corpus
from tidy_stlms.trainers.documents import load_documents
from tidy_stlms.trainers.dropout import DropoutCallback
from tidy_stlms.trainers.hub import CheckpointPusher
from tidy_stlms.trainers.interrupt import StopCallback, catch_signals
from tidy_stlms.trainers.plan import InjectionPlan
from tidy_stlms.trainers.run_folder import SUMMARY, check_folder, is_run, locked, open_folder, read_run_id
from tidy_stlms.trainers.stream import Geometry, TrainingStream, ValidationRows
from tidy_stlms.trainers.text_bytes import bytes_per_token
from tidy_stlms.trainers.trainer import STLMTrainer

logger = logging.getLogger(__name__)


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
    checkpoint: Path | None
    """The whole checkpoint to go on from."""


def train(config: RunConfig, merged: DictConfig, *, overwrite: bool = False) -> dict:
    """Run `config` from preparation to report; returns what summary.json holds.

    Locks the run folder from before the preparation to the end.

    Raises UserError for what the user can put right, RunFailed where a loss, a gradient or a weight is not
    finite or the disk is full, and Interrupted after Ctrl-C or SIGTERM.
    """
    folder = Path(config.training.output_dir)
    check_processes(config.training.world_size)
    with contextlib.ExitStack() as until_the_end:
        is_ours: Callable[[], bool] | None = None

        def enter() -> None:
            nonlocal is_ours
            is_ours = until_the_end.enter_context(locked(folder))
            resume = bool(config.training.resume_from_checkpoint)
            check_folder(folder, resume=resume, overwrite=overwrite)

        in_first_process(enter)
        return _train(config, merged, folder, overwrite, is_ours)


def _train(
    config: RunConfig, merged: DictConfig, folder: Path, overwrite: bool, is_ours: Callable[[], bool] | None
) -> dict:
    run = prepare(config)
    trainer = build_trainer(config, run, folder)
    trainer.folder_is_ours = is_ours

    def lay_out() -> str:
        if config.training.push_to_hub:
            trainer.pusher = CheckpointPusher(config.training, folder)
        return open_folder(
            folder,
            merged,
            environment(run),
            run.bank,
            run.plan,
            checkpoint=run.checkpoint,
            overwrite=overwrite,
        )

    trainer.run_id = in_first_process(lay_out)
    try:
        return _train_and_report(trainer, run, folder)
    except DiskFull as full:
        full.resumable = True
        raise


def _train_and_report(trainer: STLMTrainer, run: Prepared, folder: Path) -> dict:
    with catch_signals() as stop:
        stopping = StopCallback(stop, trainer.accelerator)
        trainer.add_callback(stopping)
        trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    if stopping.stopped_early:
        if trainer.pusher is not None:
            trainer.pusher.wait()
        raise Interrupted(folder / f"checkpoint-{trainer.state.global_step}")
    trainer.check_weights()
    trainer.save_final_model(folder)
    summary: dict = {}
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


def prepare(config: RunConfig) -> Prepared:
    """Build and check everything but the run folder. Cheap checks come before long work."""
    args, cache = config.training, cache_folder(config.data.cache_dir)
    bank = load_facts(config)
    if bank is not None and config.injection.enabled:
        arm_exposures(config.injection, bank)  # the numbers themselves are asked for when the plan is made
    if config.model.name_or_path:
        check_model_path(config.model.name_or_path, revision=config.model.revision)
    else:
        scratch_config(config.model, vocab_size=1)  # before the corpus is prepared, which may take hours
    with args.main_process_first(desc="preparing the corpus"), _writing_cache(cache):
        documents = load_documents(config.data, args.seed, cache)
        tokenizer = load_tokenizer(config, documents, bank, cache)
        corpus = prepare_corpus(documents, tokenizer, cache, progress=not args.disable_tqdm)
    model = build_model(config.model, tokenizer, args.seed)
    window = _context_window(config, model)

    blocks = corpus.blocks("train", window)
    rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    args = copy.copy(args)
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * len(blocks) / rows_per_step)
    total_rows = args.max_steps * rows_per_step
    plan, collator = build_injection(config, bank, tokenizer, total_rows, len(blocks), rows_per_step, window)
    geometry = Geometry(
        rows_per_step=rows_per_step,
        context_window=window,
        rows_per_pass=len(blocks),
        seed=args.seed,
        corpus=corpus.key,
        injection=collator.key if plan else None,
        model=_shapes_hash(model),
    )
    return Prepared(
        args=args,
        bank=bank,
        tokenizer=tokenizer,
        model=model,
        stream=TrainingStream(blocks, total_rows, args.seed),
        validation=ValidationRows(corpus.blocks("validation", window), config.evaluation.validation_rows),
        collator=collator,
        plan=plan,
        geometry=geometry,
        checkpoint=in_first_process(lambda: _checkpoint(args, geometry)),
    )


@contextlib.contextmanager
def _writing_cache(cache: Path) -> Iterator[None]:
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


def build_trainer(config: RunConfig, run: Prepared, folder: Path) -> STLMTrainer:
    """The trainer with its records: metrics, recall, watched prompts.

    Raises UserError for an optimizer, a schedule or a reporter that cannot be had.
    """
    os.environ.setdefault("WANDB_PROJECT", config.logging.project)
    if config.logging.group:
        os.environ.setdefault("WANDB_RUN_GROUP", config.logging.group)
    if config.logging.tags:
        os.environ.setdefault("WANDB_TAGS", ",".join(config.logging.tags))
    run.args.project = config.logging.project  # Trackio's
    try:
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
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None
    trainer.optimizer = trainer.lr_scheduler = None
    if config.dropout.schedule is not None:
        trainer.add_callback(DropoutCallback(trainer, config.dropout))
    for theirs, ours in ((ProgressCallback, Progress), (PrinterCallback, Lines)):
        if trainer.pop_callback(theirs):
            trainer.add_callback(ours)
    trainer.add_callback(MetricsFile(folder))
    if run.bank is not None:
        trainer.add_callback(RecallCallback(trainer, run.bank, config.evaluation, folder))
    if config.evaluation.benchmarks:
        trainer.add_callback(BenchmarksCallback(trainer, config.evaluation))
    if config.evaluation.prompts:
        trainer.add_callback(PromptsCallback(trainer, config.evaluation, folder))
    return trainer


def _checkpoint(args: STLMTrainingArguments, geometry: Geometry) -> Path | None:
    """The checkpoint that `training.resume_from_checkpoint` stands for."""
    wanted, folder = args.resume_from_checkpoint, Path(args.output_dir)
    if not wanted:
        return None
    checkpoint = None
    if isinstance(wanted, str):
        checkpoint = named_checkpoint(folder, wanted, read_run_id(folder) if is_run(folder) else "")
    elif is_run(folder):
        checkpoint = checkpoint_to_resume(folder, read_run_id(folder))
        if checkpoint is None and (folder / SUMMARY).exists():
            raise UserError(
                f"{folder}: the run is finished and has no checkpoint; take another training.output_dir, or "
                "pass --overwrite to replace it"
            )
    if checkpoint is None:
        logger.warning("%s has no checkpoint: starting from the beginning", folder)
        return None
    check_logs(checkpoint)
    load_stream_state(checkpoint, geometry)  # refuses another geometry
    check_optimizer_settings(folder, args)
    if step_of(checkpoint) > args.max_steps:
        raise UserError(f"training.max_steps={args.max_steps}: {checkpoint} is already past it")
    logger.warning("going on from %s (step %d of %d)", checkpoint, step_of(checkpoint), args.max_steps)
    if (processes := read_mark(checkpoint).processes) != args.world_size:
        logger.warning(
            "%s was saved by %d processes, this run has %d: dropout draws other numbers than in an "
            "uninterrupted run",
            *(checkpoint, processes, args.world_size),
        )
    return checkpoint


def environment(run: Prepared) -> dict:
    """Versions, machine and stream: what is needed to judge or repeat the run."""
    packages = ("tidy-stlms", "torch", "transformers", "datasets", "tokenizers", "accelerate", "faker")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "device": str(run.args.device),
        "threads": torch.get_num_threads(),
        "processes": run.args.world_size,
        "stream": asdict(run.geometry),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
        )
    except OSError:  # there is no git
        return None
    return found.stdout.strip() or None


def _context_window(config: RunConfig, model: PreTrainedModel) -> int:
    limit = getattr(model.config, "max_position_embeddings", None)
    window = config.data.context_window or limit
    if window is None:
        raise UserError("data.context_window: the model states no max_position_embeddings; give it here")
    if limit is not None and window > limit:
        raise UserError(f"data.context_window={window}: the model reads at most {limit} tokens")
    return window


def _shapes_hash(model: PreTrainedModel) -> str:
    shapes = sorted((name, list(tensor.shape)) for name, tensor in model.state_dict().items())
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()


def command_line(files: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that goes on with a run started by `stlm train`."""
    kept = [o for o in overrides if not o.startswith("training.resume_from_checkpoint")]
    return shlex.join(["stlm", "train", *files, *kept, "training.resume_from_checkpoint=true"])
