"""Checks of a run's values: choices, ranges, and keys that contradict each other.

The values are plain, resolved, and of the right types. Every mistake raises a UserError that names the key.
"""

import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from tidy_stlms.configs.errors import UserError, nearest, shown
from tidy_stlms.configs.keys import MODEL_CONFIG
from tidy_stlms.configs.references import MISSING
from tidy_stlms.configs.yaml_files import walk

CHOICES = {
    "dropout.schedule": (None, "constant", "linear", "triangle"),
    "data.documents": ("block", "line", "file"),
    "data.packing": (None, "apart", "joined"),
    "injection.strategy": ("uniform", "random", "start", "end"),
    "injection.span": ("run", "pass"),
    "injection.placement": ("splice", "row"),
    "logging.level": ("debug", "info", "warning", "error"),
}
MAX_PATH = 1_000  # characters; operating systems take up to 4,096 bytes
MAX_NAME = 255  # bytes between two slashes
# Keys whose values name files, folders or repositories.
PATHS = (
    "model.name_or_path",
    "model.revision",
    "tokenizer.name_or_path",
    "data.name",
    "data.config",
    "data.train_files",
    "data.validation_files",
    "data.cache_dir",
    "facts.bank",
    "facts.spec",
    "evaluation.benchmark_data_dir",
    "training.output_dir",
    "training.resume_from_checkpoint",
)


class Range(NamedTuple):
    """The lowest and the highest value of a key, or of each entry of a mapping. null is not checked."""

    low: float
    high: float
    excludes_low: bool = False
    """Whether `low` itself is too low."""

    def holds(self, value: float) -> bool:
        """False for NaN too."""
        return (value > self.low if self.excludes_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low}" if self.excludes_low else f"at least {self.low}"
        return f"{low} and at most {self.high}"


STEPS = 10**9
SIZE = 10**6
SEED = 2**32 - 1
NOT_NEGATIVE, SHARE, BELOW_ONE = Range(0.0, 1e6), Range(0.0, 1.0), Range(0.0, 0.999999)
RANGES: dict[str, Range] = {
    "injection.exposures": Range(1, STEPS),
    "injection.fraction": SHARE,
    "injection.window": SHARE,
    "injection.arms": Range(0, STEPS),
    "injection.seed": Range(0, SEED),
    "dropout.start": Range(0.0, 0.99),
    "dropout.end": Range(0.0, 0.99),
    "dropout.begin": Range(0.0, STEPS),
    "dropout.until": Range(0.0, STEPS),
    "dropout.cycles": Range(1, STEPS),
    "facts.seed": Range(0, SEED),
    "tokenizer.train.vocab_size": Range(258, 10**7),
    "tokenizer.train.max_documents": Range(1, 10**12),
    "data.validation_fraction": Range(0.0, 0.9),
    "data.max_documents": Range(2, 10**12),
    "data.context_window": Range(2, 10**7),
    "training.seed": Range(0, SEED),
    "training.data_seed": Range(0, SEED),
    "training.max_steps": Range(-1, STEPS),
    "training.num_train_epochs": Range(0.0, STEPS),
    "training.per_device_train_batch_size": Range(1, SIZE),
    "training.per_device_eval_batch_size": Range(1, SIZE),
    "training.gradient_accumulation_steps": Range(1, SIZE),
    "training.learning_rate": NOT_NEGATIVE,
    "training.warmup_steps": Range(0.0, STEPS),
    "training.weight_decay": NOT_NEGATIVE,
    "training.adam_beta1": BELOW_ONE,
    "training.adam_beta2": BELOW_ONE,
    "training.adam_epsilon": NOT_NEGATIVE,
    "training.max_grad_norm": NOT_NEGATIVE,
    "training.label_smoothing_factor": SHARE,
    "training.neftune_noise_alpha": NOT_NEGATIVE,
    "training.logging_steps": Range(0, STEPS, excludes_low=True),
    "training.eval_steps": Range(0, STEPS),
    "training.eval_delay": Range(0, STEPS),
    "training.save_steps": Range(0, STEPS),
    "training.save_total_limit": Range(0, STEPS),
    "training.torch_empty_cache_steps": Range(1, STEPS),
    "training.dataloader_num_workers": Range(0, 1_000),
    "training.dataloader_prefetch_factor": Range(1, SIZE),
    "training.ddp_timeout": Range(1, STEPS),
    "training.ddp_bucket_cap_mb": Range(1, SIZE),
    "evaluation.max_new_tokens": Range(1, SIZE),
    "evaluation.top_k": Range(1, 10**7),
    "evaluation.benchmark_steps": Range(0, STEPS),
    "evaluation.benchmark_limit": Range(1, STEPS),
    "evaluation.prompt_steps": Range(0, STEPS),
    "evaluation.recall_steps": Range(0, STEPS),
    "evaluation.batch_tokens": Range(1, 10**9),
    "evaluation.validation_rows": Range(1, STEPS),
}
Values = dict[str, Any]


def check_given(values: Values) -> None:
    """Raise UserError for a value that is still missing (`???`)."""

    def check(key: str, value: Any) -> None:
        if value == MISSING:
            raise UserError(f"{key}: is missing; give a value")

    walk(values, check)


def check_finite(values: Values) -> None:
    """Raise UserError for NaN, and for an infinite number outside of `model.config`, which may hold one."""

    def check(key: str, value: Any) -> None:
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not is_finite and (math.isnan(value) or not key.startswith(MODEL_CONFIG)):
            raise UserError(f"{key}={value}: must be a finite number")

    walk(values, check)


