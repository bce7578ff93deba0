"""Specs of banks, damaged in any place."""

import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.damaged.damage import cases, damaged_bytes, damaged_value, odd_values, to_yaml
from tidy_stlms.configs.files import find_shipped
from tidy_stlms.eval.facts.validate import load_bank

SMALL = {"people": 4, "control": 4, "distractors": 3}


def shipped(name: str) -> dict:
    spec = yaml.safe_load(find_shipped(f"configs/facts/{name}.yaml").read_text(encoding="utf-8"))
    return spec | SMALL | ({"arms": {}} if name != "tidy" else {})


SPECS = {name: shipped(name) for name in ("people", "biographies", "chains", "reversal", "tidy")}


def generate(new_case, content, *overrides):
    case = new_case()
    (case.folder / "spec.yaml").write_bytes(content(case) if callable(content) else content)
    outcome = case.run("facts", "generate", case.folder / "spec.yaml", "--out", case.out, *overrides)
    if outcome.code == 0:
        load_bank(case.out)  # what is accepted is a whole and right bank
    return outcome


@cases(40, 1500)
@given(value=st.sampled_from(list(SPECS.values())).flatmap(damaged_value))
def test_any_value(new_case, value):
    generate(new_case, lambda case: to_yaml(value, case.canary))


@cases(10, 400)
@given(content=damaged_bytes(yaml.safe_dump(SPECS["people"]).encode()))
def test_any_bytes(new_case, content):
    generate(new_case, content)


@cases(10, 400)
@given(
    key=st.sampled_from([*SPECS["people"], "relations.birth_city.unique", "names.pattern", ""]),
    value=odd_values,
)
def test_any_override(new_case, key, value):
    override = f"{key}={value}"
    assume(not override.startswith("-") and "\0" not in override)
    generate(new_case, yaml.safe_dump(SPECS["people"]).encode(), override)
