"""Invented people and what is true of them: a spec and a seed give a fact bank, always the same one.

    bank = generate_from_spec("configs/facts/people.yaml", ["people=32", "paraphrases=5"], seed=1)

Injected and control facts draw their answers from one pool per relation, each answer equally often in
either role, and distractors are drawn evenly from the rest of that pool. So gold and distractors are
exchangeable: a model that never read a fact is right once in `distractors + 1` times, whatever it
likes best, and how well control facts are scored tells how familiar wordings and answers have become.

Everything drawn comes from a generator seeded by (seed, what it is for), so that neither the order of
the spec's keys nor the machine matters. Faker's word lists change between releases, hence its version
stands in `bank.json`.
"""

import logging
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.answers import Pool, answer_pool, rng, runs
from tidy_stlms.eval.facts.generate.arms import (
    SIZE_KEYS,
    Person,
    blocks,
    deal_answers,
    deal_people,
    deal_subjects,
    doses_differ,
    group_sizes,
)
from tidy_stlms.eval.facts.generate.names import draw_names
from tidy_stlms.eval.facts.generate.probes import Asker
from tidy_stlms.eval.facts.generate.real_facts import read_real_facts
from tidy_stlms.eval.facts.generate.spec import Spec, read_config, to_dict
from tidy_stlms.eval.facts.generate.spec_checks import check_config, check_spec
from tidy_stlms.eval.facts.generate.statements import statements_of
from tidy_stlms.eval.facts.generate.topics import SUBJECT, Kind, chain_wordings, kinds_of
from tidy_stlms.eval.facts.records import UNSEEN, Fact, Probe, Relation, Statement
from tidy_stlms.eval.facts.text_match import folded, parts_of
from tidy_stlms.eval.facts.warnings import flag_probes, refuse_generated, validate

logger = logging.getLogger(__name__)

Told = dict[tuple[str, str], list[Fact]]  # by person and relation
Groups = dict[str, list[Person]]


def generate_from_spec(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    seed: int | None = None,
    corpus: Iterable[str] | None = None,
) -> FactBank:
    """Generate the bank of a YAML spec with key=value overrides; `seed` goes before the spec's own.

    Names that stand in the texts of `corpus`, which are read once, are not given to anyone.
    """
    config = read_config(path, overrides)
    if seed is not None:
        config.seed = seed
    values = to_dict(config, str(path))
    try:
        return _generate(values, check_config(config), corpus)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def generate(spec: dict[str, Any], seed: int, corpus: Iterable[str] | None = None) -> FactBank:
    """Generate a bank from the keys of `Spec`; UserError for a spec that makes no sound bank."""
    values = {**spec, "seed": seed}
    return _generate(values, check_spec(values), corpus)


def _generate(values: dict[str, Any], checked: Spec, corpus: Iterable[str] | None) -> FactBank:
    import faker  # here, since it takes a quarter of a second

    kinds, chains = kinds_of(checked), chain_wordings(checked)
    real = {
        role: read_real_facts(path, role, checked.distractors, checked.seed)
        for role, path in (("neighbour", checked.neighbours), ("known", checked.known))
        if path is not None
    }
    pools = _pools(checked)
    people = deal_people(checked, _names(checked, pools, real, corpus))
    facts = _facts(checked, pools, people)
    statements, probes = _texts(checked, kinds, chains, pools, people, facts)
    relations = {
        name: Relation(
            name,
            checked.relations[name].label,
            cardinality="many" if checked.relations[name].objects > 1 else "one",
            answer_space=tuple(pools[name].seen) if name in pools else None,
        )
        for name in sorted(checked.relations)
    }
    every_fact = [fact for own in facts.values() for fact in own]
    for known in real.values():
        for relation in known.relations:
            here = relations.setdefault(relation.id, relation)
            if relation.cardinality == "many":
                relations[relation.id] = replace(here, cardinality="many")
        every_fact += known.facts
        probes += known.probes
    meta = {
        "name": checked.name,
        "license": checked.license,
        "seed": checked.seed,
        "provenance": "generated",
        "versions": {"faker": faker.VERSION},
        "spec": values,
    }
    if checked.arms:
        meta["arms"] = {
            name: {"exposures": arm.exposures, "form": arm.form} for name, arm in sorted(checked.arms.items())
        }
    bank = FactBank(meta, tuple(relations.values()), tuple(every_fact), tuple(statements), tuple(probes))
    findings = validate(bank)
    refuse_generated(bank, findings)
    return flag_probes(bank, findings)


