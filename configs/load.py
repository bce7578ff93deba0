"""Merges YAML files and key=value overrides into one checked RunConfig.

Later files win over earlier ones, and the command line wins over files. A file may name a `default_model`,
such as configs/models/stlm_10m.yaml. It is read before all files if nothing else names a model. Every mistake
raises a UserError that names the full key, and the file or the command line.

    names of keys (keys.py)  ->  merge  ->  references (references.py)  ->  values (checks.py)

Names are checked first, without importing transformers, so that a misspelled key is reported at once.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tidy_stlms.configs.checks import check_finite, check_given, check_values
from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.files import find_shipped, write_whole
from tidy_stlms.configs.keys import check_model_keys, check_names
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.references import check_references, escape, resolve
from tidy_stlms.configs.value_types import find_mismatch
from tidy_stlms.configs.yaml_files import parse_override, read_mapping

if TYPE_CHECKING:
    from tidy_stlms.configs.schema import RunConfig

DEFAULT_MODEL = "default_model"
COMMAND_LINE = "command line"
Part = tuple[str, dict[str, Any]]
"""The values of a file or an override, and where they come from."""


def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> tuple["RunConfig", DictConfig]:
    """Merge `files`, then `overrides` (`section.key=value`), and check the result.

    Returns the config as dataclasses, and as written. `save_config` writes the second one, because
    TrainingArguments changes some of its fields when it is built.

    Raises UserError for an unknown key (and names the nearest key), a wrong type, a value outside its choices
    or its range, and a missing or broken file.
    """
    parts = _read_parts(files, overrides)
    for where, values in parts:
        check_references(values, where)
        check_names(values, where)
    _check_model_keys(parts)
    default = f"outputs/{Path(files[-1]).stem}" if files else "outputs/run"

    from tidy_stlms.configs.schema import RunConfig  # here, since it takes seconds

    merged = structured = OmegaConf.structured(RunConfig)
    for where, values in parts:
        _check_types(values, where)
        merged = _merge(merged, values, where)
    if OmegaConf.is_missing(merged, "training") or not merged.training.output_dir:
        merged = _merge(merged, {"training": {"output_dir": default}}, "config")
    resolved = resolve(_container(merged), "config")
    check_given(resolved)
    _check_types(resolved, "config", is_resolved=True)  # now the values behind references too
    merged = _merge(structured, escape(resolved), "config")
    whole = resolve(_container(merged), "config")
    check_finite(whole)
    check_values(whole)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    return config, merged


def save_config(merged: DictConfig, path: str | Path) -> None:
    """Write the resolved config as YAML, whole."""
    write_whole(path, config_yaml(merged))


def read_config(path: str | Path) -> dict[str, Any]:
    """The plain values of a run's saved config, by section. What it leaves out has its default.

    Raises UserError if it is missing or damaged. The keys of `training` are not checked: they are those of
    the transformers version that made the run.
    """
    from tidy_stlms.configs.schema import RunConfig

    values = read_mapping(path, "must hold the sections of a run's config")
    check_references(values, str(path))
    values = resolve(values, str(path))
    training = values.pop("training", {})
    if not isinstance(training, dict):
        raise UserError(f"{path}: training={shown(training)}: must be a mapping of keys")
    _check_types(values, str(path), is_resolved=True)
    defaults: Any = OmegaConf.to_container(OmegaConf.structured(RunConfig))
    sections = {name: {**defaults[name], **values.get(name, {})} for name in defaults if name != "training"}
    return {**sections, "training": training}


def config_yaml(merged: DictConfig) -> str:
    """The config as YAML, which `load_config` reads as the same values."""
    return OmegaConf.to_yaml(merged)


def cache_folder(configured: str | None) -> Path:
    """The folder for prepared corpora, trained tokenizers and cached results."""
    return Path(configured or os.environ.get("STLM_CACHE") or "~/.cache/tidy-stlms").expanduser()


def _read_parts(files: Sequence[str | Path], overrides: Sequence[str]) -> list[Part]:
    """What to merge, in order: the default model if nothing else names one, files, overrides."""
    parts = [(str(file), _read_sections(file)) for file in files]
    defaults = [
        (where, values.pop(DEFAULT_MODEL)) for where, values in parts if values.get(DEFAULT_MODEL) is not None
    ]
    given = [(COMMAND_LINE, parse_override(override)) for override in overrides]
    is_named = any("model" in values for _, values in parts) or any(
        isinstance(values.get("model"), dict) and "name_or_path" in values["model"] for _, values in given
    )
    if defaults and not is_named:
        where, name = defaults[-1]
        if not isinstance(name, str) or "${" in name:
            raise UserError(f"{where}: {DEFAULT_MODEL}: must be the name of a file, got {shown(name)}")
        parts = [(name, _read_sections(name)), *parts]
    return [*parts, *given]


def _read_sections(file: str | Path) -> dict[str, Any]:
    return read_mapping(find_shipped(file), "must hold sections such as `model:` and `training:`")


def _check_model_keys(parts: Sequence[Part]) -> None:
    """Check the names in `model.config` of STLMs. Other models need transformers for this."""
    model_type, base = "stlm", None
    given: dict[str, Any] = {}
    for _, values in parts:
        section = values.get("model") or {}
        if not isinstance(section, dict):
            return  # `_check_types` reports it
        model_type, base = section.get("type", model_type), section.get("name_or_path", base)
        config = section.get("config", {})
        given = {**given, **config} if isinstance(config, dict) else {}
    if isinstance(model_type, str) and not base:
        check_model_keys(model_type, given)


def _check_types(values: dict[str, Any], where: str, *, is_resolved: bool = False) -> None:
    from tidy_stlms.configs.schema import RunConfig

    if found := find_mismatch(values, RunConfig, where, is_resolved=is_resolved):
        raise UserError(f"{where}: {found.key}={shown(found.value)}: must be {found.needed}")


def _container(merged: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(merged, resolve=False)  # type: ignore[return-value]


def _merge(base: Any, values: dict[str, Any], where: str) -> Any:
    with reading(where):
        return OmegaConf.merge(base, OmegaConf.create(values))
