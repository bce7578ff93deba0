"""BEAR: known facts of Wikidata, with closed answer spaces (Wiland et al. 2024, arXiv:2404.04113).

A folder of `P36.jsonl`, ... (`sub_id`, `sub_label`, `obj_label` a line) and `metadata_relations.json`, which
gives each relation its `templates` with [X] and [Y] and its `answer_space_labels`.
"""

import re
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.imports.builder import BankBuilder, Refused
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
MARKS = re.compile(r"\[[XY]\]")
MAPPED = (
    "sub_label, obj_label -> a fact of the relation that the file is named after",
    "the relation's first template -> memorization, the others -> semantic; nothing is stated, so nothing "
    "is ever injected",
    "words behind [Y] -> suffix, scored with every candidate; a full stop alone is left to the template",
    "what stands before [Y], a space or nothing -> joint",
    "answer_space_labels -> the relation's answer space, and, but for the answer, the wrong answers",
)


def import_bear(source: Path, builder: BankBuilder, role: str) -> None:
    """Import a folder, or the subset in one of its folders if there is only one."""
    folders = sorted(path.parent for path in source.rglob(METADATA)) if source.is_dir() else []
    if not folders:
        raise UserError(f"{source}: no {METADATA} there; give the folder that holds it and the P*.jsonl")
    if len(folders) > 1:
        names = ", ".join(str(folder) for folder in folders)
        raise UserError(f"{source}: holds several datasets; give one of {names}")
    builder.mapped += MAPPED
    metadata = parse_json5(folders[0] / METADATA)
    if not isinstance(metadata, dict):
        raise UserError(f"{folders[0] / METADATA}: must be an object of relations")
    for relation, description in metadata.items():
        builder.records_read[METADATA] += 1
        with builder.record(f"{METADATA}, {relation}"):
            _relation(folders[0], relation, description, builder, role)
    for path in sorted(folders[0].glob("*.jsonl")):
        if path.stem not in metadata:
            builder.leave_out(path.name, f"{METADATA} does not describe {path.stem}")


def _relation(folder: Path, relation: str, description: Any, builder: BankBuilder, role: str) -> None:
    if not isinstance(description, dict):
        raise Refused(f"must be an object, got {description!r:.40}")
    labels = "answer_space_labels" if "answer_space_labels" in description else "answer_space"
    answers = list(dict.fromkeys(label.strip() for label in text_list(description, labels)))
    templates = []
    for number, template in enumerate(text_list(description, "templates"), 1):
        where = f"{METADATA}, {relation}, template {number}"
        if sorted(MARKS.findall(template)) == ["[X]", "[Y]"]:
            templates.append(template)
        else:
            builder.leave_out(where, f"needs [X] and [Y] once each: {template!r}")
    if not templates:
        raise Refused("no template of it could be taken")
    path = folder / f"{relation}.jsonl"
    if not path.is_file():
        raise Refused(f"{path.name} is missing")
    builder.add_relation(relation, templates[0], answers)
    for where, row in read_rows(path, builder):
        with builder.record(where):
            subject, answer = text_field(row, "sub_label").strip(), text_field(row, "obj_label").strip()
            if answer not in answers:
                raise Refused(f"obj_label {answer!r} is not in the relation's {labels}")
            aliases = text_list(row, "obj_aliases", optional=True)
            id = f"{relation}/{checked_text(str(row.get('sub_id') or subject), 'sub_id')}"
            fact = builder.add_fact(id, subject, relation, answer, role, aliases=aliases)
            distractors = [label for label in answers if folded(label) != folded(answer)]
            for number, template in enumerate(templates):
                before, after = (part.replace("[X]", subject) for part in template.split("[Y]"))
                builder.add_probe(
                    where,
                    [fact],
                    "semantic" if number else "memorization",
                    before,
                    [answer],
                    distractors=distractors,
                    suffix="" if closing_punctuation(after) == after else after,
                    template=template.replace("[X]", "{subject}").replace("[Y]", "{object}"),
                    before=before,
                )