def check_values(values: Values) -> None:
    """Refuse values outside their choices and ranges, and keys that contradict each other."""
    _check_choices(values)
    _check_paths(values)
    _check_ranges(values)  # before the checks that compare values
    _check_model_type(values["model"]["type"])
    _check_model_and_tokenizer(values["model"], values["tokenizer"])
    _check_facts_data_and_steps(values)
    _check_prompts(values["evaluation"]["prompts"])


def _check_choices(values: Values) -> None:
    for key, choices in CHOICES.items():
        value = _select(values, key)
        if value not in choices:
            listed = ", ".join(choice for choice in choices if choice)
            raise UserError(f"{key}={shown(value)}: must be one of {listed}")


def _check_paths(values: Values) -> None:
    for key in PATHS:
        value = _select(values, key)
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str):
                continue
            if len(name) > MAX_PATH or max(map(len, os.fsencode(name).split(b"/"))) > MAX_NAME:
                raise UserError(f"{key}={shown(name)}: is too long for a file name")
            if not name.strip():
                raise UserError(f"{key}={name!r}: is empty; give a name, or leave the key out")


def _check_model_type(name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = ["stlm", "stlm_byte", *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if name not in known:
        near = nearest(name[:MAX_PATH], known)
        hint = f"did you mean {near}?" if near else "use stlm, stlm_byte, gpt2, llama, ..."
        raise UserError(f"model.type={shown(name)}: not a causal language model of transformers; {hint}")


def _check_model_and_tokenizer(model: Values, tokenizer: Values) -> None:
    if model["name_or_path"] and model["config"]:
        raise UserError("model: give name_or_path (go on training) or config (from scratch), not both")
    if model["name_or_path"] and model["type"] != "stlm":
        raise UserError("model.type: is for a model from scratch; remove it, or model.name_or_path")
    if sum((bool(tokenizer["name_or_path"]), tokenizer["train"] is not None, tokenizer["bytes"])) > 1:
        raise UserError("tokenizer: give one of name_or_path, train and bytes")
    if model["name_or_path"] and (tokenizer["train"] is not None or tokenizer["bytes"]):
        raise UserError(
            "tokenizer: the model at model.name_or_path has its own; set tokenizer.train=null and "
            "tokenizer.bytes=false"
        )
    if tokenizer["train"] is not None:
        wanted = tokenizer["train"]["vocab_size"]
        given = (model["config"] or {}).get("vocab_size")
        if isinstance(given, int) and given < wanted:
            raise UserError(
                f"model.config.vocab_size={given}: is less than tokenizer.train.vocab_size={wanted}; leave "
                "it out to use the tokenizer's"
            )
    if model["type"] == "stlm_byte" and (tokenizer["name_or_path"] or tokenizer["train"] is not None):
        raise UserError("tokenizer: a byte model (model.type=stlm_byte) reads bytes; remove the section")


def _check_facts_data_and_steps(values: Values) -> None:
    facts, injection, data, training = (values[name] for name in ("facts", "injection", "data", "training"))
    if facts["bank"] and facts["spec"]:
        raise UserError("facts: give bank (a folder) or spec (to generate one), not both")
    if injection["exposures"] is not None and injection["fraction"] is not None:
        raise UserError("injection: give exposures or fraction, not both")
    if data["name"] != "files" and data["train_files"] is not None:
        raise UserError(f"data.train_files: is only read with data.name=files, not {data['name']!r}")
    if data["name"] in ("files", "synthetic") and data["split"] is not None:
        raise UserError(f"data.split: is only for datasets of the Hub, not for data.name={data['name']}")
    if data["separator"] is not None:
        _check_separator(data)
    if data["validation_files"] is None and data["validation_fraction"] == 0:
        raise UserError("data.validation_fraction=0: give data.validation_files, or hold something out")
    if training["max_steps"] <= 0 and training["num_train_epochs"] <= 0:
        raise UserError("training.max_steps: must be positive, or training.num_train_epochs")


def _check_separator(data: dict[str, Any]) -> None:
    separator = data["separator"]
    key = f"data.separator={separator!r}"
    if not separator.strip() or separator.strip() != separator or "\n" in separator:
        raise UserError(f"{key}: must be one line of text, without white space around it")
    if data["documents"] != "block":
        raise UserError(
            f"{key}: is only used with data.documents=block; remove it, or data.documents={data['documents']}"
        )


def _check_prompts(prompts: list[dict[str, str]]) -> None:
    for number, prompt in enumerate(prompts):
        key = f"evaluation.prompts[{number}]"
        if unknown := set(prompt) - {"sentence", "answer", "joint"}:
            raise UserError(f"{key}.{min(unknown)}: no such key; a prompt has sentence, answer and joint")
        if not prompt.get("sentence", "").strip():
            raise UserError(f"{key}.sentence: is missing")
        if not prompt.get("answer", "an answer").strip():
            raise UserError(f"{key}.answer: is empty; leave it out if there is none")
        if prompt.get("joint", " ") not in (" ", ""):
            raise UserError(f'{key}.joint={shown(prompt["joint"])}: must be "" or " "')


def _check_ranges(values: Values) -> None:
    for section, limits in RANGES.items():
        for key, value in _entries(section, _select(values, section)):
            if value is not None and not limits.holds(value):
                raise UserError(f"{key}={shown(value)}: must be {limits}")


def _entries(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{key}.{name}", item) for name, item in value.items())
    else:
        yield key, value


def _select(values: Values, key: str) -> Any:
    """The value of a full key; None if a section on the way is left out."""
    value: Any = values
    for name in key.split("."):
        value = value[name] if value is not None else None
    return value
