"""One run from its config: the only place where a config becomes objects.

    prepare (all that can be checked) -> run folder -> train -> save -> summary and report

`train` is what `stlm train` calls. Nothing is written to the run folder before everything that can
be checked beforehand has been: files, keys, tokenizer, model, and that the facts fit.
"""

import copy
import hashlib
import json
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from omegaconf import DictConfig
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    set_seed,
)

from configs.errors import UserError
from configs.files import build_once, find_shipped, write_json
from configs.load import cache_folder, check_keys, save_config
from configs.schema import ModelSection, RunConfig, STLMTrainingArguments
from eval.facts.bank import FactBank
from eval.facts.generate import generate_from_spec
from eval.facts.validate import load_bank
from eval.models import check_model_path, load_weights
from eval.models import load_tokenizer as read_tokenizer
from eval.report.run_report import write_run_report
from modeling_stlm import STLMConfig, STLMForCausalLM
from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from trainers.callbacks import Lines, MetricsFile, Progress, PromptsCallback, RecallCallback
from trainers.checkpoints import (
    last_whole_checkpoint,
    load_stream_state,
    missing_files,
    prepare_resume,
    step_of,
)
from trainers.collator import InjectionCollator
from trainers.corpus import prepare_corpus
from trainers.documents import Documents, load_documents
from trainers.interrupt import StopCallback, catch_signals
from trainers.plan import InjectionPlan, exposures_for_fraction, make_plan, units_of
from trainers.stream import Geometry, TrainingStream, ValidationRows
from trainers.trainer import STLMTrainer

logger = logging.getLogger(__name__)

RUN_FILES = ("config.yaml", "environment.json")


class Interrupted(Exception):
    """The run was asked to stop and has saved a checkpoint."""

    def __init__(self, checkpoint: Path):
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


@dataclass
class Prepared:
    """Everything a run needs, checked, before its folder is touched."""

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

    Raises UserError for what the user can put right and Interrupted after Ctrl-C or SIGTERM.
    """
    folder = Path(config.training.output_dir)
    _check_folder(folder, config.training, overwrite)
    run = prepare(config)
    trainer = build_trainer(config, run, folder)
    if trainer.is_world_process_zero():
        _open_folder(folder, merged, run, overwrite)
    trainer.accelerator.wait_for_everyone()
    with catch_signals() as stop:
        stopping = StopCallback(stop, trainer.accelerator)
        trainer.add_callback(stopping)
        trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    if stopping.stopped_early:
        raise Interrupted(folder / f"checkpoint-{trainer.state.global_step}")
    trainer.save_model(str(folder))
    summary: dict = {}
    if trainer.is_world_process_zero():
        summary = write_run_report(
            folder,
            steps=trainer.state.global_step,
            tokens=len(run.stream) * run.geometry.context_window,
            tokens_per_second=trainer.tokens_per_second,
            parameters=run.model.num_parameters(),
        )
    trainer.accelerator.wait_for_everyone()
    return summary


def prepare(config: RunConfig) -> Prepared:
    """Build and check everything but the run folder. Cheap checks come before long work."""
    args, cache = config.training, cache_folder(config.data.cache_dir)
    bank = load_facts(config)
    if config.model.name_or_path:
        check_model_path(config.model.name_or_path, revision=config.model.revision)
    else:
        stlm_config(config.model, vocab_size=1)  # before the corpus is prepared, which may take hours
    with args.main_process_first(desc="preparing the corpus"):
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
        checkpoint=_checkpoint(args, geometry),
    )


def load_facts(config: RunConfig) -> FactBank | None:
    """The run's bank, read or generated; None without facts."""
    if config.facts.bank:
        return load_bank(find_shipped(config.facts.bank))
    if config.facts.spec:
        overrides = [f"{key}={json.dumps(value)}" for key, value in config.facts.overrides.items()]
        try:
            return generate_from_spec(find_shipped(config.facts.spec), overrides, seed=config.facts.seed)
        except UserError as error:
            raise UserError(f"facts: {error}") from None
    return None


