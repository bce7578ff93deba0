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

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from eval.facts.bank import Fact, FactBank, Probe, Relation, Statement
from eval.facts.pools import answer_pool, full_names, rng
from eval.facts.rows import many_records
from eval.facts.spec import PROBE_WORDINGS, RelationSpec, Spec, check_spec, read_spec
from eval.facts.validate import flag_probes, refuse_generated, validate
from eval.facts.wordings import Wording, parse_wording


def generate_from_spec(
    path: str | Path, overrides: list[str] | tuple[str, ...] = (), seed: int | None = None
) -> FactBank:
    """Generate the bank of a YAML spec with key=value overrides; `seed` goes before the spec's own."""
    values = read_spec(path, overrides)
    try:
        return generate(values, values["seed"] if seed is None else seed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


@many_records()
def generate(spec: dict[str, Any], seed: int) -> FactBank:
    """Generate a bank from the keys of `Spec`; UserError for a spec that makes no sound bank."""
    import faker  # here, since it takes a quarter of a second

    checked = check_spec({**spec, "seed": seed})
    pools = {
        name: answer_pool(
            relation.answers,
            relation.pool_size,
            checked.people,
            checked.distractors,
            f"relations.{name}",
            seed,
        )
        for name, relation in sorted(checked.relations.items())
    }
    people = _people(checked, pools)
    relations: list[Relation] = []
    facts: list[Fact] = []
    statements: list[Statement] = []
    probes: list[Probe] = []
    for name, pool in pools.items():
        spec_of = checked.relations[name]
        relations.append(Relation(name, spec_of.label, answer_space=tuple(pool)))
        writer = _writer(name, spec_of, pool, people, checked)
        for role, names in people.items():
            answers = _equal_shares(pool, len(names), seed, name, role)
            for subject, answer in zip(names, answers, strict=True):
                fact = Fact(f"{subject.lower().replace(' ', '-')}/{name}", subject, name, answer, role)
                facts.append(fact)
                statements.extend(writer.statements(fact))
                probes.extend(writer.probes(fact))
    meta = {
        "name": checked.name,
        "license": checked.license,
        "seed": seed,
        "provenance": "generated",
        "versions": {"faker": faker.VERSION},
        "spec": {**spec, "seed": seed},
    }
    bank = FactBank(meta, tuple(relations), tuple(facts), tuple(statements), tuple(probes))
    findings = validate(bank)
    refuse_generated(bank, findings)
    return flag_probes(bank, findings)


def _people(spec: Spec, pools: dict[str, list[str]]) -> dict[str, list[str]]:
    """Names by role."""
    taken = {word for pool in pools.values() for answer in pool for word in answer.casefold().split()}
    control = spec.people if spec.control is None else spec.control
    names = full_names(spec.names, spec.people + control, taken, spec.seed)
    return {"injected": names[: spec.people], "control": names[spec.people :]}


def _equal_shares(pool: list[str], count: int, seed: int, relation: str, role: str) -> list[str]:
    """`count` answers in random order, each as often as every other.

    Where the number of control people is no multiple of the pool, some are drawn once more: by chance,
    hence without regard to how often they are injected.
    """
    draw = rng(seed, relation, role, "answers")
    answers = pool * (count // len(pool)) + draw.sample(pool, count % len(pool))
    draw.shuffle(answers)
    return answers


@dataclass
class _Writer:
    """Writes the statements and probes of one relation's facts, alike for every role."""

    train: list[Wording]
    held_out: dict[str, list[Wording]]
    candidates: dict[str, dict[str, list[str]]]  # by role, then by what is asked for
    position: dict[str, int]  # of each candidate in its list
    distractors: int
    seed: int

    def statements(self, fact: Fact) -> Iterator[Statement]:
        for index, wording in enumerate(self.train):
            form = f"paraphrase:{index}" if index else "original"
            text, spans = wording.sentence(fact.subject or "", fact.object)
            yield Statement(f"{fact.id}/{form}", (fact.id,), text, form=form, spans=spans)

    def probes(self, fact: Fact) -> Iterator[Probe]:
        yield self._probe(fact, "memorization", 0, self.train[0])
        for probe_type, wordings in self.held_out.items():
            for index, wording in enumerate(wordings):
                yield self._probe(fact, probe_type, index, wording)

    def _probe(self, fact: Fact, probe_type: str, index: int, wording: Wording) -> Probe:
        probe_id = f"{fact.id}/{probe_type}:{index}"
        subject = fact.subject or ""
        answer = subject if wording.last == "subject" else fact.object
        return Probe(
            id=probe_id,
            fact_ids=(fact.id,),
            type=probe_type,
            prompt=wording.prompt(subject, fact.object),
            answers=(answer,),
            distractors=self._distractors(self.candidates[fact.role][wording.last], answer, probe_id),
            template=wording.template,
            seen_verbatim=probe_type == "memorization",
        )

    def _distractors(self, candidates: list[str], answer: str, probe_id: str) -> tuple[str, ...]:
        """Even draws without replacement from the candidates but the answer, in random order."""
        gold = self.position[answer]
        # drawn from one place fewer; the places from gold's on move up by one
        places = rng(self.seed, probe_id).sample(range(len(candidates) - 1), self.distractors)
        return tuple(candidates[place + (place >= gold)] for place in places)


def _writer(
    name: str, relation: RelationSpec, pool: list[str], people: dict[str, list[str]], spec: Spec
) -> _Writer:
    train = [parse_wording(text, f"relations.{name}.train", "object") for text in relation.train]
    held_out = {
        probe_type: [
            parse_wording(text, f"relations.{name}.probes", PROBE_WORDINGS[probe_type]) for text in templates
        ]
        for probe_type, templates in relation.probes.items()
    }
    # Asked for a baker in a bank of three, three names are right and a model that knows them all is
    # marked down for two. So we ask backwards only where nobody shares an answer with their own role;
    # a relation is asked backwards in both roles or in neither, as control must be asked alike.
    if any(len(names) > len(pool) for names in people.values()):
        held_out.pop("reversal", None)
    # names of the same role: injected names are all equally familiar, and control names equally strange
    candidates = {role: {"object": pool, "subject": names} for role, names in people.items()}
    position = {text: index for texts in (pool, *people.values()) for index, text in enumerate(texts)}
    return _Writer(train[: spec.paraphrases], held_out, candidates, position, spec.distractors, spec.seed)
