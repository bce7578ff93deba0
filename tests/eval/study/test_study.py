"""The study as data: its sections, its files, and recall against exposures."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank, statement
from tests.eval.recall.made import result
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, read_jsonl
from tidy_stlms.configs.records import from_row, read_records, to_row, write_records
from tidy_stlms.eval.facts.records import Fact
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.recall.exposures import dose_response, doses_of_facts, exposures_until
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import DocumentScore, ProbeResult
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.eval.study.request import Measurement, ModelInfo, StudyRequest
from tidy_stlms.eval.study.study import Study, build_study, check_out, read_study, results_of, write_study

CLEO = Fact("cleo/city", "Cleo Fox", "city", "Oslo", "injected")
DAN = Fact("dan/city", "Dan Lee", "city", "Oslo", "control")
FACTS = (ADA, BOB, CLEO, DAN)
UNSEEN = {BOB.id: 0, DAN.id: 0}


def bank():
    return small_bank(facts=FACTS, probes=[probe(fact) for fact in FACTS])


def row(fact, accuracy=1.0, **fields):
    defaults = {
        "probe_id": f"{fact.id}/memorization:0",
        "fact_ids": (fact.id,),
        "role": fact.role,
        "type": "memorization",
        "relation": fact.relation,
        "subject": fact.subject,
        "answer": fact.object,
        "accuracy": accuracy,
        "logprob": -2.0,
        "n_tokens": 1,
        "n_bytes": 5,
        "candidates": (fact.object, "Gent; Belgium"),
        "candidate_logprobs": (-2.0, -3.123456789),
        "flags": ("straddles",),
        "top_tokens": ((" Bern", 0.25), (" Rome", 0.125)),
    }
    return result(**{**defaults, **fields})


def measured(label, results=(), *, run=None, step=None, error=None, **sections):
    unknown = dict.fromkeys(("revision", "seconds", "probes_per_second"))
    info = ModelInfo(
        model=label,
        path=label,
        step=step,
        run=run,
        device="cpu",
        dtype="float32",
        parameters=10,
        tokenizer="t",
        error=error,
        **unknown,
    )
    return Measurement(ModelName(label, label, run=run, step=step), info, results=list(results), **sections)


def as_json(study):
    """The study as summary.json holds it."""
    return json.loads(json.dumps(to_row(study), allow_nan=False))


def everybody(accuracy=1.0):
    return [row(fact, accuracy) for fact in FACTS]


def save_plan(run, exposures):
    """A run's plan from (step, fact ids) pairs, and its facts."""
    (run / "facts").mkdir(parents=True)
    steps, fact_ids = zip(*exposures, strict=True)
    pq.write_table(pa.table({"step": steps, "fact_ids": fact_ids}), run / "plan.parquet")
    write_records(run / "facts" / "facts.jsonl", FACTS)


def test_the_sections_of_a_study():
    models = [measured("run", everybody()), measured("twin", everybody(0.0))]
    study = build_study(models, StudyRequest(bank=bank()), baseline="twin")
    assert list(as_json(study)) == [
        *("schema", "created", "scorer", "versions", "bank", "models"),
        *("recall", "by_relation", "corrected", "comparisons"),
    ]
    assert from_row(Study, as_json(study), "summary.json") == study
    assert study.recall["run"] == summarise(everybody())
    assert study.by_relation["run"]["injected"].keys() == {"city"}
    assert study.corrected["run"]["injected"]["memorization"]["accuracy_over_control"].mean == 0.0
    assert {(e.a, e.b) for e in study.comparisons} == {("twin", "run")}
    assert as_json(study)["bank"] == {
        "name": "small",
        "style": "suite",
        "guessable": [],
        "sha256": bank().sha256,
        "n_facts": 4,
        "n_probes": 4,
        "chance": pytest.approx(1 / 3),
        "flags": {},
        "chance_exact_match": {"memorization": 0.5},  # two injected people, two towns
    }


ARMS = {"often": {"exposures": 64}, "once": {"exposures": 1}}


def bank_with_arms():
    """Ada is told often, Cleo once."""
    facts = [replace(ADA, arm="often"), BOB, replace(CLEO, arm="once"), DAN]
    probes, statements = [probe(fact) for fact in facts], [statement(fact) for fact in facts]
    whole = small_bank(facts=facts, probes=probes, statements=statements)
    return replace(whole, meta={**whole.meta, "arms": ARMS})


