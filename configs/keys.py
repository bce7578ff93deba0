"""Every key of a run: its type, default and meaning for `stlm train --keys`, and the check of names.

The names are read from the source code of the schema, transformers and the model, without importing them. So
a misspelled key is reported within a second.
"""

import ast
import functools
import textwrap
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, nearest, one_line
from tidy_stlms.configs.source_fields import (
    SourceField,
    classes_in_source,
    fields_in_source,
    package_folder,
)

SCHEMA = Path(__file__).parent / "schema.py"
ARGUMENTS = "STLMTrainingArguments"  # a subclass of transformers' TrainingArguments
MODEL_CONFIG = "model.config"
DTYPE = "dtype"  # the only field of transformers' PreTrainedConfig that a run's config may set
MODEL_CLASSES = {
    "stlm": (("configuration_stlm.py", "STLMConfig"),),
    "stlm_byte": (("configuration_stlm.py", "STLMConfig"), ("configuration_stlm_byte.py", "STLMByteConfig")),
}
HINT_LIMIT = 300  # characters
Fields = dict[str, SourceField]


def describe_keys(section: str = "") -> str:
    """The keys of `section`, or of all sections. Raises UserError if there is no such section."""
    classes = classes_in_source(SCHEMA)
    sections = {field.name: classes[field.annotation] for field in fields_in_source(classes["RunConfig"])}
    if section and section not in sections:
        raise UserError(f"no section {section!r}; there are {', '.join(sections)}")
    lines = []
    for name, node in sections.items():
        if section in ("", name):
            lines += [f"{name}: {ast.get_docstring(node)}", *_field_lines(node, f"  {name}.", classes), ""]
    return "\n".join(lines)


def _field_lines(node: ast.ClassDef, prefix: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    fields = _fields(node.name)
    for field in (fields[own.name] for own in fields_in_source(node)):
        yield f"{prefix}{field.name}: {field.annotation} = {field.default}"
        for line in field.meaning.splitlines():
            yield textwrap.fill(line, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
        if nested := nested_class(field.annotation):
            yield from _field_lines(classes[nested], f"{prefix}{field.name}.", classes)


def check_names(values: dict[str, Any], where: str) -> None:
    """Raise UserError, with the nearest key, for a key of a run's config that does not exist."""
    _check_section(values, "", "RunConfig", where)


def _check_section(values: dict[str, Any], section: str, class_name: str, where: str) -> None:
    fields = _fields(class_name)
    for name, value in values.items():
        key = f"{section}.{name}" if section else name
        if name not in fields:
            raise UserError(f"{where}: {unknown_key(section, name, fields)}")
        nested = nested_class(fields[name].annotation)
        if nested and isinstance(value, dict):
            _check_section(value, key, nested, where)


def check_model_keys(model_type: str, given: dict[str, Any]) -> None:
    """Raise UserError for a key of `model.config` that an STLM does not have. Other types are not checked."""
    if model_type in MODEL_CLASSES:
        check_known(given, model_fields(model_type), MODEL_CONFIG)


def check_known(given: Iterable[str], names: Collection[str], section: str) -> None:
    """Raise UserError, with the nearest name, for the first key in `given` that is not in `names`."""
    for name in given:
        if name not in names:
            raise UserError(unknown_key(section, name, names))


def unknown_key(section: str, name: str, names: Collection[str]) -> str:
    """`training.max_step: no such key; did you mean training.max_steps?`"""
    prefix = f"{section}." if section else ""
    sections = _sections()
    elsewhere = [f"{other}.{name}" for other in sections if other != section and name in sections[other]]
    if elsewhere:
        hint = f"did you mean {' or '.join(elsewhere)}?"
    elif near := nearest(name, names):
        hint = f"did you mean {prefix}{near}?"
    elif not section:
        hint = f"the sections are {', '.join(names)}"
    elif section == MODEL_CONFIG:
        hint = one_line(f"known: {', '.join(sorted(names))}", HINT_LIMIT)
    else:
        hint = f"see `stlm train --keys {section.partition('.')[0]}`"
    return f"{prefix}{name:.100}: no such key; {hint}"


def nested_class(annotation: str) -> str:
    """The class of the schema that a field holds; empty for a plain value or a free mapping."""
    name = annotation.removesuffix(" | None")
    return name if name in classes_in_source(SCHEMA) else ""


@functools.cache
def _fields(class_name: str) -> Fields:
    """The fields of a class of the schema by name, those that it inherits from transformers included."""
    fields: Fields = {}
    if class_name == ARGUMENTS:
        fields |= _of_class(package_folder("transformers") / "training_args.py", "TrainingArguments")
    for name, field in _of_class(SCHEMA, class_name).items():
        if not field.meaning and name in fields:
            field = field._replace(meaning=fields[name].meaning)
        fields[name] = field
    return fields


@functools.cache
def model_fields(model_type: str) -> Fields:
    """The fields of an STLM's config that a run may set, by name; transformers sets the others."""
    base = _of_class(package_folder("transformers") / "configuration_utils.py", "PreTrainedConfig")
    fields = {DTYPE: base[DTYPE]}
    for file, class_name in MODEL_CLASSES[model_type]:
        fields |= _of_class(package_folder("modeling_stlm") / file, class_name)
    return fields


def _sections() -> dict[str, Fields]:
    """The fields of all sections by their full names, those inside other sections included."""
    sections: dict[str, Fields] = {}
    for name, field in _fields("RunConfig").items():
        sections[name] = _fields(field.annotation)
        for inner in sections[name].values():
            if nested := nested_class(inner.annotation):
                sections[f"{name}.{inner.name}"] = _fields(nested)
    return {**sections, MODEL_CONFIG: model_fields("stlm_byte")}


def _of_class(path: Path, class_name: str) -> Fields:
    node = classes_in_source(path)[class_name]
    return {field.name: field for field in fields_in_source(node) if not field.name.startswith("_")}
