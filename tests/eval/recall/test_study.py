"""The study as data: its sections, its files, and recall against exposures."""

import csv
import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.files import read_json, read_jsonl
from eval.facts.bank import Fact
from eval.model_names import ModelName
from eval.recall.exposures import dose_response, exposures_until
from eval.recall.measuring import Asked, Measured
from eval.recall.metrics import METRICS, summarise
from eval.recall.study import build_study, check_out, rows_of, write_study
from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank

CLEO = Fact("cleo/city", "Cleo Fox", "city", "Oslo", "injected")
DAN = Fact("dan/city", "Dan Lee", "city", "Oslo", "control")
FACTS = (ADA, BOB, CLEO, DAN)
UNSEEN = {BOB.id: 0, DAN.id: 0}


def bank():
    return small_bank(facts=FACTS, probes=[probe(fact) for fact in FACTS])


def row(fact, accuracy=1.0, **changes):
    return {
        "probe_id": f"{fact.id}/memorization:0",
        "fact_ids": [fact.id],
        "role": fact.role,
        "arm": None,
        "type": "memorization",
        "relation": fact.relation,
        "subject": fact.subject,
        "prompt": "?",
        "answer": fact.object,
        "template": None,
        **dict.fromkeys(METRICS),
        "accuracy": accuracy,
        "logprob": -2.0,
        "n_tokens": 1,
        "n_bytes": 5,
        "flags": ["straddles"],
        "top_tokens": [[" Bern", 0.25], [" Rome", 0.125]],
    } | changes


def measured(label, rows=(), *, run=None, step=None, tokenizer="t", **sections):
    info = {"model": label, "path": label, "tokenizer": tokenizer, "error": None, "parameters": 10}
    return Measured(ModelName(label, label, run=run, step=step), info, rows=list(rows), **sections)


def everybody(accuracy=1.0):
    return [row(fact, accuracy) for fact in FACTS]