def load_tokenizer(
    config: RunConfig, documents: Documents, bank: FactBank | None, cache: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer named by the config, or one trained on the corpus and the bank's statements.

    Statements of control people count too: else the names of injected people alone would be whole
    tokens, and the two groups could not be compared.
    """
    name, wanted = config.tokenizer.name_or_path, config.tokenizer.train
    if wanted is None:
        source = name or config.model.name_or_path
        try:
            return read_tokenizer(
                str(source),
                trust_remote_code=config.model.trust_remote_code,
                revision=None if name else config.model.revision,
            )
        except (OSError, ValueError) as error:
            key = "tokenizer.name_or_path" if name else "model.name_or_path"
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{key}={source}: no tokenizer there ({reason})") from None
    statements = [statement.text for statement in bank.statements] if bank else []
    identity = [documents.key, statements, wanted.vocab_size, wanted.max_documents, version("tokenizers")]
    folder = cache / "tokenizers" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]

    def build(temporary: Path) -> None:
        texts = documents.train.select(range(min(len(documents.train), wanted.max_documents)))["text"]
        train_bpe_tokenizer([*texts, *statements], wanted.vocab_size).save_pretrained(temporary)

    build_once(folder, build)
    return read_tokenizer(str(folder))


def build_model(section: ModelSection, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """An STLM from `section.config`, initialised from `seed`, or the model to go on training."""
    set_seed(seed)
    model: Any
    if section.name_or_path:
        model = load_weights(
            section.name_or_path,
            torch.float32,
            trust_remote_code=section.trust_remote_code,
            revision=section.revision,
        )
    else:
        special = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("pad", "bos", "eos")}
        model = STLMForCausalLM(stlm_config(section, vocab_size=len(tokenizer), **special))
    embedded = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embedded:
        raise UserError(
            f"model: its vocabulary has {embedded} entries, the tokenizer {len(tokenizer)}; leave out "
            "model.config.vocab_size, or take the model's own tokenizer"
        )
    return model


def stlm_config(section: ModelSection, **defaults: Any) -> STLMConfig:
    """The STLMConfig of `model.config`, `defaults` for what it leaves open; UserError if it is wrong."""
    check_keys(section.config, STLMConfig, "model.config")
    try:
        return STLMConfig(**{**defaults, **section.config})
    except (StrictDataclassError, ValueError, TypeError) as error:
        reason = error.__cause__ or error  # strict dataclasses put a validator's own words there
        raise UserError(f"model.config: {' '.join(str(reason).split())}") from None


def build_injection(
    config: RunConfig,
    bank: FactBank | None,
    tokenizer: PreTrainedTokenizerBase,
    total_rows: int,
    rows_per_pass: int,
    rows_per_step: int,
    context_window: int,
) -> tuple[InjectionPlan | None, InjectionCollator]:
    """The plan for the bank's injected facts, and the collator that carries it out."""
    section = config.injection
    seed = config.training.seed if section.seed is None else section.seed
    plan, tokens = None, {}
    if bank is not None and section.enabled:
        injected = {fact.id for fact in bank.facts if fact.role == "injected"}
        chosen = [s for s in bank.statements if any(fact_id in injected for fact_id in s.fact_ids)]
        mixed = next((s for s in chosen if not injected.issuperset(s.fact_ids)), None)
        if mixed is not None:
            raise UserError(f"statement {mixed.id}: tells of injected facts and of others; split it")
        if not chosen:
            raise UserError(
                "facts: the bank has no statement of an injected fact; set injection.enabled=false"
            )
        encoded = tokenizer([s.text for s in chosen], add_special_tokens=False)["input_ids"]
        tokens = {s.id: ids for s, ids in zip(chosen, encoded, strict=True)}
        units = units_of((s.id, tuple(s.fact_ids), len(tokens[s.id])) for s in chosen)
        exposures = section.exposures
        if exposures is None:
            exposures = exposures_for_fraction(units, section.fraction or 0.0, total_rows * context_window)
        plan = make_plan(
            units,
            exposures=exposures,
            total_rows=total_rows,
            rows_per_pass=rows_per_pass,
            rows_per_step=rows_per_step,
            context_window=context_window,
            strategy=section.strategy,
            span=section.span,
            window=section.window,
            placement=section.placement,
            seed=seed,
        )
    collator = InjectionCollator(
        plan,
        tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        placement=section.placement,
        seed=seed,
    )
    return plan, collator


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
        )
        trainer.create_optimizer_and_scheduler(run.args.max_steps)  # only to see that they can be made
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"training: {' '.join(str(error).split())[:300]}") from None
    trainer.optimizer = trainer.lr_scheduler = None
    for theirs, ours in ((ProgressCallback, Progress), (PrinterCallback, Lines)):
        if trainer.pop_callback(theirs):
            trainer.add_callback(ours)
    trainer.add_callback(MetricsFile(folder))
    if run.bank is not None:
        trainer.add_callback(RecallCallback(trainer, run.bank, config.evaluation, folder))
    if config.evaluation.prompts:
        trainer.add_callback(PromptsCallback(trainer, config.evaluation, folder))
    return trainer


