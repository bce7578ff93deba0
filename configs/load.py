"""Merges YAML files and key=value overrides into one checked RunConfig.

Later files win over earlier ones, and the command line wins over files. A file may name a `default_model`,
such as configs/models/stlm_10m.yaml. It is read before all files if nothing else names a model. Every mistake
raises a UserError that names the full key, and the file or the command line.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tidy_stlms.configs.errors import UserError, first_line, nearest
from tidy_stlms.configs.files import find_shipped, read_text, write_whole
from tidy_stlms.configs.schema import RunConfig

CHOICES = {
    "dropout.schedule": (None, "constant", "linear", "triangle"),
    "data.documents": ("block", "line", "file"),
    "injection.strategy": ("uniform", "random", "start", "end"),
    "injection.span": ("run", "pass"),
    "injection.placement": ("splice", "row"),
    "logging.level": ("debug", "info", "warning", "error"),
}

# The lowest and the highest value of a key, or of each entry of a mapping; null is not checked.
RANGES: dict[str, tuple[float, float | None]] = {
    "injection.exposures": (1, None),
    "injection.fraction": (0.0, 1.0),
    "injection.window": (0.0, 1.0),
    "injection.arms": (0, None),
    "dropout.start": (0.0, 0.99),
    "dropout.end": (0.0, 0.99),
    "dropout.begin": (0.0, None),
    "dropout.until": (0.0, None),
    "dropout.cycles": (1, None),
    "injection.seed": (0, None),
    "facts.seed": (0, None),
    "data.validation_fraction": (0.0, 0.9),
    "data.max_documents": (2, None),
    "data.context_window": (2, None),
    "training.seed": (0, 2**32 - 1),
    "training.per_device_train_batch_size": (1, None),
    "training.per_device_eval_batch_size": (1, None),
    "training.gradient_accumulation_steps": (1, None),
    "evaluation.max_new_tokens": (1, None),
    "evaluation.top_k": (1, None),
    "evaluation.benchmark_steps": (0, None),
    "evaluation.benchmark_limit": (1, None),
    "evaluation.prompt_steps": (0, None),
    "evaluation.recall_steps": (0, None),
    "evaluation.batch_tokens": (1, None),
    "evaluation.validation_rows": (1, None),
}

DEFAULT_MODEL = "default_model"


def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> tuple[RunConfig, DictConfig]:
    """Merge `files`, then `overrides` (`section.key=value`), and check the result.

    Returns the config as dataclasses, and as written. `save_config` writes the second one, because
    TrainingArguments changes some of its fields when it is built.

    Raises UserError for an unknown key (and names the nearest key), a wrong type, a value outside its choices
    or its range, and a missing or broken file.
    """
    merged = OmegaConf.structured(RunConfig)
    for name, part in _with_default_model(
        [(str(file), _read_yaml(find_shipped(file))) for file in files], overrides
    ):
        merged = _merge(merged, part, name)
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r}: expected section.key=value")
        try:
            parsed = OmegaConf.from_dotlist([override])
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{override!r}: {first_line(error)}") from None
        merged = _merge(merged, parsed, "command line")
    if OmegaConf.is_missing(merged, "training") or not merged.training.output_dir:
        default = f"outputs/{Path(files[-1]).stem}" if files else "outputs/run"
        merged = OmegaConf.merge(merged, {"training": {"output_dir": default}})
    _check(merged)
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    assert isinstance(config, RunConfig)
    return config, merged


def save_config(merged: DictConfig, path: str | Path) -> None:
    """Write the resolved config as YAML, whole."""
    write_whole(path, config_yaml(merged))


def read_config(path: str | Path) -> dict[str, Any]:
    """The plain values of a run's saved config. Raises UserError if it is missing or damaged."""
    values: Any = OmegaConf.to_container(_read_yaml(Path(path)))
    return values


def config_yaml(merged: DictConfig) -> str:
    return OmegaConf.to_yaml(merged, resolve=True)