def rows_with_arms(of_often=1.0, of_once=0.0):
    return [row(ADA, of_often, arm="often"), row(CLEO, of_once, arm="once"), row(BOB), row(DAN)]


def test_no_figure_of_a_study_mixes_arms(tmp_path):
    asked = StudyRequest(bank=bank_with_arms())
    groups = ["once (1 exposure)", "often (64 exposures)", "control"]
    models = [measured("run", rows_with_arms()), measured("twin", rows_with_arms(0.0))]
    study = build_study(models, asked)
    recall = study.recall["run"]
    assert list(recall) == groups
    assert [recall[group]["memorization"]["accuracy"].mean for group in groups] == [0.0, 1.0, 1.0]
    assert [recall[group]["memorization"]["accuracy"].n for group in groups] == [1, 1, 2]
    assert list(study.by_relation["run"]) == groups
    assert {e.role: e.difference for e in study.comparisons if e.metric == "accuracy"} == {
        "once (1 exposure)": 0.0,
        "often (64 exposures)": -1.0,
        "control": 0.0,
    }
    assert "injected" not in json.dumps(
        {name: as_json(study)[name] for name in ("recall", "by_relation", "comparisons")}
    )
    # the plan of a run goes before what the bank says; a twin beside it changes nothing
    save_plan(tmp_path, [(step, [fact]) for step, fact in enumerate([ADA.id] * 3 + [CLEO.id] * 1_200)])
    of_run = [measured("run", rows_with_arms(), run=str(tmp_path), step=3)]
    twin = [measured("twin", rows_with_arms(), run=str(tmp_path / "twin"))]
    for models in (of_run, of_run + twin):
        recall = build_study(models, asked).recall["run"]
        assert list(recall) == ["often (3 exposures)", "once (1,200 exposures)", "control"]
    # which by itself has shown nothing
    assert list(build_study(twin, asked).recall["twin"]) == [
        *("often (0 exposures)", "once (0 exposures)", "control"),
    ]


def test_no_figure_of_a_study_mixes_exposures(tmp_path):
    save_plan(tmp_path, [(0, [ADA.id]), (1, [ADA.id]), (1, [CLEO.id])])
    rows = [row(ADA, 1.0), row(CLEO, 0.0), row(BOB), row(DAN)]
    models = [measured("run", rows, run=str(tmp_path), step=3), measured("other", rows)]
    study = build_study(models, StudyRequest(bank=bank()))
    groups = ["1 exposure", "2 exposures", "control"]
    for recall in study.recall.values():
        assert list(recall) == groups
        assert [recall[group]["memorization"]["accuracy"].mean for group in groups] == [0.0, 1.0, 1.0]
    assert list(study.by_relation["run"]) == groups
    assert {e.role for e in study.comparisons} == set(groups)
    mixed = {name: as_json(study)[name] for name in ("recall", "by_relation", "comparisons")}
    assert "injected" not in json.dumps(mixed)
    entries = [(e.role, e.exposures) for e in study.dose_response if e.metric == "accuracy"]
    assert entries == [("control", 0), ("injected", 1), ("injected", 2)]


def test_one_arm_is_shown_like_none():
    rows = [row(ADA), row(CLEO, 0.0), row(BOB), row(DAN)]
    in_one = [replace(one, arm="often" if one.role == "injected" else None) for one in rows]
    plain, same = (build_study([measured("run", own)], StudyRequest(bank=bank())) for own in (rows, in_one))
    for section in ("recall", "by_relation", "corrected"):
        assert getattr(plain, section) == getattr(same, section)
    assert list(plain.recall["run"]) == ["injected", "control"]


def test_what_failed_is_in_the_study_too():
    broken = measured("broken", errors={"model": "torn"}, error="torn")
    half = measured("half", everybody(), errors={"heldout": "no room", "benchmarks": "no network"})
    documents = [DocumentScore(nats=10.0, n_bytes=5, n_tokens=2)]
    asked = StudyRequest(bank=bank(), benchmarks=("piqa",), linear_probes=("cola",), documents=["text"])
    study = build_study([broken, half, measured("run", everybody(), documents=documents)], asked)
    assert [model.error for model in study.models] == ["torn", None, None]
    assert study.recall.keys() == {"half", "run"}
    assert as_json(study)["heldout"]["half"] == {"error": "no room"}
    assert study.heldout["run"].n_documents == 1
    assert study.benchmarks == {
        "half": {task: {"error": "no network"} for task in ("piqa", "probe:cola")},
    }


