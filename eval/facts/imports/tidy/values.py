"""Values for the variables of Tidy-STLMs' templates, for an `inject_config.json` without its sentences.

`configs/facts/tidy.yaml` lists the variables. As in generated banks, injected and control people draw their
values from one pool per variable, each value equally often: a model that has read no fact chooses the answer
no more often than a distractor.
"""

from collections.abc import Iterable
from functools import cache

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped
from tidy_stlms.eval.facts.generate.answers import answer_pool
from tidy_stlms.eval.facts.generate.seeds import rng
from tidy_stlms.eval.facts.generate.spec import AnswerSpec, RelationSpec, Spec, read_spec
from tidy_stlms.eval.facts.generate.spec_checks import check_spec
from tidy_stlms.eval.facts.generate.subjects import draw_names
from tidy_stlms.eval.facts.imports.tidy.templates import SUBJECT
from tidy_stlms.eval.facts.text_match import folded, parts_of

SPEC = "configs/facts/tidy.yaml"


def known_variables() -> dict[str, AnswerSpec]:
    """The source of values of each variable, except the subject."""
    return {relation.variable: relation.answers for relation in _spec().relations.values()}


def draw_values(
    variables: Iterable[str], people: int, control: int, seed: int
) -> dict[str, list[dict[str, str]]]:
    """The values of every person, such as {"NAME": "Ada Poe", "CITY": "Lutz"}, by role.

    Raises UserError for fewer than two people.
    """
    if people < 2:
        raise UserError(
            f"--people {people}: at least two are needed, whose answers are each other's distractors"
        )
    answers = known_variables()
    spec = Spec(people=people, distractors=1, seed=seed)
    pools = {}
    for name in sorted(set(variables) - {SUBJECT}):
        relation = RelationSpec(answers=answers[name], pool_size=people)
        pools[name] = answer_pool(relation, f"variable {name}", spec).seen
    taken = {word for pool in pools.values() for value in pool for word in parts_of(folded(value))}
    names = draw_names(_spec().names, people + control, taken, seed)
    groups = {"injected": names[:people], "control": names[people:]}
    return {role: _people(group, pools, role, seed) for role, group in groups.items()}


@cache
def _spec() -> Spec:
    return check_spec(read_spec(find_shipped(SPEC)))  # takes a second


def _people(names: list[str], pools: dict[str, list[str]], role: str, seed: int) -> list[dict[str, str]]:
    people = [{SUBJECT: name} for name in names]
    for variable, pool in pools.items():
        draw = rng(seed, variable, role, "values")
        values = pool * (len(names) // len(pool)) + draw.sample(pool, len(names) % len(pool))
        draw.shuffle(values)
        for person, value in zip(people, values, strict=True):
            person[variable] = value
    return people
