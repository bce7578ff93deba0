"""Converts a full YAML config of Tidy-STLMs to our config, and lists what could not be carried over.

Each value of the source, by its dotted key, is carried over, carried over with a difference, or left behind
with a reason. Interpolations are not resolved: `${...}` is refused.
"""

import math
from pathlib import Path
from typing import Any

from tidy_stlms.configs.corpora import CORPORA, short_names
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.tidy.account import SO_HERE, Account, TidyConversion, leaves
from tidy_stlms.configs.tidy.evaluation import carry_benchmarks, carry_prompts
from tidy_stlms.configs.yaml_files import read_yaml

# Keys without a counterpart here, and the values for which both projects do the same.
SETTLED: dict[str, tuple[Any, ...]] = {
    "trainer.training.trainer_type": ("base_trainer",),
    "trainer.training.run_profiler": (False,),
    "trainer.loss_fn.name": ("cross_entropy", "masked_cross_entropy"),
    "trainer.dataloader_processor.name": ("standard",),
    "trainer.dataloader.name": ("normal", "standard", "inject", "insert"),
    "trainer.optimizer.decay_lr": (True,),
}
# Names of sections and keys in newer and in older versions of Tidy-STLMs.
INJECT = (
    ("trainer.inject", "injection", "inject", "injected"),
    ("trainer.insert", "insertion", "insert", "inserted"),
)
STEPS = "trainer.training.max_iters"
LEFT_BEHIND = {
    "checkpoint": "convert it by `stlm convert tidy`, and give the folder as model.name_or_path instead of "
    "model.config; the optimizer's state stays behind",
    "trainer.optimizer.warmup_iters": "trainer.training.warmup_iters is the one that is read",
    "trainer.prompt.generator.temperature": "prompts are continued by the most probable token",
    "trainer.prompt.generator.top_k": "prompts are continued by the most probable token; evaluation.top_k "
    "is how many alternatives are recorded",
    "trainer.prompt.generator.seed": "nothing is drawn at random there",
    "trainer.prompt.generator.steps_to_log": "every step is recorded",
    "general.paths.output_dir": "a run lies whole in training.output_dir, or outputs/ and the config's name",
    "general.paths.data_dir": "prepared corpora lie in data.cache_dir",
    "general.paths.checkpoint_dir": "checkpoints lie in training.output_dir",
}


def read_tidy_config(path: str | Path) -> dict[str, Any]:
    """A full config of Tidy-STLMs as plain values.

    Raises UserError for a file that is missing, is no YAML or no full config, or contains an interpolation or
    a number that is not finite.
    """
    config = read_yaml(path)
    config = config.get("full_configs", config) if isinstance(config, dict) else {}
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise UserError(
            f"{path}: no full config of Tidy-STLMs, such as those in configs/full_configs; no `model:`"
        )
    for section in ("trainer", "general"):
        if not isinstance(config.get(section) or {}, dict):
            raise UserError(f"{path}: {section}: must be a section of keys")
    for key, value in leaves(config):
        if "${" in f"{key} {value}":
            raise UserError(f"{path}: {key}={value}: interpolations are not resolved; write the value itself")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}: {key}={value}: must be a finite number")
    return config


def convert_tidy_config(
    config: dict[str, Any], model_fields: dict[str, Any], model_keys: dict[str, str | None], where: str
) -> TidyConversion:
    """Our config for a full config of Tidy-STLMs.

    Args:
        config: What `read_tidy_config` returned.
        model_fields: Fields of STLMConfig for its `model` section.
        model_keys: The field of STLMConfig for each key below `model`; None for a key that can have only one
            value.
        where: The file, for messages.

    Raises UserError for a value of the wrong type, and where neither max_iters nor max_epochs is positive.
    """
    source = Account(config, where)
    _model(source, model_fields, model_keys)
    _dropout(source)
    _data(source)
    _training(source)
    _optimizer(source)
    _injection(source)
    carry_prompts(source)
    carry_benchmarks(source, source.number(STEPS))
    _general(source)
    for key, wanted in SETTLED.items():
        source.settle(key, *wanted)
    for key, reason in LEFT_BEHIND.items():
        source.leave(key, reason)
    for key in list(source.left):
        source.leave(key, "unknown here")
    return source.result


