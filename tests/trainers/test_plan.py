"""The plan: exact exposures, the right places, or a refusal."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.run_folder import count_exposures, read_plan
from tidy_stlms.trainers.plan import Unit, exposures_for_fraction, make_plan, units_of

ROWS, WINDOW = 200, 32


def units(count=6, wordings=3, tokens=7):
    return [
        Unit((f"f{i}",), tuple(f"f{i}/s{k}" for k in range(wordings)), (tokens,) * wordings)
        for i in range(count)
    ]


def plan(**changes):
    arguments = {
        "exposures": 12,
        "total_rows": ROWS,
        "rows_per_pass": 80,
        "rows_per_step": 4,
        "context_window": WINDOW,
    }
    return make_plan(changes.pop("units", units()), **{**arguments, **changes})


ALL = list(itertools.product(["uniform", "random", "start", "end"], ["run", "pass"], ["splice", "row"]))


@pytest.mark.parametrize(("strategy", "span", "placement"), ALL)
def test_every_fact_is_exposed_exactly_as_often_as_planned(strategy, span, placement):
    made = plan(strategy=strategy, span=span, placement=placement, window=0.5)
    assert count_exposures(made.table()) == {f"f{i}": 12 for i in range(6)}
    assert made.positions.min() >= 0
    assert made.positions.max() < ROWS
    assert (np.diff(made.positions) >= 0).all()
    for i in range(6):  # never twice in a row, each wording as often as the others, counted in order
        mine = [j for j, facts in enumerate(made.fact_ids) if facts == (f"f{i}",)]
        assert len(set(made.positions[mine].tolist())) == 12
        wordings = [made.statement_ids[j] for j in mine]
        assert {wordings.count(f"f{i}/s{k}") for k in range(3)} == {4}
        assert made.exposure[mine].tolist() == list(range(1, 13))


@pytest.mark.parametrize("placement", ["splice", "row"])
def test_rows_are_never_overfull(placement):
    made = plan(units=units(20), exposures=9, placement=placement)
    capacity = WINDOW // (7 + 2) if placement == "splice" else 1
    assert max(len(statements) for statements in made.by_position.values()) <= capacity


def test_uniform_is_evenly_spaced_and_strategies_keep_to_their_place():
    one = units(1)
    assert set(np.diff(plan(units=one, exposures=20).positions)) == {ROWS // 20}
    assert plan(strategy="start", window=0.25).positions.max() < ROWS * 0.25
    assert plan(strategy="end", window=0.25).positions.min() >= ROWS * 0.75
    for strategy, low, high in (("start", 0.0, 0.25), ("end", 0.75, 1.0)):
        made = plan(strategy=strategy, span="pass", total_rows=160, window=0.25)
        within = (made.positions % 80) / 80
        assert ((within >= low) & (within < high)).all()
        assert sorted(np.bincount(made.positions // 80)) == [36, 36]  # both passes take half


def test_plan_is_a_function_of_its_seed():
    assert plan(strategy="random", seed=1).table() == plan(strategy="random", seed=1).table()
    assert plan(strategy="random", seed=1).table() != plan(strategy="random", seed=2).table()
    assert plan(seed=1).table() != plan(seed=2).table()


def test_saved_plan_is_the_plan(tmp_path):
    made = plan(strategy="random")
    made.save(tmp_path / "plan.parquet")
    saved = pq.read_table(tmp_path / "plan.parquet")
    assert saved["position"].to_pylist() == made.positions.tolist()
    assert saved["statement_id"].to_pylist() == list(made.statement_ids)
    assert saved["fact_ids"].to_pylist() == [list(facts) for facts in made.fact_ids]
    assert saved["exposure"].to_pylist() == made.exposure.tolist()
    assert saved["step"].to_pylist() == (made.positions // 4).tolist()
    assert saved.schema.metadata[b"rows_per_step"] == b"4"
    assert read_plan(tmp_path) == saved.select(["step", "fact_ids"])


def test_what_cannot_be_exact_is_refused():
    with pytest.raises(UserError, match=r"statement f0/s0: 31 tokens .* row of 32"):
        plan(units=units(tokens=31))
    with pytest.raises(UserError, match=r"injection.exposures: 201 exposures of 1 facts do not fit"):
        plan(units=units(1), exposures=201)
    with pytest.raises(UserError, match=r"do not fit into the 50 rows"):
        plan(strategy="start", placement="row", exposures=9)
    with pytest.raises(UserError, match=r"injection.fraction=1e-06: is less than one exposure"):
        exposures_for_fraction(units(), 1e-6, ROWS * WINDOW)


def test_a_plan_that_fills_every_row_still_fits():
    made = plan(units=units(2), exposures=100, placement="row")
    assert sorted(made.positions.tolist()) == list(range(ROWS))


def test_fraction_is_met():
    exposures = exposures_for_fraction(units(), 0.1, ROWS * WINDOW)
    assert abs(exposures * 6 * 7 / (ROWS * WINDOW) - 0.1) < 6 * 7 / (ROWS * WINDOW) / 2


def test_units_may_each_have_exposures_of_their_own():
    for strategy, span in itertools.product(["uniform", "random", "start", "end"], ["run", "pass"]):
        made = plan(exposures=[0, 1, 4, 16, 40, 3], strategy=strategy, span=span, window=0.5)
        assert count_exposures(made.table()) == {"f1": 1, "f2": 4, "f3": 16, "f4": 40, "f5": 3}


def test_units_group_wordings_by_facts():
    rows = [(i, f, n, "statement") for i, f, n in (("a", ("f",), 3), ("b", ("g",), 4), ("c", ("f",), 5))]
    rows += [("p", ("h", "i"), 9, "passage"), ("q", ("h",), 6, "qa"), ("r", ("i",), 6, "qa")]
    assert units_of(rows) == [
        Unit(("f",), ("a", "c"), (3, 5)),
        Unit(("g",), ("b",), (4,)),
        Unit(("h", "i"), ("p",), (9,)),
        Unit(("h",), ("q",), (6,)),
        Unit(("i",), ("r",), (6,)),
    ]
    with pytest.raises(UserError, match="fact f: stands in a and in p2"):
        units_of([*rows, ("p2", ("f", "i"), 9, "passage")])
    with pytest.raises(UserError, match="fact h: stands in q and in q2"):
        units_of([*rows, ("q2", ("h", "i"), 9, "qa")])


def test_a_passage_counts_for_each_of_its_facts():
    made = plan(units=[Unit(("f", "g"), ("p", "q"), (9, 8))], exposures=20, strategy="random")
    assert count_exposures(made.table()) == {"f": 20, "g": 20}