def _pools(spec: Spec) -> dict[str, Pool]:
    """The answers of each relation; in a passage no answer stands inside one of another relation."""
    together = {relation: name for name, passage in spec.passages.items() for relation in passage.relations}
    pools: dict[str, Pool] = {}
    for name, relation in sorted(spec.relations.items()):
        if relation.answers.subjects:
            continue
        neighbours = [
            answer
            for other, pool in pools.items()
            if name in together and together.get(other) == together[name]
            for answer in (*pool.seen, *pool.unseen)
        ]
        # each arm then holds every answer, and all answers are read about equally often
        shared_by = len(spec.arms) if doses_differ(spec) and not relation.unique else 1
        pools[name] = answer_pool(
            relation.answers,
            min(relation.pool_size, spec.people // shared_by),
            spec.people,
            spec.distractors + relation.objects,
            f"relations.{name}",
            spec.seed,
            unseen=spec.unseen_control,
            clashes=_stands_in(neighbours) if neighbours else None,
            shared_by=shared_by,
        )
        if relation.unique:
            for group, size in group_sizes(spec).items():
                have = len(pools[name].unseen if group == UNSEEN else pools[name].seen)
                if size > have:
                    also = "widen answers, raise pool_size or " if group == "injected" else ""
                    raise UserError(
                        f"relations.{name}.unique: there are {have} different answers for {size} {group} "
                        f"people; {also}lower {SIZE_KEYS[group]}"
                    )
    return pools


def _stands_in(answers: list[str]) -> Callable[[str], bool]:
    """Whether an answer stands in one of these as whole words, or one of these in it: then a question that
    gives the one would give the other away."""
    whole = {tuple(parts_of(folded(answer))) for answer in answers}
    parts = {run for words in whole for run in runs(words)}

    def clashes(answer: str) -> bool:
        words = tuple(parts_of(folded(answer)))
        return words in parts or any(run in whole for run in runs(words))

    return clashes


def _names(
    spec: Spec, pools: dict[str, Pool], real: dict[str, FactBank], corpus: Iterable[str] | None
) -> list[str]:
    answers = (answer for pool in pools.values() for answer in (*pool.seen, *pool.unseen))
    taken = {word for answer in answers for word in parts_of(folded(answer))}
    if real:
        subjects = [fact.subject or "" for known in real.values() for fact in known.facts]
        corpus = chain(subjects, corpus or ())
    return draw_names(spec.names, sum(group_sizes(spec).values()), taken, spec.seed, corpus)


def _facts(spec: Spec, pools: dict[str, Pool], people: Groups) -> Told:
    """The facts by person and relation, relation after relation."""
    facts: Told = {}
    for name, relation in sorted(spec.relations.items()):
        key = f"relations.{name}"
        for group, members in people.items():
            if not members:
                continue
            draw = rng(spec.seed, name, group, "answers")
            if name in pools:
                pool = pools[name].unseen if group == UNSEEN else pools[name].seen
                sizes = [len(block) for block in blocks(members)]
                dealt = deal_answers(pool, sizes, relation.objects, key, draw)
            else:
                dealt = deal_subjects(members, key, draw)
            for person, answers in zip(members, dealt, strict=True):
                facts[person.name, name] = [
                    Fact(
                        f"{person.slug}/{name}" if relation.objects == 1 else f"{person.slug}/{name}/{index}",
                        person.name,
                        name,
                        answer,
                        person.role,
                        arm=person.arm,
                    )
                    for index, answer in enumerate(answers)
                ]
    return facts


def _texts(
    spec: Spec,
    kinds: list[Kind],
    chains: dict[str, list],
    pools: dict[str, Pool],
    people: Groups,
    facts: Told,
) -> tuple[list[Statement], list[Probe]]:
    statements: list[Statement] = []
    probes: list[Probe] = []
    askers = [
        (members, Asker(spec, members, _own_answers(spec, pools, group, members, facts)))
        for group, members in _asked_alike(spec, people)
    ]
    telling = _telling(spec, pools, people)
    _report_unasked(kinds, telling)
    for kind in kinds:
        for members, asker in askers:
            for person in members:
                own = [facts[person.name, relation] for relation in kind.relations]
                for index in range(len(own[0])):
                    told = dict(zip(kind.relations, (several[index] for several in own), strict=True))
                    made = statements_of(kind, person, told, spec.seed)
                    statements += [statement for statement, _ in made]
                    others = [fact.object for place, fact in enumerate(own[0]) if place != index]
                    probes += asker.probes(kind, person, told, made[0][1], others, telling)
    for name, wordings in chains.items():
        for members, asker in askers:
            for person in members:
                path = _follow(spec.chains[name].hops, person.name, facts)
                probes += [
                    asker.chained(name, index, wording, path) for index, wording in enumerate(wordings)
                ]
    return statements, probes


def _asked_alike(spec: Spec, people: Groups) -> list[tuple[str, list[Person]]]:
    """Groups of people whose names may be offered for one another's: those of one group, and where some are
    injected more often than others, of one arm."""
    found = []
    for group, members in people.items():
        apart = blocks(members) if group == "injected" and doses_differ(spec) else [members]
        for alike in apart:
            if len(apart) > 1 and len(alike) <= spec.distractors:
                raise UserError(
                    f"people: an arm of {len(alike)} is too small, as a name is asked for among "
                    f"{spec.distractors + 1} of its own arm where exposures differ; raise people"
                )
            if alike:
                found.append((group, alike))
    return found


def _own_answers(
    spec: Spec, pools: dict[str, Pool], group: str, members: list[Person], facts: Told
) -> dict[str, list[str]]:
    """The answers to offer these people, by relation; of unique ones, their own where exposures differ."""
    own = {name: pool.unseen if group == UNSEEN else pool.seen for name, pool in pools.items()}
    if group == "injected" and doses_differ(spec):
        for name in pools:
            if spec.relations[name].unique:
                own[name] = sorted({fact.object for one in members for fact in facts[one.name, name]})
    return own


def _telling(spec: Spec, pools: dict[str, Pool], people: Groups) -> frozenset[str]:
    """The relations whose answers tell whose they are.

    Asked for a baker in a bank of three, three names are right and a model that knows them all is
    marked down for two. So we ask backwards only where nobody shares an answer with their own group;
    a relation is asked backwards in all groups or in none, as control must be asked alike.
    """
    shared = {
        name
        for name, pool in pools.items()
        for group, members in people.items()
        if spec.relations[name].objects * len(members) > len(pool.unseen if group == UNSEEN else pool.seen)
    }
    return frozenset(spec.relations.keys() - shared)


def _report_unasked(kinds: list[Kind], telling: frozenset[str]) -> None:
    unasked = {
        place
        for kind in kinds
        for wording in kind.probes.get("reversal", ())
        if telling.isdisjoint(wording.places)
        for place in wording.places
        if place != SUBJECT
    }
    if unasked:
        logger.warning(
            "no reversal probes for %s: several people share an answer, so several names would be right",
            ", ".join(sorted(unasked)),
        )


def _follow(hops: list[str], name: str, facts: Told) -> list[Fact]:
    """The facts along a chain that begins with this subject."""
    path = []
    for hop in hops:
        (fact,) = facts[name, hop]
        path.append(fact)
        name = fact.object
    return path
