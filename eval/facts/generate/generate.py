"""From a spec to a bank of invented facts: the same spec and seed always give the same bank.

    bank = generate_from_spec("configs/facts/people.yaml", ["people=32", "paraphrases=5"], seed=1)

The line of stages, each a file of this folder:

    spec         spec.py, spec_checks.py    a YAML file and overrides -> a checked `Spec`
    templates    topics.py, templates.py    -> the topics and chains, with their templates parsed
    answers      answers.py, sources.py     -> a pool of answers for each relation
    subjects     subjects.py, arms.py       -> new names, each in a role and an arm, with its answers
    facts        facts.py                   -> the facts, and which of them a statement states together
    statements   statements.py              -> the texts to train on
    probes       probes.py, candidates.py   -> the questions, with their distractors; conclusions.py has the
                                               answers that follow from others
    bank         real_facts.py              -> all of them and the real facts, validated

Each thing that is drawn has a generator of its own (`seeds.py`), so neither the order of the spec's keys nor
the machine matters. Faker's word lists change between releases, so `bank.json` records its version.

Answer and distractors are exchangeable: injected and control facts have the same answers, each equally often,
and distractors are drawn evenly from the others, for injected facts from those of the same cohort
(`arms.py`). So a model that never read a fact is right once in `distractors + 1` times, whatever it prefers,
and the accuracy on control facts shows how familiar the wordings and answers have become.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.answers import Pools, answer_words, deal_answers, draw_pools
from tidy_stlms.eval.facts.generate.arms import cohorts_of
from tidy_stlms.eval.facts.generate.candidates import identifying_relations, offer_candidates
from tidy_stlms.eval.facts.generate.facts import facts_by_topic, make_facts
from tidy_stlms.eval.facts.generate.probes import write_chain_probes, write_probes
from tidy_stlms.eval.facts.generate.real_facts import read_real_facts
from tidy_stlms.eval.facts.generate.spec import Spec, read_spec
from tidy_stlms.eval.facts.generate.spec_checks import check_spec
from tidy_stlms.eval.facts.generate.statements import write_statements
from tidy_stlms.eval.facts.generate.subjects import draw_subjects
from tidy_stlms.eval.facts.generate.topics import parse_chains, parse_topics
from tidy_stlms.eval.facts.records import Relation
from tidy_stlms.eval.facts.validate import flag_probes, refuse_generated, validate

MESSAGE_LIMIT = 500  # characters: messages show words of the spec, which may be of any length


def generate_from_spec(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    seed: int | None = None,
    corpus: Iterable[str] | None = None,
) -> FactBank:
    """Generate the bank of a YAML spec with key=value overrides; `seed` replaces the spec's own.

    No subject has a name that occurs in the texts of `corpus`, which are read once.
    """
    values = read_spec(path, overrides, seed)
    try:
        return _generate(check_spec(values), values, corpus)
    except UserError as error:
        raise UserError(f"{path}: {one_line(error, MESSAGE_LIMIT)}") from None


def generate(spec: dict[str, Any], seed: int, corpus: Iterable[str] | None = None) -> FactBank:
    """Generate a bank from the keys of `Spec`; UserError for a spec that makes no sound bank."""
    values = {**spec, "seed": seed}
    return _generate(check_spec(values), values, corpus)


def _generate(spec: Spec, values: dict[str, Any], corpus: Iterable[str] | None) -> FactBank:
    """The stages in order; `values` is the spec as the bank records it."""
    topics, chains = parse_topics(spec), parse_chains(spec)
    real_facts = _read_real_facts(spec)
    pools = draw_pools(spec)

    real_subjects = (fact.subject or "" for real in real_facts for fact in real.facts)
    groups = draw_subjects(
        spec.names,
        cohorts_of(spec),
        pronouns=spec.pronouns if spec.passages else (),
        answer_words=answer_words(pools),
        seed=spec.seed,
        corpus=chain(real_subjects, corpus or ()),
    )
    answers = deal_answers(spec.relations, pools, groups, spec.seed)

    facts = make_facts(groups, answers)
    stated = facts_by_topic(topics, groups, facts)
    statements, trained_prompts = write_statements(stated, spec.seed)

    candidates = offer_candidates(
        spec.relations,
        pools,
        groups,
        answers,
        distractors=spec.distractors,
        seed=spec.seed,
    )
    identifying = identifying_relations(spec.relations, pools, groups)
    probes = write_probes(stated, trained_prompts, candidates, identifying)
    probes += write_chain_probes(chains, facts, candidates)

    bank = FactBank(
        meta=_meta(spec, values),
        relations=_relations(spec, pools, real_facts),
        facts=(*chain(*facts.values()), *chain(*(real.facts for real in real_facts))),
        statements=tuple(statements),
        probes=(*probes, *chain(*(real.probes for real in real_facts))),
    )
    findings = validate(bank)
    refuse_generated(bank, findings)
    return flag_probes(bank, findings)


def _read_real_facts(spec: Spec) -> list[FactBank]:
    return [
        read_real_facts(path, role, spec.distractors, spec.seed)
        for role, path in (("neighbour", spec.neighbours), ("known", spec.known))
        if path is not None
    ]


def _relations(spec: Spec, pools: Pools, real_facts: list[FactBank]) -> tuple[Relation, ...]:
    """The spec's relations, and behind them those that only real facts have."""
    real_relations = [relation for real in real_facts for relation in real.relations]
    many = {name for name, relation in spec.relations.items() if relation.objects > 1}
    many |= {relation.id for relation in real_relations if relation.cardinality == "many"}
    labels = {name: relation.label for name, relation in sorted(spec.relations.items())}
    for relation in real_relations:
        labels.setdefault(relation.id, relation.label)
    return tuple(
        Relation(
            id=name,
            label=label,
            cardinality="many" if name in many else "one",
            answer_space=tuple(pools[name].seen) if name in pools else None,
        )
        for name, label in labels.items()
    )


def _meta(spec: Spec, values: dict[str, Any]) -> dict[str, Any]:
    import faker  # here, since it takes a quarter of a second

    meta = {
        "name": spec.name,
        "license": spec.license,
        "seed": spec.seed,
        "provenance": "generated",
        "versions": {"faker": faker.VERSION},
        "spec": values,
    }
    if spec.arms:
        meta["arms"] = {
            name: {"exposures": arm.exposures, "form": arm.form} for name, arm in sorted(spec.arms.items())
        }
    return meta