def _model(source: Account, fields: dict[str, Any], keys: dict[str, str | None]) -> None:
    fields = {name: value for name, value in fields.items() if value is not None}
    kind, size = source.get("model.embedder.tokenizer_type"), fields["vocab_size"]
    if kind == "bpe":
        del fields["vocab_size"]  # a tokenizer trained on a small corpus has fewer tokens
        note = "a new one is trained, by words; `stlm convert tidy --tokenizer` keeps an old one"
        source.carry("model.vocab_size", "tokenizer.train.vocab_size")
        source.carry("model.embedder.tokenizer_type", "tokenizer.train.vocab_size", size, note=note)
    elif kind == "gpt2":
        source.carry("model.embedder.tokenizer_type", "tokenizer.name_or_path")
    else:
        source.leave("model.embedder.tokenizer_type", "give a tokenizer as tokenizer.name_or_path")
    if fields["mlp_type"] == "gated":
        source.leave("model.core_model.ffn.activation", "swiglu has its own")
    for key, name in keys.items():
        source.same(f"model.{key}", f"model.config.{name}" if name else SO_HERE)
    for name, value in fields.items():
        source.put(f"model.config.{name}", value)
    if kind != "bpe" or source.get("model.embedder.dataset_name") == source.get("trainer.dataset"):
        source.same("model.embedder.dataset_name")
    source.leave("model.embedder.dataset_name", "a tokenizer is trained on the run's own corpus")


def _dropout(source: Account) -> None:
    section = "trainer.dropout_scheduler"
    kind = source.get(f"{section}.dropout_type")
    if kind == "constant":
        note = "here on what a feed-forward adds, too (model.config.resid_dropout)"
        key = f"{section}.dropout_p"
        if key not in source.left:
            key = f"{section}.dropout"  # in older configs
        probability = float(source.number(key))
        source.same(f"{section}.dropout_type")
        for name in ("embd_dropout", "attention_dropout"):
            source.put(f"model.config.{name}", probability)
        source.carry(key, "model.config.resid_dropout", probability, note=note)
    elif kind in ("linear", "triangle"):
        source.carry(f"{section}.dropout_type", "dropout.schedule")
        names = {
            "linear": ("start_dropout_p", "end_dropout_p", "start_iter", "end_iter"),
            "triangle": ("dropout_trough", "dropout_peak", "", "num_iterations"),
        }[kind]
        steps = source.number(STEPS)
        for name, ours in zip(names, ("start", "end", "begin", "until"), strict=True):
            is_step_1 = name.endswith(("iter", "iterations")) and source.get(f"{section}.{name}") == 1
            different = "step 0 here, one earlier" if is_step_1 else None
            if name == "num_iterations" and not 0 < steps <= source.number(f"{section}.{name}"):
                different = "the triangles go on behind it there; here dropout stays at dropout.start"
            # dropout.begin and dropout.until up to 1 are shares of all steps, so step 1 becomes 0
            source.carry(f"{section}.{name}", f"dropout.{ours}", *((0,) if is_step_1 else ()), note=different)
        source.carry(f"{section}.num_cycles", "dropout.cycles")
    for key in [key for key in source.left if key.startswith(f"{section}.")]:
        source.leave(key, f"no part of a {kind} schedule here")


def _data(source: Account) -> None:
    corpus = source.get("trainer.dataset")
    source.put("data.validation_fraction", 0.1)  # Tidy-STLMs holds out a tenth of any corpus
    if corpus == "debug":
        source.put("data.max_documents", 2048)
        source.carry("trainer.dataset", "data.name", "simple_en_wiki")
    elif corpus in short_names():
        source.carry("trainer.dataset", "data.name")
    else:
        source.put("data.name", "files")  # without data.train_files a run stops, and says so
        reason = (
            f"not in configs/{CORPORA.name}; give its files as data.train_files, or a Hub id as data.name"
        )
        source.leave("trainer.dataset", reason)