def _check_folder(folder: Path, args: STLMTrainingArguments, overwrite: bool) -> None:
    resume = bool(args.resume_from_checkpoint)
    if overwrite and resume:
        raise UserError("--overwrite and training.resume_from_checkpoint contradict each other; give one")
    occupied = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if occupied is not None:
        raise UserError(f"training.output_dir={folder}: {occupied} is a file; take another folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite and not resume:
        raise UserError(
            f"{folder}: already holds something; take another training.output_dir, pass --overwrite to "
            "replace it, or training.resume_from_checkpoint=true to go on"
        )
    if not all((folder / name).exists() for name in RUN_FILES):
        raise UserError(
            f"{folder}: does not look like a run, so it is neither replaced nor gone on with; take another "
            "training.output_dir"
        )


def _checkpoint(args: STLMTrainingArguments, geometry: Geometry) -> Path | None:
    """The checkpoint that `training.resume_from_checkpoint` stands for."""
    wanted, folder = args.resume_from_checkpoint, Path(args.output_dir)
    if not wanted:
        return None
    if isinstance(wanted, str):
        found = [path for path in folder.glob("checkpoint-*") if path.resolve() == Path(wanted).resolve()]
        missing = missing_files(found[0]) if found else []
        if not found or missing:
            reason = f"lacks {', '.join(missing)}" if found else f"is not a checkpoint of {folder}"
            raise UserError(f"training.resume_from_checkpoint={wanted}: {reason}; give true for the newest")
        checkpoint: Path | None = found[0]
    else:
        checkpoint = last_whole_checkpoint(folder)
    if checkpoint is None:
        logger.warning("%s holds no whole checkpoint: starting from the beginning", folder)
        return None
    load_stream_state(checkpoint, geometry)  # refuses another geometry
    if step_of(checkpoint) > args.max_steps:
        raise UserError(f"training.max_steps={args.max_steps}: {checkpoint} is already past it")
    return checkpoint


def _open_folder(folder: Path, merged: DictConfig, run: Prepared, overwrite: bool) -> None:
    """Lay out the run folder: config, environment, plan and facts."""
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prepare_resume(folder, run.checkpoint)
    repeatable = merged.copy()
    repeatable.training.resume_from_checkpoint = None
    save_config(repeatable, folder / "config.yaml")
    write_json(folder / "environment.json", environment(run))
    (folder / "plan.parquet").unlink(missing_ok=True)
    if run.plan is not None:
        run.plan.save(folder / "plan.parquet")
    shutil.rmtree(folder / "facts", ignore_errors=True)
    if run.bank is not None:
        run.bank.save(folder / "facts")


def environment(run: Prepared) -> dict:
    """Versions, machine and stream: what is needed to judge or repeat the run."""
    packages = ("tidy-stlms", "torch", "transformers", "datasets", "tokenizers", "accelerate", "faker")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "git_commit": commit.stdout.strip() or None,
        "platform": platform.platform(),
        "device": str(run.args.device),
        "threads": torch.get_num_threads(),
        "processes": run.args.world_size,
        "stream": asdict(run.geometry),
    }


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