def test_a_study_without_facts():
    prompts = [PromptResult(sentence="a", answer=None, joint=" ", generation="b", top_tokens=())]
    study = build_study([measured("run", prompts=prompts)], StudyRequest())
    assert list(as_json(study)) == ["schema", "created", "scorer", "versions", "models", "prompts"]


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
    other = replace(other, facts=[replace(ADA, object="Graz"), BOB, CLEO])
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
    from tidy_stlms.trainers.plan import Unit, make_plan

    save_plan(tmp_path, [(0, [ADA.id])])
    units = [Unit((fact.id,), (f"{fact.id}/original",), (5,)) for fact in (ADA, CLEO)]
    plan = make_plan(units, exposures=4, total_rows=64, rows_per_pass=64, rows_per_step=4, context_window=32)
    plan.save(tmp_path / "plan.parquet")
    assert exposures_until(tmp_path, None, bank()) == {ADA.id: 4, CLEO.id: 4, **UNSEEN}
    halfway = sum((exposures_until(tmp_path, 8, bank()) or {}).values())
    assert halfway == (plan.steps < 8).sum()


def test_dose_response_by_hand():
    rows = [row(ADA, 1.0), row(CLEO, 0.0), row(BOB, 0.5, logprob=None)]
    found = dose_response(rows, {ADA.id: 3, CLEO.id: 3, BOB.id: 0}, model="run")
    assert [(e.type, e.role, e.exposures, e.metric, e.mean, e.n) for e in found] == [
        ("memorization", "control", 0, "accuracy", 0.5, 1),
        ("memorization", "injected", 3, "accuracy", 0.5, 2),
        ("memorization", "injected", 3, "logprob", -2.0, 2),
    ]
    assert (found[1].low, found[1].high) == (0.0, 1.0)
    # a probe of several facts knows them as well as the rarest; neighbours were not to be seen
    both = row(ADA, fact_ids=(ADA.id, CLEO.id))
    neighbour = row(BOB, role="neighbour")
    [first, _] = dose_response([both, neighbour], {ADA.id: 9, CLEO.id: 2, BOB.id: 0}, model="run")
    assert first.exposures == 2


def test_control_people_and_an_arm_of_no_exposures_are_two_doses():
    rows = [
        *(row(ADA, 1.0, arm="often"), row(CLEO, 0.0, arm="never"), row(BOB, 0.5)),
        row(DAN, 0.25, arm="unseen"),  # whose answers are others than those of control people
    ]
    found = dose_response(rows, {ADA.id: 16, CLEO.id: 0, BOB.id: 0, DAN.id: 0}, model="run")
    assert [(e.role, e.exposures, e.mean) for e in found if e.metric == "accuracy"] == [
        ("control", 0, 0.5),
        ("never", 0, 0.0),
        ("often", 16, 1.0),
    ]
    # arms of as many exposures, of other wordings say, are two as well
    found = dose_response(rows, {ADA.id: 16, CLEO.id: 16, BOB.id: 0}, model="run")
    assert [(e.role, e.exposures, e.n) for e in found if e.metric == "accuracy"] == [
        ("control", 0, 1),
        ("never", 16, 1),
        ("often", 16, 1),
    ]


def test_exposures_of_injected_facts(tmp_path):
    both = bank_with_arms()
    of_bank = {ADA.id: (64, 64), CLEO.id: (1, 1)}
    assert doses_of_facts(both) == of_bank
    one, other = tmp_path / "one", tmp_path / "other"
    save_plan(one, [(0, [ADA.id]), (3, [ADA.id, CLEO.id]), (9, [CLEO.id]), (9, [CLEO.id])])
    assert doses_of_facts(both, [one]) == {ADA.id: (2, 2), CLEO.id: (3, 3)}
    assert doses_of_facts(bank(), [one]) == {ADA.id: (2, 2), CLEO.id: (3, 3)}
    more = replace(ADA, id="more", arm="often")
    assert doses_of_facts(replace(both, facts=[*both.facts, more]), [one])["more"] == (0, 0)
    # over several runs, those that injected something
    save_plan(other, [(0, [ADA.id])])
    assert doses_of_facts(both, [one, tmp_path / "twin", other]) == {ADA.id: (1, 2), CLEO.id: (0, 3)}
    assert doses_of_facts(both, [tmp_path / "twin"]) == {ADA.id: (0, 0), CLEO.id: (0, 0)}
    # a plan of other facts says nothing of these
    (one / "facts/facts.jsonl").write_text("")
    assert doses_of_facts(both, [one]) == of_bank
    assert doses_of_facts(both, [one, other]) == {ADA.id: (1, 1), CLEO.id: (0, 0)}
    assert doses_of_facts(bank(), [one]) == {}