def _training(source: Account) -> None:
    section = "trainer.training"
    batch = source.number(f"{section}.batch_size", 8)
    source.carry(f"{section}.batch_size", "training.per_device_train_batch_size")
    source.carry(f"{section}.gradient_accumulation_steps", "training.gradient_accumulation_steps")
    steps, epochs = source.number(STEPS, -1), source.number(f"{section}.max_epochs", -1)
    if steps > 0:
        source.carry(STEPS, "training.max_steps", int(steps))
        source.leave(f"{section}.max_epochs", "max_iters goes first")
    elif epochs > 0:
        source.leave(STEPS, "max_epochs goes first")
        source.carry(f"{section}.max_epochs", "training.num_train_epochs", float(epochs))
    else:
        raise UserError(f"{source.where}: {section}: max_iters or max_epochs must be positive")
    _warmup(source, int(steps))
    if (rows := int(source.number(f"{section}.eval_iters") * batch)) > 0:
        source.carry(f"{section}.eval_iters", "evaluation.validation_rows", rows)
        source.put("training.per_device_eval_batch_size", int(batch))
    source.leave(f"{section}.eval_iters", "must be positive")
    source.carry(f"{section}.use_tqdm", "training.disable_tqdm", not source.get(f"{section}.use_tqdm"))

    by_epochs = epochs if steps <= 0 else None
    _interval(source, f"{section}.log_interval", "training.logging_steps", by_epochs)
    _interval(source, f"{section}.eval_interval", "training.eval_steps", by_epochs, "training.eval_strategy")
    _interval(
        source, f"{section}.checkpoint_interval", "training.save_steps", by_epochs, "training.save_strategy"
    )
    if source.number(f"{section}.checkpoint_interval") > 0:
        source.put("training.save_total_limit", None)  # Tidy-STLMs keeps all of them
    for word in ("injected", "inserted"):
        _interval(source, f"{section}.{word}_eval_interval", "evaluation.recall_steps", by_epochs)
    _interval(source, f"{section}.prompt_interval", "evaluation.prompt_steps", by_epochs)


def _interval(
    source: Account, key: str, ours: str, epochs: float | None, strategy: str | None = None
) -> None:
    """Carry over an interval of steps. Epochs become a share of all steps, if our key takes shares."""
    every = source.number(key)
    if every <= 0 and strategy:
        source.carry(key, strategy, "no")
    elif every <= 0 and ours.startswith("evaluation."):
        source.carry(key, ours, 0)
    elif every <= 0:
        source.leave(key, f"metrics.jsonl is always written; {ours} says how often")
    elif epochs is None:
        source.carry(key, ours, int(every))
    elif ours.startswith("training.") and every < epochs:
        source.carry(key, ours, round(every / epochs, 6), note="epochs there, a share of all steps here")
    else:
        source.leave(key, f"counts epochs; {ours} counts steps")


def _warmup(source: Account, steps: int) -> None:
    """Carry over warm-up and decay: shares of all steps, as Tidy-STLMs reads them, or numbers of steps."""
    warmup, decay = "trainer.training.warmup_iters", "trainer.training.lr_decay_iters"
    if source.get("trainer.lr_scheduler.name") == "constant":
        source.put("training.warmup_steps", 0)
        for key in (warmup, decay):
            source.leave(key, "a constant learning rate has none")
        return
    value = source.number(warmup)
    if 0 <= value < 1:
        source.carry(warmup, "training.warmup_steps", float(value))
    elif value == 1:
        source.leave(warmup, "a share of 1 would be nothing but warm-up; give training.warmup_steps")
    else:
        note = "taken as steps, though Tidy-STLMs multiplies by max_iters"
        source.carry(warmup, "training.warmup_steps", int(value), note=note)
    if source.number(decay, 1) in (1, steps):
        note = "the cosine is as long as the run there, and cut off by warm-up before it has reached min_lr"
        source.same(decay, note=note if value else None)
    source.leave(decay, "the learning rate falls until the last step")


