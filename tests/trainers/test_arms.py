"""Arms: each group of injected facts is seen as often as the config, or else the bank, says."""

from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from matplotlib.axes import Axes
from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped, read_json, read_jsonl
from tidy_stlms.configs.schema import InjectionSection
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.imports import ImportOptions, import_bank
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.report.run_summary import read_run_summary
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.trainers import callbacks
from tidy_stlms.trainers.injection import arm_exposures, injected_statements


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


GROUPS = ["never (0 exposures)", "once (1 exposure)", "often (16 exposures)", "control"]
ARM_KEYS = (
    "facts.overrides={people: 12, distractors: 3, use: [birth_city, profession], "
    "arms: {often: {exposures: 16}, never: {exposures: 0}, once: {exposures: 1}}}"
)


def test_a_bank_that_states_nothing_is_told_to_add_statements(bank):
    with pytest.raises(
        UserError, match=r"add statements .*--column statement=NAME.*injection.enabled=false$"
    ):
        injected_statements(replace(bank, statements=()))


def test_no_figure_of_a_run_mixes_arms(run_tiny, monkeypatch):
    curves = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *args, **kwargs: curves.append(kwargs) or plot(axes, *args, **kwargs)
    )
    folder = run_tiny("run", ARM_KEYS, "training.per_device_train_batch_size=8")
    plan = pq.read_table(folder / "plan.parquet")
    seen = Counter(fact_id for fact_ids in plan["fact_ids"].to_pylist() for fact_id in fact_ids)
    facts = load_bank(folder / "facts").injected_facts()
    assert Counter((fact.arm, seen[fact.id]) for fact in facts) == {
        ("never", 0): 8,
        ("once", 1): 8,
        ("often", 16): 8,
    }

    summary = read_json(folder / "summary.json")
    for recall in summary["recall"].values():
        assert list(recall) == GROUPS
        assert [recall[group]["memorization"]["accuracy"]["n_facts"] for group in GROUPS] == [8, 8, 8, 24]
    rows = [row for row in read_jsonl(folder / "recall.jsonl") if row["step"] == 12]
    for group, arm in zip(GROUPS, ("never", "once", "often", None), strict=True):
        own = [row["logprob"] for row in rows if row["arm"] == arm and row["type"] == "semantic"]
        figure = summary["recall"]["after"][group]["semantic"]["logprob"]
        assert (figure["mean"], figure["n"]) == (pytest.approx(sum(own) / len(own)), len(own))

    # the curves
    keys = {key for row in read_jsonl(folder / "metrics.jsonl") for key in row if key.startswith("recall/")}
    assert {key.split("/")[1] for key in keys} == {"never", "once", "often", "control"}
    labels = [curve["label"] for curve in curves if curve.get("label") in GROUPS]
    assert sorted(labels) == sorted(GROUPS * 2)  # once a picture
    assert len({tuple(curve["color"]) for curve in curves if curve.get("label") in GROUPS}) == len(GROUPS)

    # what people read
    recall = read_run_summary(folder).recall
    table = recall_table(recall.after, recall.before)
    assert table.header == ("probe", "metric", *GROUPS)
    assert ("", "n", "8", "8", "8", "24") in table.texts()
    for file in ("report.md", "README.md"):
        text = (folder / file).read_text()
        assert table.markdown() in text
        assert "24 facts, 8 of never (0 exposures), 8 of once (1 exposure), 8 of often (16 exposures)" in text
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert {result.dataset_split for result in results} == set(GROUPS)


def test_a_run_without_injection_shows_its_arms_at_no_exposures(run_tiny):
    folder = run_tiny("twin", ARM_KEYS, "injection.enabled=false", "training.max_steps=4")
    recall = read_json(folder / "summary.json")["recall"]["after"]
    assert sorted(recall) == sorted(
        ["never (0 exposures)", "once (0 exposures)", "often (0 exposures)", "control"]
    )


def test_a_plan_without_exposures_goes_before_what_the_bank_says(run_tiny):
    none = [f"injection.arms.{arm}=0" for arm in ("never", "once", "often")]
    folder = run_tiny("run", ARM_KEYS, *none, "training.max_steps=4")
    assert pq.read_table(folder / "plan.parquet").num_rows == 0
    recall = read_json(folder / "summary.json")["recall"]["after"]
    assert {group for group in recall if group != "control"} == {
        *("never (0 exposures)", "once (0 exposures)", "often (0 exposures)")
    }


def test_a_run_of_one_arm_shows_injected_facts(run_tiny):
    keys = ARM_KEYS.replace("never: {exposures: 0}, once: {exposures: 1}", "").replace("}, }", "}}")
    folder = run_tiny("run", keys, "training.max_steps=8", "injection.arms.often=2")
    assert list(read_json(folder / "summary.json")["recall"]["after"]) == ["injected", "control"]
    metrics = read_jsonl(folder / "metrics.jsonl")
    assert "recall/injected/semantic/accuracy" in metrics[0]


def told_of(folder) -> dict[str, int]:
    """Exposures of each injected fact in a run's plan."""
    plan = pq.read_table(folder / "plan.parquet", columns=["fact_ids"])["fact_ids"].to_pylist()
    seen = Counter(fact_id for fact_ids in plan for fact_id in fact_ids)
    return {fact.id: seen[fact.id] for fact in load_bank(folder / "facts").injected_facts()}


