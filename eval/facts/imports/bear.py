"""BEAR: known facts of Wikidata, with closed answer spaces (Wiland et al. 2024, arXiv:2404.04113).

A folder of `P36.jsonl`, ... (`sub_id`, `sub_label`, `obj_label` a line) and `metadata_relations.json`, which
gives each relation its `templates` with [X] and [Y] and its `answer_space_labels`. BEAR-big has no answer
spaces: there, the answers of a relation's instances are its answer space.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused, listed
from tidy_stlms.eval.facts.imports.recognise import refuse_document
from tidy_stlms.eval.facts.imports.source_files import (
    checked_text,
    parse_json5,
    read_rows,
    text_field,
    text_list,
)
from tidy_stlms.eval.facts.text_match import closing_punctuation, folded

BEAR_LICENSE = "cc-by-sa-4.0"
METADATA = "metadata_relations.json"
ANSWER_SPACES = ("answer_space_labels", "answer_space")
RELATION = re.compile(r"[\w-]{1,100}")
MARKS = re.compile(r"\[[XY]\]")
FIELDS = ("sub_id", "sub_label", "obj_label", "obj_aliases")  # of the lines of a relation's file
MAPPED = (
    "sub_label, obj_label -> a fact of the relation that the file is named after",
    "the relation's first template -> memorization, the others -> semantic; nothing is stated, so nothing "
    "is ever injected",
    "words behind [Y] -> suffix, scored with every candidate; a full stop alone is left to the template",
    "what stands before [Y], a space or nothing -> joint",
    "answer_space_labels -> the relation's answer space; distractors are its answers that are right for no "
    "subject of this name",
)


@dataclass(frozen=True)
class Instance:
    """A line of a relation's file."""

    where: str
    id: str
    subject: str
    answer: str
    aliases: list[str]


def import_bear(source: Path, builder: BankBuilder, role: str) -> None:
    """Import a folder, or the subset in one of its folders if there is only one."""
    folders = sorted(path.parent for path in source.rglob(METADATA)) if source.is_dir() else []
    if not folders:
        raise UserError(f"{source}: no {METADATA} there; give the folder that holds it and the P*.jsonl")
    if len(folders) > 1:
        raise UserError(f"{source}: holds several datasets; give one of {listed(folders)}")
    builder.mapped += MAPPED
    builder.fields_taken.update(FIELDS)
    metadata = parse_json5(folders[0] / METADATA)
    if not isinstance(metadata, dict):
        raise UserError(f"{folders[0] / METADATA}: must be an object of relations")
    for relation, description in metadata.items():
        builder.records_read[METADATA] += 1
        with builder.record(f"{METADATA}, {relation}"):
            _relation(folders[0], relation, description, builder, role)
    spaceless = [relation for relation in builder.relations if _answer_space(metadata[relation]) is None]
    if spaceless:
        builder.mapped.append(
            f"{len(spaceless):,} relations have no answer space; the answers of all their "
            "instances are used instead"
        )
    for path in sorted(folders[0].glob("*.jsonl")):
        if path.stem not in metadata:
            builder.leave_out(path.name, f"{METADATA} does not describe {path.stem}")


def _relation(folder: Path, relation: str, description: Any, builder: BankBuilder, role: str) -> None:
    if not isinstance(description, dict):
        raise Refused(f"must be an object, got {shown(description)}")
    if not RELATION.fullmatch(relation):
        raise Refused("cannot be the name of a file; use letters, digits, - and _")
    templates = _templates(relation, description, builder)
    path = folder / f"{relation}.jsonl"
    if not path.is_file():
        raise Refused(f"{path.name} is missing")
    refuse_document(path, builder.format)
    instances = list(_instances(path, relation, builder))
    labels = _answer_space(description)
    space = [instance.answer for instance in instances] if labels is None else text_list(description, labels)
    answers = dict.fromkeys(label.strip() for label in space)
    builder.add_relation(relation, templates[0], list(answers))
    candidates: dict[str, str] = {}
    for answer in answers:
        candidates.setdefault(folded(answer), answer)
    right: dict[str, set[str]] = defaultdict(set)  # by name: subjects of one name cannot be told apart
    for instance in {instance.id: instance for instance in reversed(instances)}.values():
        right[folded(instance.subject)].add(folded(instance.answer))
    for instance in instances:
        with builder.record(instance.where):
            if instance.answer not in answers:
                raise Refused(f"obj_label {instance.answer!r} is not in the relation's {labels}")
            subject = folded(instance.subject)
            wrong = [answer for name, answer in candidates.items() if name not in right[subject]]
            _add_instance(instance, relation, templates, wrong, builder, role)


def _answer_space(description: dict[str, Any]) -> str | None:
    """The field with the answer space, if the relation has one."""
    return next((name for name in ANSWER_SPACES if description.get(name) is not None), None)


def _templates(relation: str, description: dict[str, Any], builder: BankBuilder) -> list[str]:
    templates: list[str] = []
    for number, template in enumerate(text_list(description, "templates"), 1):
        where = f"{METADATA}, {relation}, template {number}"
        if sorted(MARKS.findall(template)) != ["[X]", "[Y]"]:
            builder.leave_out(where, f"needs [X] and [Y] once each: {template!r}")
        elif template in templates:
            builder.leave_out(where, f"the same as template {templates.index(template) + 1}")
        else:
            templates.append(template)
    if not templates:
        raise Refused("no template of it could be taken")
    return templates


def _instances(path: Path, relation: str, builder: BankBuilder) -> Iterator[Instance]:
    for where, row in read_rows(path, builder):
        instance = None
        with builder.record(where):
            subject, answer = text_field(row, "sub_label").strip(), text_field(row, "obj_label").strip()
            id = f"{relation}/{checked_text(str(row.get('sub_id') or subject), 'sub_id')}"
            instance = Instance(where, id, subject, answer, text_list(row, "obj_aliases", optional=True))
        if instance is not None:
            yield instance


def _add_instance(
    instance: Instance, relation: str, templates: list[str], wrong: list[str], builder: BankBuilder, role: str
) -> None:
    fact = builder.add_fact(
        instance.id, instance.subject, relation, instance.answer, role, aliases=instance.aliases
    )
    for number, template in enumerate(templates):
        before, after = (part.replace("[X]", instance.subject) for part in template.split("[Y]"))
        builder.add_probe(
            instance.where,
            [fact],
            "semantic" if number else "memorization",
            before,
            [instance.answer],
            distractors=wrong,
            suffix="" if closing_punctuation(after) == after else after,
            template=template.replace("[X]", "{subject}").replace("[Y]", "{object}"),
            before=before,
        )