def test_exposures_that_a_bank_plans_for_texts_and_questions():
    both = bank_with_arms()
    texts = [
        *(statement(ADA), statement(ADA, id="ada/2", form="paraphrase:1")),
        statement(ADA, id="ada/qa", kind="qa"),
    ]
    assert doses_of_facts(replace(both, statements=texts)) == {
        ADA.id: (128, 128),
        CLEO.id: (0, 0),  # no statement tells it
    }
    none = replace(CLEO, arm=None)
    assert doses_of_facts(replace(both, facts=[*both.facts[:2], none])) == {ADA.id: (64, 64)}


def test_many_doses_are_put_together():
    facts = [replace(ADA, id=f"f{number}") for number in range(65)]
    found = dose_response(
        [row(fact) for fact in facts], {f"f{number}": number for number in range(65)}, model="run"
    )
    doses = [e.exposures for e in found if e.metric == "accuracy"]
    assert doses == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert sum(e.n for e in found if e.metric == "accuracy") == 65


def test_doses_of_a_runs_checkpoint_are_in_its_study(tmp_path):
    save_plan(tmp_path, [(0, [ADA.id]), (5, [ADA.id])])
    run = str(tmp_path)
    models = [
        measured("early", everybody(), run=run, step=3),
        measured("late", everybody(), run=run, step=6),
        measured("twin", everybody(), run=f"{run}/twin"),
    ]
    doses = build_study(models, StudyRequest(bank=bank())).dose_response
    shown = {(e.model, e.exposures) for e in doses}
    assert shown == {("early", 0), ("early", 1), ("late", 0), ("late", 2)}


def test_a_study_is_written_whole(tmp_path):
    models = [measured("run", everybody()), measured("twin", everybody(0.0))]
    study, rows = build_study(models, StudyRequest(bank=bank())), results_of(models)
    out = tmp_path / "results" / "comparison"

    def report(folder):
        (folder / "report.md").write_text("report")

    write_study(out, study, rows, report=report)
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.md", "results.csv", "results.jsonl", "summary.json"),
    ]
    assert read_json(out / "summary.json") == as_json(study)
    assert read_study(out) == study
    assert list(read_records(out / "results.jsonl", ProbeResult)) == rows
    assert [line.model for line in rows] == ["run"] * 4 + ["twin"] * 4
    table = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert [line["accuracy"] for line in table] == ["1.0"] * 4 + ["0.0"] * 4
    assert table[0]["flags"] == "straddles"
    assert table[0]["top_tokens"] == "' Bern' 0.25; ' Rome' 0.125"
    assert table[0]["exact_match"] == ""
    assert table[0]["candidates"] == f"{ADA.object}; 'Gent; Belgium'"
    assert table[0]["candidate_logprobs"] == "-2; -3.12346"

    # earlier results stay until the new ones are whole, and nothing of them after that
    def broken(*_):
        raise RuntimeError

    (out / "old.png").write_text("old")
    with pytest.raises(RuntimeError):
        write_study(out, study, rows[:1], report=broken, overwrite=True)
    assert len(read_jsonl(out / "results.jsonl")) == 8
    with pytest.raises(UserError, match="comparison: exists already"):  # written by another command since
        write_study(out, study, rows[:1])
    assert len(read_jsonl(out / "results.jsonl")) == 8
    write_study(out, study, rows[:1], overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["results.csv", "results.jsonl", "summary.json"]
    assert [path.name for path in out.parent.iterdir()] == ["comparison"]


def test_only_results_are_replaced(tmp_path):
    out = tmp_path / "results"
    check_out(out, overwrite=False)
    out.mkdir()
    check_out(out, overwrite=False)
    write_study(out, build_study([measured("run", everybody())], StudyRequest(bank=bank())), [])
    with pytest.raises(UserError, match="already holds something; take another --out, or --overwrite"):
        check_out(out, overwrite=False)
    check_out(out, overwrite=True)
    # a run's folder has a summary too, of another kind
    (out / "summary.json").write_text(json.dumps({"steps": 400}))
    with pytest.raises(UserError, match="does not look like results"):
        check_out(out, overwrite=True)
    with pytest.raises(UserError, match=r"summary.json: field 'schema' is missing"):
        read_study(out)
    with pytest.raises(UserError, match="is a file"):
        check_out(out / "summary.json", overwrite=True)
