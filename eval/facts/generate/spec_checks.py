"""What must hold in a spec before anything is drawn; each mistake is one line that names the key."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tidy_stlms.configs.errors import UserError, did_you_mean
from tidy_stlms.eval.facts.generate.arms import SIZE_KEYS, Form, forms_of, group_sizes
from tidy_stlms.eval.facts.generate.spec import RelationSpec, Spec, merge, to_dict
from tidy_stlms.eval.facts.generate.topics import PROBE_TYPES, SUBJECT
from tidy_stlms.eval.facts.records import UNSEEN

SOURCES = ("faker", "words", "parts", "dates", "numbers", "subjects")
DATE_PARTS = re.compile(r"year|decade|month|zodiac|age_in_\d{4}")


def check_spec(values: dict[str, Any]) -> Spec:
    """The spec as a dataclass, `use` applied; UserError, naming the key, for what does not fit together."""
    config = merge(OmegaConf.structured(Spec), values, "spec")
    to_dict(config, "spec")
    return check_config(config)


def check_config(config: DictConfig) -> Spec:
    """`check_spec` of values that `read_config` has read."""
    spec = OmegaConf.to_object(config)
    assert isinstance(spec, Spec)
    _check_numbers(spec)
    _use(spec)
    for name, relation in spec.relations.items():
        _check_relation(relation, f"relations.{name}", spec)
    _check_passages(spec)
    _check_chains(spec)
    _check_patterns(spec)
    _check_arms(spec)
    return spec


def _check_numbers(spec: Spec) -> None:
    if spec.unseen_words not in ("refuse", "flag"):
        raise UserError(f"unseen_words: must be refuse or flag, got {spec.unseen_words!r}")
    for name, least in (("people", 1), ("distractors", 1), ("paraphrases", 1)):
        if getattr(spec, name) < least:
            raise UserError(f"{name}: must be at least {least}, got {getattr(spec, name)}")
    if spec.people <= spec.distractors:
        raise UserError(f"people: must be more than distractors={spec.distractors}, got {spec.people}")
    for name in ("control", "unseen_control"):
        size = getattr(spec, name)
        if size is not None and size != 0 and size <= spec.distractors:
            raise UserError(f"{name}: must be 0 or more than distractors={spec.distractors}, got {size}")
    if not 0 <= spec.asked <= 1:
        raise UserError(f"asked: must be a share from 0 to 1, got {spec.asked}")
    if not spec.pronouns:
        raise UserError("pronouns: at least one is needed")


def _use(spec: Spec) -> None:
    """Leave out what `use` does not name. Sentences with all variables, and chains, go as a whole."""
    parts = {f"passages.{name}": passage.relations for name, passage in spec.passages.items()}
    parts |= {f"chains.{name}": chain.hops for name, chain in spec.chains.items()}
    for key, relations in parts.items():
        for relation in relations:
            if relation not in spec.relations:
                hint = did_you_mean(relation, spec.relations)
                raise UserError(f"{key}: unknown relation {relation!r}{hint}")
    for name in spec.use or ():
        if name not in spec.relations:
            raise UserError(f"use: unknown relation {name!r}{did_you_mean(name, spec.relations)}")
    if spec.use is not None:
        spec.relations = {name: spec.relations[name] for name in spec.use}
    if not spec.relations:
        raise UserError("relations: at least one is needed")
    for name, passage in spec.passages.items():
        used = [relation for relation in passage.relations if relation in spec.relations]
        if used and passage.train and len(used) < len(passage.relations):
            missing = next(relation for relation in passage.relations if relation not in used)
            raise UserError(f"use: passages.{name} tells {missing} too; use it as well")
        passage.relations = used
    spec.passages = {name: passage for name, passage in spec.passages.items() if passage.relations}
    spec.chains = {
        name: chain for name, chain in spec.chains.items() if spec.relations.keys() >= {*chain.hops}
    }


def _check_relation(relation: RelationSpec, key: str, spec: Spec) -> None:
    if key == f"relations.{SUBJECT}":
        raise UserError(f"{key}: a relation cannot have this id; choose another")
    sources = sum(bool(getattr(relation.answers, name)) for name in SOURCES)
    if sources != 1:
        raise UserError(f"{key}.answers: needs exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}")
    if not all(relation.answers.parts):
        raise UserError(f"{key}.answers.parts: a list is empty")
    if relation.objects < 1:
        raise UserError(f"{key}.objects: must be at least 1, got {relation.objects}")
    if relation.objects > 1 and (relation.unique or relation.answers.subjects):
        raise UserError(
            f"{key}.objects: cannot be {relation.objects} where each answer belongs to one subject"
        )
    for probe_type in relation.probes:
        _check_probe_type(probe_type, f"{key}.probes")
    if relation.variable == spec.subject:
        raise UserError(f"{key}.variable: {relation.variable!r} is the subject's name")
    for name, rule in relation.derived.items():
        where = f"{key}.derived.{name}"
        if isinstance(rule, str) and relation.answers.dates is not None:
            if not DATE_PARTS.fullmatch(rule):
                raise UserError(f"{where}: must be year, decade, month, zodiac or age_in_2010, got {rule!r}")
        elif not isinstance(rule, dict):
            raise UserError(f"{where}: must map answers to conclusions, got {rule!r:.40}")
        if name in (spec.subject, SUBJECT, relation.variable) or name in spec.relations:
            raise UserError(f"{where}: stands for something else already; choose another name")


def _check_probe_type(probe_type: str, key: str) -> None:
    if probe_type not in PROBE_TYPES:
        hint = did_you_mean(probe_type, PROBE_TYPES) or f", must be one of {', '.join(PROBE_TYPES)}"
        raise UserError(f"{key}.{probe_type}: unknown type of probe{hint}")


def _check_passages(spec: Spec) -> None:
    told: dict[str, str] = {}
    for name, passage in spec.passages.items():
        key = f"passages.{name}"
        if name in spec.relations:
            raise UserError(f"{key}: a relation has this id; choose another")
        variables: set[str] = set()
        for relation in passage.relations:
            item = spec.relations[relation]
            if relation in told:
                raise UserError(f"{key}: {relation} is told by passages.{told[relation]} already")
            told[relation] = name
            if item.objects > 1:
                raise UserError(f"{key}: {relation} has several objects, a passage tells one of each")
            for variable in (item.variable, *item.derived):
                if variable in variables:
                    raise UserError(
                        f"{key}: {{{variable}}} of {relation} is another relation's too; rename it"
                    )
                variables.add(variable)
            if passage.train and (item.train or item.reverse):
                raise UserError(
                    f"relations.{relation}.train: {key} tells it in wordings of its own; remove one"
                )
        for probe_type in passage.probes:
            _check_probe_type(probe_type, f"{key}.probes")


def _check_chains(spec: Spec) -> None:
    for name, chain in spec.chains.items():
        if len(chain.hops) < 2:
            raise UserError(f"chains.{name}.hops: needs two relations at least")
        for hop in chain.hops[:-1]:
            if not spec.relations[hop].answers.subjects:
                raise UserError(
                    f"chains.{name}.hops: {hop} leads to no subject; give it answers: {{subjects: true}}"
                )
        if spec.relations[chain.hops[-1]].objects > 1:
            raise UserError(f"chains.{name}.hops: {chain.hops[-1]} has several objects")


def _check_patterns(spec: Spec) -> None:
    patterns = {f"relations.{name}.answers": item.answers.pattern for name, item in spec.relations.items()}
    for key, pattern in {**patterns, "names": spec.names.pattern}.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{key}.pattern: not a regular expression ({error})") from None


def _check_arms(spec: Spec) -> None:
    for name, arm in spec.arms.items():
        if name == UNSEEN:
            raise UserError(f"arms.{name}: this name is that of unseen_control; choose another")
        if arm.exposures < 0:
            raise UserError(f"arms.{name}.exposures: must be 0 or more, got {arm.exposures}")
    for group, size in group_sizes(spec).items():
        if 0 < size < len(spec.arms):
            raise UserError(
                f"{SIZE_KEYS[group]}: {size} cannot be shared among {len(spec.arms)} arms; raise it"
            )
    paragraphs = any(not passage.train for passage in spec.passages.values())
    for arm_name, form in forms_of(spec).items():
        key = f"arms.{arm_name}.form={spec.arms[arm_name].form}" if arm_name else "paraphrases"
        if (form.permute or form.fullname) and not paragraphs:
            raise UserError(f"{key}: is for passages without `train`, and there is none")
        if form.reverse and spec.passages:
            raise UserError(f"{key}: a passage cannot be told backwards; leave passages out")
        for where, templates in _wordings_needed(spec, form).items():
            if len(templates) < form.wordings:
                raise UserError(f"{where}: holds {len(templates)} wordings, {key} needs {form.wordings}")


def _wordings_needed(spec: Spec, form: Form) -> dict[str, list[str]]:
    """The lists of wordings that a form takes its own from, by key."""
    joint = {name: passage for name, passage in spec.passages.items() if passage.train}
    in_joint = {relation for passage in joint.values() for relation in passage.relations}
    lists = {f"passages.{name}.train": passage.train for name, passage in joint.items()}
    for name, relation in spec.relations.items():
        if form.forward and name not in in_joint:
            lists[f"relations.{name}.train"] = relation.train
        if form.reverse:
            lists[f"relations.{name}.reverse"] = relation.reverse
    return lists