def save_plan(run, exposures):
    """A run's plan from (step, fact ids) pairs, and its facts."""
    (run / "facts").mkdir(parents=True)
    steps, fact_ids = zip(*exposures, strict=True)
    pq.write_table(pa.table({"step": steps, "fact_ids": fact_ids}), run / "plan.parquet")
    lines = [{"id": fact.id, "subject": fact.subject, "object": fact.object} for fact in FACTS]
    (run / "facts" / "facts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_sections_of_a_study():
    models = [measured("run", everybody()), measured("twin", everybody(0.0))]
    study = build_study(models, Asked(bank=bank()), baseline="twin")
    assert list(study) == [
        *("schema", "created", "scorer", "bank", "models"),
        *("recall", "by_relation", "corrected", "comparisons"),
    ]
    assert json.loads(json.dumps(study, allow_nan=False)) == study
    assert study["recall"]["run"] == summarise(everybody())
    assert study["by_relation"]["run"]["injected"].keys() == {"city"}
    assert study["corrected"]["run"]["memorization"]["accuracy_over_control"]["mean"] == 0.0
    assert {(e["a"], e["b"]) for e in study["comparisons"]} == {("twin", "run")}
    assert study["bank"] == {
        "name": "small",
        "sha256": bank().sha256,
        "n_facts": 4,
        "n_probes": 4,
        "chance": pytest.approx(1 / 3),
        "flags": {},
    }


def test_arms_are_a_section_where_the_bank_has_them():
    rows = [row(ADA, arm="once"), row(CLEO, 0.0, arm="often"), row(BOB)]
    study = build_study([measured("run", rows)], Asked(bank=bank()))
    arms = study["by_arm"]["run"]
    assert arms["injected"]["once"]["accuracy"]["mean"] == 1.0
    assert arms["injected"]["often"]["accuracy"]["mean"] == 0.0


def test_what_failed_is_in_the_study_too():
    broken = measured("broken", errors={"model": "torn"})
    broken.info["error"] = "torn"
    half = measured("half", everybody(), errors={"heldout": "no room", "benchmarks": "no network"})
    documents = [{"nats": 10.0, "n_bytes": 5, "n_tokens": 2}]
    asked = Asked(bank=bank(), benchmarks=("piqa",), probes=("cola",), documents=["text"])
    study = build_study([broken, half, measured("run", everybody(), documents=documents)], asked)
    assert [model["error"] for model in study["models"]] == ["torn", None, None]
    assert study["recall"].keys() == {"half", "run"}
    assert study["heldout"]["half"] == {"error": "no room"}
    assert study["heldout"]["run"]["n_documents"] == 1
    assert study["benchmarks"] == {
        "half": {task: {"error": "no network"} for task in ("piqa", "probe:cola")},
    }


def test_a_study_without_facts():
    prompts = [{"sentence": "a", "answer": None, "generation": "b", "top_tokens": []}]
    study = build_study([measured("run", prompts=prompts)], Asked())
    assert list(study) == ["schema", "created", "scorer", "models", "prompts"]


def test_exposures_up_to_a_step(tmp_path):
    exposures = [(0, [ADA.id]), (3, [ADA.id, CLEO.id]), (3, [ADA.id]), (9, [CLEO.id])]
    save_plan(tmp_path, exposures)
    assert exposures_until(tmp_path, 0, bank()) == {ADA.id: 0, CLEO.id: 0, **UNSEEN}
    # a checkpoint of step 3 has seen the steps 0, 1 and 2
    assert exposures_until(tmp_path, 3, bank()) == {ADA.id: 1, CLEO.id: 0, **UNSEEN}
    assert exposures_until(tmp_path, 4, bank()) == {ADA.id: 3, CLEO.id: 1, **UNSEEN}
    assert exposures_until(tmp_path, None, bank()) == {ADA.id: 3, CLEO.id: 2, **UNSEEN}
    # facts of the same name that say something else were not seen
    other = bank()
    other = dataclasses.replace(other, facts=[dataclasses.replace(ADA, object="Graz"), BOB, CLEO])
    assert exposures_until(tmp_path, None, other) == {BOB.id: 0, CLEO.id: 2}
    assert exposures_until(tmp_path, None, small_bank(facts=(BOB,))) is None
    assert exposures_until(tmp_path / "twin", None, bank()) is None


def test_a_run_that_lost_its_plan_has_no_dose_response(tmp_path, caplog):
    save_plan(tmp_path, [(0, [ADA.id])])
    plan = (tmp_path / "plan.parquet").read_bytes()
    (tmp_path / "plan.parquet").write_bytes(plan[:100])
    assert exposures_until(tmp_path, None, bank()) is None
    (tmp_path / "plan.parquet").write_bytes(plan)
    (tmp_path / "facts/facts.jsonl").unlink()
    assert exposures_until(tmp_path, None, bank()) is None
    assert "plan.parquet" in caplog.messages[0]
    assert "facts.jsonl" in caplog.messages[1]


def test_the_plan_that_a_run_saves_can_be_read(tmp_path):
    from trainers.plan import Unit, make_plan

    save_plan(tmp_path, [(0, [ADA.id])])
    units = [Unit((fact.id,), (f"{fact.id}/original",), (5,)) for fact in (ADA, CLEO)]
    plan = make_plan(units, exposures=4, total_rows=64, rows_per_pass=64, rows_per_step=4, context_window=32)
    plan.save(tmp_path / "plan.parquet")
    assert exposures_until(tmp_path, None, bank()) == {ADA.id: 4, CLEO.id: 4, **UNSEEN}
    halfway = sum((exposures_until(tmp_path, 8, bank()) or {}).values())
    assert halfway == (plan.steps < 8).sum()


def test_dose_response_by_hand():
    rows = [row(ADA, 1.0), row(CLEO, 0.0), row(BOB, 0.5, logprob=None)]
    found = dose_response(rows, {ADA.id: 3, CLEO.id: 3, BOB.id: 0})
    assert [(e["type"], e["exposures"], e["metric"], e["mean"], e["n"]) for e in found] == [
        ("memorization", 0, "accuracy", 0.5, 1),
        ("memorization", 3, "accuracy", 0.5, 2),
        ("memorization", 3, "logprob", -2.0, 2),
    ]
    assert (found[1]["low"], found[1]["high"]) == (0.0, 1.0)
    # a probe of several facts knows them as well as the rarest; neighbours were not to be seen
    both = row(ADA, fact_ids=[ADA.id, CLEO.id])
    neighbour = row(BOB, role="neighbour")
    [first, _] = dose_response([both, neighbour], {ADA.id: 9, CLEO.id: 2, BOB.id: 0})
    assert first["exposures"] == 2


def test_many_doses_are_put_together():
    facts = [dataclasses.replace(ADA, id=f"f{number}") for number in range(65)]
    found = dose_response([row(fact) for fact in facts], {f"f{number}": number for number in range(65)})
    doses = [e["exposures"] for e in found if e["metric"] == "accuracy"]
    assert doses == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert sum(e["n"] for e in found if e["metric"] == "accuracy") == 65


def test_doses_of_a_runs_checkpoint_are_in_its_study(tmp_path):
    save_plan(tmp_path, [(0, [ADA.id]), (5, [ADA.id])])
    run = str(tmp_path)
    models = [
        measured("early", everybody(), run=run, step=3),
        measured("late", everybody(), run=run, step=6),
        measured("twin", everybody(), run=f"{run}/twin"),
    ]
    doses = build_study(models, Asked(bank=bank()))["dose_response"]
    shown = {(e["model"], e["exposures"]) for e in doses}
    assert shown == {("early", 0), ("early", 1), ("late", 0), ("late", 2)}


def test_a_study_is_written_whole(tmp_path):
    models = [measured("run", everybody()), measured("twin", everybody(0.0))]
    study, rows = build_study(models, Asked(bank=bank())), rows_of(models)
    out = tmp_path / "results" / "comparison"

    def report(folder, given, of_rows):
        assert (given, of_rows) == (study, rows)
        (folder / "report.md").write_text("report")

    write_study(out, study, rows, report=report)
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.md", "results.csv", "results.jsonl", "summary.json"),
    ]
    assert read_json(out / "summary.json") == study
    assert read_jsonl(out / "results.jsonl") == rows
    assert [line["model"] for line in rows] == ["run"] * 4 + ["twin"] * 4
    table = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert [line["accuracy"] for line in table] == ["1.0"] * 4 + ["0.0"] * 4
    assert table[0]["flags"] == "straddles"
    assert table[0]["top_tokens"] == "' Bern' 0.25; ' Rome' 0.125"
    assert table[0]["exact_match"] == ""

    # earlier results stay until the new ones are whole, and nothing of them after that
    def broken(*_):
        raise RuntimeError

    (out / "old.png").write_text("old")
    with pytest.raises(RuntimeError):
        write_study(out, study, rows[:1], report=broken)
    assert len(read_jsonl(out / "results.jsonl")) == 8
    write_study(out, study, rows[:1])
    assert sorted(path.name for path in out.iterdir()) == ["results.csv", "results.jsonl", "summary.json"]
    assert [path.name for path in out.parent.iterdir()] == ["comparison"]


def test_only_results_are_replaced(tmp_path):
    out = tmp_path / "results"
    check_out(out, overwrite=False)
    out.mkdir()
    check_out(out, overwrite=False)
    write_study(out, build_study([measured("run", everybody())], Asked(bank=bank())), [])
    with pytest.raises(UserError, match="already holds something; take another --out, or --overwrite"):
        check_out(out, overwrite=False)
    check_out(out, overwrite=True)
    # a run's folder has a summary too, of another kind
    (out / "summary.json").write_text(json.dumps({"steps": 400}))
    with pytest.raises(UserError, match="does not look like results"):
        check_out(out, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        check_out(out / "summary.json", overwrite=True)