def check_keys(values: dict[str, Any], dataclass: type, section: str) -> None:
    """Raise UserError for the first key of `values` that is no field of `dataclass`."""
    names = [f.name for f in dataclasses.fields(dataclass) if not f.name.startswith("_")]
    names += getattr(dataclass, "attribute_map", {})  # a model's config has second names for some fields
    for key in values:
        if key not in names:
            near = nearest(key, names)
            hint = f"did you mean {section}.{near}?" if near else f"known: {', '.join(sorted(names))}"
            raise UserError(f"{section}.{key}: no such key; {hint}")


def _check_model_type(name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = ["stlm", "stlm_byte", *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else "take stlm, stlm_byte, gpt2, llama, ..."
        raise UserError(f"model.type={name!r}: no causal language model of transformers; {hint}")


def _read_yaml(path: Path) -> DictConfig:
    text = read_text(path)
    try:
        loaded = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not valid YAML ({first_line(error)})") from None
    if not isinstance(loaded, DictConfig) or (text.strip() and not loaded):
        raise UserError(f"{path}: must hold sections such as `model:` and `training:`")
    return loaded


def _with_default_model(
    parts: list[tuple[str, DictConfig]], overrides: Sequence[str]
) -> list[tuple[str, DictConfig]]:
    """Put the last `default_model` before all files, unless a file or an override names a model."""
    defaults = [
        str(name) for name in (part.pop(DEFAULT_MODEL, None) for _, part in parts) if name is not None
    ]
    is_named = any("model" in part for _, part in parts) or any(
        o.startswith("model.name_or_path=") for o in overrides
    )
    if not defaults or is_named:
        return parts
    return [(defaults[-1], _read_yaml(find_shipped(defaults[-1]))), *parts]


def _merge(base: DictConfig, new: DictConfig, where: str) -> DictConfig:
    resolver = re.search(r"\$\{\s*[\w.]+\s*:[^}]*\}", OmegaConf.to_yaml(new))
    if resolver:  # resolvers such as oc.env would write a secret into the saved config
        raise UserError(
            f"{where}: {resolver.group()}: resolvers are not allowed here; write the value itself"
        )
    try:
        return OmegaConf.merge(base, new)  # type: ignore[return-value]
    except (OmegaConfBaseException, TypeError) as error:
        if isinstance(error, OmegaConfBaseException) and "is not a subclass" not in str(error):
            raise UserError(f"{where}: {_describe(error)}") from None
        key = next((str(key) for key in new if not OmegaConf.is_dict(new[key])), str(next(iter(new), "?")))
        raise UserError(f"{where}: {key}: a section or mapping was expected here") from None


def _describe(error: OmegaConfBaseException) -> str:
    """`training.learnign_rate: no such key; did you mean training.learning_rate?`"""
    message, key = first_line(error), error.full_key or ""
    if "not in" in message:
        parent, _, name = key.rpartition(".")
        section = error.object_type
        fields = dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()
        if near := nearest(name, [field.name for field in fields]):
            hint = f"; did you mean {parent + '.' if parent else ''}{near}?"
        elif not parent:
            hint = f"; the sections are {', '.join(f.name for f in dataclasses.fields(RunConfig))}"
        else:
            hint = f"; see `stlm train --keys {parent}`"
        return f"{key}: no such key{hint}"
    return f"{key}: {message}" if key else message


def _check(merged: DictConfig) -> None:
    """Refuse values outside their choices and ranges, and keys that contradict each other."""
    _check_choices(merged)
    _check_model_type(merged.model.type)
    _check_model_and_tokenizer(merged.model, merged.tokenizer)
    _check_facts_and_data(merged)
    _check_prompts(merged.evaluation.prompts)
    _check_ranges(merged)


def _check_choices(merged: DictConfig) -> None:
    try:
        for key, choices in CHOICES.items():
            value = OmegaConf.select(merged, key)
            if value not in choices:
                raise UserError(
                    f"{key}={value!r}: must be one of {', '.join(map(str, filter(None, choices)))}"
                )
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None


def _check_model_and_tokenizer(model: DictConfig, tokenizer: DictConfig) -> None:
    if model.name_or_path and model.config:
        raise UserError("model: give name_or_path (go on training) or config (from scratch), not both")
    if model.name_or_path and model.type != "stlm":
        raise UserError("model.type: is for a model from scratch; remove it, or model.name_or_path")
    if sum((bool(tokenizer.name_or_path), tokenizer.train is not None, tokenizer.bytes)) > 1:
        raise UserError("tokenizer: give one of name_or_path, train and bytes")
    if model.name_or_path and (tokenizer.train is not None or tokenizer.bytes):
        raise UserError(
            "tokenizer: the model at model.name_or_path knows its own; set tokenizer.train=null and "
            "tokenizer.bytes=false"
        )
    if model.type == "stlm_byte" and (tokenizer.name_or_path or tokenizer.train is not None):
        raise UserError("tokenizer: a byte model (model.type=stlm_byte) reads bytes; remove the section")


def _check_facts_and_data(merged: DictConfig) -> None:
    facts, injection, data, training = merged.facts, merged.injection, merged.data, merged.training
    if facts.bank and facts.spec:
        raise UserError("facts: give bank (a folder) or spec (to generate one), not both")
    if injection.exposures is not None and injection.fraction is not None:
        raise UserError("injection: give exposures or fraction, not both")
    if data.name != "files" and data.train_files is not None:
        raise UserError(f"data.train_files: is only read with data.name=files, not {data.name!r}")
    if data.name in ("files", "synthetic") and data.split is not None:
        raise UserError(f"data.split: is for datasets of the Hub, and data.name={data.name} is none")
    if data.separator is not None:
        _check_separator(data)
    if data.validation_files is None and data.validation_fraction == 0:
        raise UserError("data.validation_fraction=0: give data.validation_files, or hold something out")
    if training.max_steps <= 0 and training.num_train_epochs <= 0:
        raise UserError("training.max_steps: must be positive, or training.num_train_epochs")


def _check_separator(data: DictConfig) -> None:
    key = f"data.separator={data.separator!r}"
    if not data.separator.strip() or data.separator.strip() != data.separator or "\n" in data.separator:
        raise UserError(f"{key}: must be one line of text, without white space around it")
    if data.documents != "block":
        raise UserError(f"{key}: stands between blocks; remove it, or data.documents={data.documents}")


def _check_prompts(prompts: ListConfig) -> None:
    for number, prompt in enumerate(prompts):
        key = f"evaluation.prompts[{number}]"
        if unknown := set(prompt) - {"sentence", "answer", "joint"}:
            raise UserError(f"{key}.{min(unknown)}: no such key; a prompt has sentence, answer and joint")
        if not prompt.get("sentence"):
            raise UserError(f"{key}.sentence: is missing")
        if prompt.get("joint", " ") not in (" ", ""):
            raise UserError(f'{key}.joint={prompt["joint"]!r}: must be "" or " "')


def _check_ranges(merged: DictConfig) -> None:
    for section, (low, high) in RANGES.items():
        selected = OmegaConf.select(merged, section)
        values = {section: selected}
        if OmegaConf.is_dict(selected):
            values = {f"{section}.{name}": value for name, value in selected.items()}
        for key, value in values.items():
            if value is not None and (value < low or (high is not None and value > high)):
                raise UserError(
                    f"{key}={value}: must be at least {low}" + (f" and at most {high}" if high else "")
                )


def cache_folder(configured: str | None) -> Path:
    """The folder for prepared corpora, trained tokenizers and cached results."""
    return Path(configured or os.environ.get("STLM_CACHE") or "~/.cache/tidy-stlms").expanduser()