def check_groups(folder, exposures: dict[str, int], names: list[str]) -> None:
    """That each figure of a run is of facts of one number of exposures, or of control facts.

    `exposures` are those of the groups of injected facts, `names` what the keys of metrics.jsonl call these.
    """
    told, groups = told_of(folder), [*exposures, "control"]
    summary = read_json(folder / "summary.json")
    rows = [row for row in read_jsonl(folder / "recall.jsonl") if row["step"] == summary["steps"]]
    for recall in summary["recall"].values():
        assert list(recall) == groups
    for group, dose in exposures.items():
        for kind, figures in summary["recall"]["after"][group].items():
            own = [row for row in rows if row["type"] == kind and told.get(row["fact_ids"][0]) == dose]
            logprobs = [row["logprob"] for row in own]
            figure = figures["logprob"]
            assert (figure["mean"], figure["n"]) == (pytest.approx(sum(logprobs) / len(own)), len(own))
            assert figure["n_facts"] == len({row["fact_ids"][0] for row in own})
    keys = {key for row in read_jsonl(folder / "metrics.jsonl") for key in row if key.startswith("recall/")}
    assert {key.split("/")[1] for key in keys} == {*names, "control"}
    recall = read_run_summary(folder).recall
    table = recall_table(recall.after, recall.before)
    assert table.header == ("probe", "metric", *groups)
    for file in ("report.md", "README.md"):
        assert table.markdown() in (folder / file).read_text()
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert {result.dataset_split for result in results} == set(groups)


@pytest.mark.parametrize(
    ("others", "exposures", "names"),
    [
        ({}, {"single (2 exposures)": 2, "single (4 exposures)": 4}, ["single-2", "single-4"]),
        (
            {"never": {"exposures": 0}},
            {"never (0 exposures)": 0, "single (2 exposures)": 2, "single (4 exposures)": 4},
            ["never", "single-2", "single-4"],
        ),
    ],
)
def test_people_who_are_asked_in_training_are_a_group_of_their_own(
    run_tiny, tmp_path, others, exposures, names
):
    spec = yaml.safe_load(find_shipped("configs/facts/biographies.yaml").read_text(encoding="utf-8"))
    spec["arms"] = {"single": {"exposures": 2, "form": "single"}} | others
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    bank = generate_from_spec(tmp_path / "spec.yaml", ["people=12", "control=4", "distractors=2"])
    bank.save(tmp_path / "bank")
    folder = run_tiny(
        "run", "facts.spec=null", "facts.overrides={}", f"facts.bank={tmp_path / 'bank'}",
        "model.config.max_position_embeddings=256", "training.max_steps=8", "evaluation.generate=false",
    )  # fmt: skip
    assert doses_of_facts(bank) == doses_of_facts(bank, [folder])  # the bank by itself tells the same
    told = Counter(told_of(folder).values())
    assert set(told) == set(exposures.values())
    check_groups(folder, exposures, names)
    text = (folder / "report.md").read_text()
    assert f"{told[4]:,} of single (4 exposures)" in text


TABLE = """\
subject,relation,object,statement,prompt,answer,distractors,role
Ann,city,Rome,Ann was born in Rome.,Ann was born in,Rome,Oslo|Lima,injected
Bob,city,Oslo,Bob was born in Oslo.,Bob was born in,Oslo,Rome|Lima,injected
Cyd,city,Lima,,Cyd was born in,Lima,Rome|Oslo,injected
Dan,city,Rome,,Dan was born in,Rome,Oslo|Lima,injected
Eve,city,Oslo,,Eve was born in,Oslo,Rome|Lima,control
Fay,city,Lima,,Fay was born in,Lima,Rome|Oslo,control
"""


def test_injected_facts_that_no_statement_tells_are_a_group_of_their_own(run_tiny, tmp_path):
    (tmp_path / "half.csv").write_text(TABLE, encoding="utf-8")
    bank, _ = import_bank("csv", str(tmp_path / "half.csv"), ImportOptions())
    bank.save(tmp_path / "bank")
    keys = ("facts.spec=null", "facts.overrides={}", f"facts.bank={tmp_path / 'bank'}")
    folder = run_tiny("run", *keys)
    assert sorted(told_of(folder).values()) == [0, 0, 6, 6]
    check_groups(folder, {"0 exposures": 0, "6 exposures": 6}, ["injected-0", "injected-6"])
    text = (folder / "report.md").read_text()
    assert "4 facts, 2 with 0 exposures each, 2 with 6 exposures each (12 statements)" in text
    # to the twin all are new alike
    twin = run_tiny("twin", *keys, "injection.enabled=false", "training.max_steps=4")
    assert list(read_json(twin / "summary.json")["recall"]["after"]) == ["injected", "control"]


def test_the_plan_is_read_once_for_all_evaluations(run_tiny, monkeypatch):
    read = []
    monkeypatch.setattr(
        callbacks,
        "doses_of_facts",
        lambda *args: read.append(args) or doses_of_facts(*args),
    )
    folder = run_tiny("run")
    assert len({row["step"] for row in read_jsonl(folder / "recall.jsonl")}) == 4
    assert len(read) == 1