def _optimizer(source: Account) -> None:
    section = "trainer.optimizer"
    rate, least = source.number(f"{section}.lr", 6e-4), source.number(f"{section}.min_lr")
    schedule = source.get("trainer.lr_scheduler.name")
    names = ("lr", "weight_decay", "beta1", "beta2", "grad_clip")
    ours = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm")
    for name, key in zip(names, ours, strict=True):
        if f"{section}.{name}" in source.left:
            source.carry(f"{section}.{name}", f"training.{key}", float(source.number(f"{section}.{name}")))
    if schedule == "constant":
        source.carry("trainer.lr_scheduler.name", "training.lr_scheduler_type")
        source.put("training.lr_scheduler_kwargs", None)
        source.leave(f"{section}.min_lr", "a constant learning rate has none")
    elif schedule == "cosine":
        source.carry("trainer.lr_scheduler.name", "training.lr_scheduler_type", "cosine_with_min_lr")
    if rate > 0:
        share = {"min_lr_rate": round(least / rate, 9)}
        source.carry(f"{section}.min_lr", "training.lr_scheduler_kwargs", share)
    source.leave("trainer.lr_scheduler.name", "see training.lr_scheduler_type for what there is")
    if source.get(f"{section}.name") == "adamW":
        source.same(f"{section}.name", note="vectors and biases are not decayed here")
    source.settle(f"{section}.name", "nanoGPTadamW", "adamW")


def _injection(source: Account) -> None:
    for section, noun, verb, participle in INJECT:
        if not any(key.startswith(f"{section}.") for key in source.left):
            continue
        source.put("injection.placement", "row")  # Tidy-STLMs puts each statement alone in a row
        source.carry(f"{section}.perform_{noun}", "injection.enabled")
        strategy = source.get(f"{section}.{verb}_strategy")
        gaps = "one after the other there; here spread over injection.window of the span"
        source.carry(
            f"{section}.{verb}_strategy",
            "injection.strategy",
            note=gaps if strategy in ("start", "end") else None,
        )
        _exposures(source, f"{section}.num_{noun}s", f"{section}.{noun}_pct")
        _facts(source, section, verb, participle)


def _facts(source: Account, section: str, verb: str, participle: str) -> None:
    """Name a bank that the user still has to make. Without it a run stops, instead of injecting nothing."""
    data_folder = Path(str(source.get(f"{section}.{verb}_data", "facts"))).parent
    bank = f"banks/{data_folder.name or 'facts'}"
    if source.result.config["injection"].get("enabled"):
        source.put("facts.bank", bank)
    folder = Path(str(source.get("general.paths.data_dir", "data"))) / verb / data_folder
    reason = f"make a bank by `stlm facts import tidy {folder} --out {bank}`, for facts.bank"
    source.leave(f"{section}.{verb}_data", reason)
    source.leave(f"{section}.{participle}_prompts", reason)


def _exposures(source: Account, number: str, share: str) -> None:
    count, epochs = source.number(number), source.number("trainer.training.max_epochs")
    if count > 0:
        passes = epochs if source.number(STEPS) <= 0 and epochs > 0 else None
        note = "of a statement in every pass over the corpus there; of a fact in the whole run here"
        source.put("injection.span", "pass" if passes else "run")
        source.carry(number, "injection.exposures", max(1, int(count * (passes or 1))), note=note)
        source.leave(share, f"{number.rpartition('.')[2]} goes first")
    elif source.number(share) > 0:
        note = "of rows there, of tokens here, where a statement counts without padding: more exposures"
        source.carry(share, "injection.fraction", float(source.number(share)), note=note)
    source.leave(number, "must be positive")
    source.leave(share, "must be positive")


def _general(source: Account) -> None:
    wandb = source.get("general.logging.wandb_log")
    source.carry("general.logging.wandb_log", "training.report_to", "wandb" if wandb else "none")
    source.carry("general.logging.wandb_project", "logging.project")
    source.carry("general.seed", "training.seed")
    if source.get("general.device") == "cpu":
        source.carry("general.device", "training.use_cpu", True)
    elif source.get("general.device") == "cuda":
        note = "it computes in bfloat16 there, or float16; here in float32 unless training.bf16 is true"
        source.same("general.device", note=note)
    source.leave(
        "general.device", "only cuda or cpu is so here; `CUDA_VISIBLE_DEVICES` chooses one of several"
    )
