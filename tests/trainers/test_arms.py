"""Arms: each group of injected facts is seen as often as the config, or else the bank, says."""

from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import InjectionSection
from eval.facts.bank import FactBank
from eval.facts.generate import generate_from_spec
from trainers.build import arm_exposures


@pytest.fixture(scope="module")
def bank() -> FactBank:
    """Eight injected facts in arms of 1 and 5 exposures, and in none; control facts in no arm."""
    made = generate_from_spec(
        "configs/facts/people.yaml", ["people=4", "distractors=3", "use=[birth_city,profession]"]
    )
    arms = {
        fact.subject: arm
        for fact, arm in zip(made.injected_facts(), ("once", "five", None, "five"), strict=False)
    }
    facts = [replace(f, arm=arms.get(f.subject)) for f in made.facts]
    return replace(
        made,
        facts=tuple(facts),
        meta={**made.meta, "arms": {"once": {"exposures": 1}, "five": {"exposures": 5}}},
    )


def test_exposures_of_a_run_are_those_of_its_arms(bank, run_tiny, tmp_path):
    bank.save(tmp_path / "bank")
    folder = run_tiny(
        "run", "facts.spec=null", "facts.overrides={}", f"facts.bank={tmp_path / 'bank'}",
        "injection.arms.five=7", "training.max_steps=6",
    )  # fmt: skip
    plan = pq.read_table(folder / "plan.parquet")
    seen = Counter(fact_id for fact_ids in plan["fact_ids"].to_pylist() for fact_id in fact_ids)
    wanted = {"once": 1, "five": 7, None: 6}
    assert seen == {fact.id: wanted[fact.arm] for fact in bank.injected_facts()}
    assert set(wanted) == {fact.arm for fact in bank.injected_facts()}


def test_numbers_come_from_the_config_then_the_bank(bank):
    assert arm_exposures(InjectionSection(exposures=9), bank) == {"once": 1, "five": 5, None: 9}
    own = InjectionSection(exposures=9, arms={"once": 0})
    assert arm_exposures(own, bank) == {"once": 0, "five": 5, None: 9}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (InjectionSection(exposures=1, arms={"fiv": 2}), r"injection.arms.fiv: .* it has five, once"),
        (InjectionSection(), "injection.exposures: facts have no number of exposures"),
        (InjectionSection(fraction=0.1), "injection.fraction: this bank's arms have exposures of their own"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_bank_is_named(bank, section, message):
    with pytest.raises(UserError, match=message):
        arm_exposures(section, bank)
