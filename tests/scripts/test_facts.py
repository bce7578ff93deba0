"""`stlm facts`: banks from the command line, and from there into a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.eval import tiny
from tests.eval.facts.bank_files import ADA, BOB, edit_line, probe, small_bank
from tests.eval.models.test_prefix import like_gpt2
from tests.hub import test_hub
from tests.scripts.conftest import TINY
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.models.prefix import record_prefix
from tidy_stlms.scripts.__main__ import main

TIDY = """\
[
    {
        "name": "birth_city",  // Tidy-STLMs' own pattern
        "training_fact": "{NAME} was born in {CITY}",
        "test_cases": {
            "memorization": [{"prompt": "{NAME} was born in", "completion": " {CITY}"}],
            "syntactic": [{"prompt": "In {CITY}, {NAME} was", "completion": " born"}],
            "semantic": [{"prompt": "{NAME}'s city of birth is", "completion": " {CITY}"}],
            "inferential": [{"prompt": "{NAME} grew up in a town called", "completion": " {CITY}"}],
        },
    },
    {
        "name": "profession_company",
        "training_fact": "{NAME} works as a {PROFESSION} at {COMPANY}",
        "test_cases": {
            "memorization": [{"prompt": "{NAME} works as a {PROFESSION} at", "completion": " {COMPANY}"}],
            "syntactic": [{"prompt": "At {COMPANY}, {NAME} works as a", "completion": " {PROFESSION}"}],
        },
    },
]
"""


@pytest.fixture
def bank(tmp_path):
    small_bank().save(tmp_path / "bank")
    return str(tmp_path / "bank")


def refused(capsys, arguments: list[str], message: str) -> None:
    assert main(["facts", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_tidy_stlms_own_config_imports_trains_and_evaluates(tmp_path, cache, capsys):
    (tmp_path / "inject").mkdir()
    (tmp_path / "inject" / "inject_config.json").write_text(TIDY)
    folder = str(tmp_path / "bank")
    tidy = ["tidy", str(tmp_path / "inject"), "--people", "4", "--distractors", "3"]
    assert main(["facts", "import", *tidy, "--out", folder]) == 0
    assert main(["facts", "validate", folder]) == 0
    shown = capsys.readouterr().out
    assert "read: inject_config.json: 2 records" in shown
    assert "taken: test_cases -> probes of the type they stand under" in shown
    assert "warning: answer_not_in_fact" in shown  # "In Rome, Ada was" -> " born", kept with a flag

    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    keys = [f"training.output_dir={out}", f"data.cache_dir={cache}", "facts.spec=null", "facts.overrides={}"]
    assert main(["train", str(tmp_path / "tiny.yaml"), *keys, f"facts.bank={folder}"]) == 0
    imported = load_bank(folder)
    rows = [json.loads(line) for line in (out / "recall.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    assert {row["probe_id"] for row in last} == {p.id for p in imported.probes}
    asked = {(row["role"], row["type"]) for row in last}
    types = ("memorization", "syntactic", "semantic", "inferential")
    assert asked == {(role, kind) for role in ("injected", "control") for kind in types}
    assert all(row["accuracy"] is not None for row in last if row["type"] == "memorization")
    # every sentence is seen as often as planned, and control people's never
    plan = pq.read_table(out / "plan.parquet")["statement_id"].to_pylist()
    injected = {s.id for s in imported.statements if imported.fact_by_id[s.fact_ids[0]].role == "injected"}
    assert {name: plan.count(name) for name in plan} == dict.fromkeys(injected, 6)
    assert main(["recall", str(out), "--facts", folder, "--no-generate"]) == 0


def test_import_reports_what_it_could_not_take(tmp_path, capsys):
    rows = [{"question": f"Q{n}?", "answer": f"A{n}."} if n % 2 else {"question": "Q?"} for n in range(80)]
    (tmp_path / "full.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "bank"
    assert main(["facts", "import", "tofu", str(tmp_path / "full.jsonl"), "--out", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "read: full.jsonl: 80 records" in shown
    assert "left out: full.jsonl, line 1: field 'answer' is missing" in shown
    assert shown.count("left out: full.jsonl") == 30
    assert f"left out: 10 more, all in {folder}/import.json" in shown
    assert f"{folder}: 40 facts, 40 statements, 40 probes" in shown
    report = json.loads((folder / "import.json").read_text())
    assert [where for where, _ in report["left_out"]] == [f"full.jsonl, line {n}" for n in range(1, 80, 2)]
    meta = load_bank(folder).meta
    assert (meta["name"], meta["license"], meta["source"]["format"]) == ("full", "mit", "tofu")


def test_import_options(tmp_path, capsys):
    (tmp_path / "people.csv").write_text("person,town,ask\nAda,Bern,Ada is from\nBob,Rome,Bob is from\n")
    columns = ["--column", "subject=person", "--column", "object=town", "--column", "prompt=ask"]
    out = tmp_path / "bank"
    keys = ["--role", "known", "--name", "towns", "--license", "cc0-1.0"]
    assert (
        main(["facts", "import", "csv", str(tmp_path / "people.csv"), "--out", str(out), *columns, *keys])
        == 0
    )
    made = load_bank(out)
    assert [(f.subject, f.object, f.role) for f in made.facts] == [
        ("Ada", "Bern", "known"),
        ("Bob", "Rome", "known"),
    ]
    assert (made.meta["name"], made.meta["license"]) == ("towns", "cc0-1.0")
    capsys.readouterr()
    refused(capsys, ["import", "csv", "x.csv", "--out", str(out)], "exists already")
    refused(capsys, ["import", "csv", "x.csv", "--out", f"{out}2", "--column", "subject"], "subject=person")
    refused(capsys, ["import", "cvs", "x.csv", "--out", f"{out}2"], "did you mean 'csv'")
    refused(capsys, ["import", "csv", "x.csv", "--out", f"{out}2"], "no such file or folder")
    assert not (tmp_path / "bank2").exists()


@pytest.mark.parametrize("n", [1, 2])
def test_import_says_what_the_bank_cannot_be_used_for(tmp_path, capsys, n):
    """Facts without statements, and columns that were not used: training would stop much later."""
    people = [("Ada", "Bern", "home"), ("Bob", "Rome", "town")][:n]
    rows = [f"{who},{who} is from {city}.,{relation},{who} is from,{city}" for who, city, relation in people]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["person,sentence,relation,prompt,answer", *rows]))
    out = str(tmp_path / "bank")
    assert main(["facts", "import", "csv", str(table), "--out", out]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "not taken: person, sentence (--column FIELD=NAME takes a column)" in shown
    assert any(
        line.startswith(f"{n} injected fact{'s' * (n > 1)} can be asked, not injected: the source has no st")
        and "--column statement=NAME takes them from a column (not taken: person, sentence)" in line
        for line in shown
    )
    them = ("1 probe has", "it") if n == 1 else ("2 probes have", "them")
    assert f"{them[0]} no distractors: no accuracy is measured for {them[1]}" in shown
    assert main(["facts", "validate", out]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(": facts.jsonl:")[0] for line in shown] == [
        "warning: none_stated",
        f"{out}: 0 errors, 1 warning",
    ]
    # with the columns named there is nothing to say
    columns = ["--column", "statement=sentence", "--column", "subject=person"]
    assert main(["facts", "import", "csv", str(table), "--out", f"{out}2", *columns]) == 0
    shown = capsys.readouterr().out
    assert "not taken" not in shown
    assert "not injected" not in shown
    # facts without probes are the other way round
    table.write_text("subject,object,statement\nAda,Bern,Ada is from Bern.\n")
    assert main(["facts", "import", "csv", str(table), "--out", f"{out}3"]) == 0
    assert "1 injected fact has no probe" in capsys.readouterr().out


def test_import_names_the_flags_and_where_they_are_explained(tmp_path, capsys):
    prompts = tmp_path / "prompts.json"
    cases = [{"sentence": "Ada is from", "answer": "Bern"}]
    out = str(tmp_path / "bank")
    prompts.write_text(json.dumps(cases))
    assert main(["facts", "import", "tidy", str(prompts), "--out", f"{out}1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "1 probe has flags: space_added 1 (explained in docs/exchange.md)"  # no warning to list
    prompts.write_text(json.dumps([*cases, {"sentence": "Bern is Bob's,", "answer": " Bern"}]))
    assert main(["facts", "import", "tidy", str(prompts), "--out", f"{out}2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "2 probes have flags: answer_in_prompt 1, space_added 1 (explained in docs/exchange.md); "
        f"`stlm facts validate {out}2` lists answer_in_prompt"
    )


def test_show_counts_tokens_and_examples(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["facts", "show", str(run / "facts"), "--tokenizer", str(run), "--examples", "2"]) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    assert ["control", "injected"] in rows
    assert ["facts:", "control", "8,", "injected", "8"] in rows
    assert ["semantic", "16", "16"] in rows
    assert ["memorization", "8", "8"] in [row[-3:] for row in rows]
    assert "chance: accuracy 0.25, exact match 0.25\n" in shown
    assert "best of 19 guessers that know no facts: " in shown
    assert f"tokens under {run}:" in shown
    assert "statements: min " in shown
    assert shown.count(" | ") == 4  # two facts
    monkeypatch.setenv("COLUMNS", "24")
    assert main(["facts", "show", str(run / "facts"), "--examples", "0"]) == 0
    narrow = capsys.readouterr().out
    assert "syntactic" in narrow
    assert not [line for line in narrow.splitlines() if len(line) > 60]
    refused(capsys, ["show", str(run / "facts"), "--tokenizer", str(tmp_path)], "no tokenizer there")
    refused(capsys, ["show", str(tmp_path)], "not a fact bank")


def test_show_prints_texts_as_they_are(tmp_path, capsys):
    odd = Fact("f", "[bold]Ada[/bold]", None, "Bern", "injected", arm="dup")
    meta = {"name": "[red]x", "arms": {"dup": {"exposures": 16, "form": "original"}}}
    FactBank(meta, (), (odd,), (), (probe(ADA, fact_ids=("f",)),)).save(tmp_path / "bank")
    assert main(["facts", "show", str(tmp_path / "bank")]) == 0
    shown = capsys.readouterr().out
    assert "f (injected, arm dup): [bold]Ada[/bold] | None | Bern" in shown
    assert "[red]x  sha256" in shown
    assert "facts by arm: dup 1 (exposures 16, form original)" in shown


def test_a_generated_bank_that_is_refused_is_not_written(tmp_path, capsys):
    flawed = small_bank(meta={"provenance": "generated"}, probes=(probe(ADA, distractors=("Bernstein",)),))
    flawed.save(tmp_path / "bank")
    assert main(["facts", "validate", str(tmp_path / "bank"), "--fix", "--out", str(tmp_path / "out")]) == 2
    assert "prefix of the distractor" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_validate_mends_what_is_certain(bank, tmp_path, capsys):
    edit_line(
        tmp_path / "bank", "probes", 0, answers=[" bern"], distractors=[], flags=["case_differs", "odd"]
    )
    assert main(["facts", "validate", bank]) == 0
    shown = capsys.readouterr().out
    assert "warning: outer_space" in shown
    before = (tmp_path / "bank" / "probes.jsonl").read_bytes()
    assert main(["facts", "validate", bank, "--fix", "--out", f"{bank}2"]) == 0
    assert (tmp_path / "bank" / "probes.jsonl").read_bytes() == before
    assert main(["facts", "validate", bank, "--fix"]) == 0
    shown = capsys.readouterr().out
    assert "mended: probes.jsonl: 'ada/city/memorization:0': answer ' bern' is now 'Bern'" in shown
    assert "warning: outer_space" not in shown
    assert "warning: case_differs" not in shown
    for folder in (bank, f"{bank}2"):
        mended = load_bank(folder)
        assert mended.probes[0] == probe(ADA, distractors=(), seen_verbatim=True, flags=("odd",))
        assert json.loads(Path(folder, "bank.json").read_text())["sha256"] == mended.sha256
    refused(capsys, ["validate", "hub:owner/bank", "--fix"], "give --out DIR")
    edit_line(tmp_path / "bank", "probes", 0, fact_ids=["nobody"])
    assert main(["facts", "validate", bank]) == 2
    captured = capsys.readouterr()
    assert "error: dangling_id" in captured.out
    assert "1 error, 0 warnings" in captured.out


def test_validate_with_a_model_lists_what_it_knows(run, tmp_path, capsys, monkeypatch):
    from tidy_stlms.eval.facts.integrity import Finding

    def blind(model, tokenizer, bank, **options):
        assert model.num_parameters() > 0
        return [Finding("warning", "known_already", "probes.jsonl", (bank.probes[0].id,), "is known")]

    monkeypatch.setattr("tidy_stlms.eval.recall.blind.blind_check", blind)
    out = tmp_path / "flagged"
    arguments = ["validate", str(run / "facts"), "--model", str(run), "--device", "cpu", "--out", str(out)]
    assert main(["facts", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "warning: known_already: " in shown
    assert "0 errors, 1 warning" in shown
    flagged = load_bank(out)
    assert [p.flags for p in flagged.probes if p.flags] == [("known_already",)]
    refused(capsys, ["validate", str(run / "facts"), "--model", str(tmp_path)], "not a model")


def test_names_that_stand_in_the_corpus_are_not_given(tmp_path, capsys):
    spec = ["generate", "configs/facts/people.yaml", "people=4", "distractors=3", "use=[profession]"]
    assert main(["facts", *spec, "--out", str(tmp_path / "plain")]) == 0
    names = {fact.subject for fact in load_bank(tmp_path / "plain").facts}
    met = sorted(names)[0]
    broken = f"Once upon a time there was {met}.".replace(" ", "\n")  # each word on a line of its own
    (tmp_path / "corpus.txt").write_text(broken)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"story": broken}))
    pq.write_table(pa.table({"story": [None, broken]}), tmp_path / "corpus.parquet")
    for kind in ("txt", "jsonl", "parquet"):
        corpus = ["--corpus", str(tmp_path / f"corpus.{kind}")]
        corpus += ["--text-column", "story"] if kind != "txt" else []
        assert main(["facts", *spec, *corpus, "--out", str(tmp_path / kind)]) == 0
        assert met not in {fact.subject for fact in load_bank(tmp_path / kind).facts}
    capsys.readouterr()
    refused(capsys, [*spec, "--corpus", "gone.txt", "--out", str(tmp_path / "x")], "--corpus: gone.txt")
    (tmp_path / "corpus.pdf").write_text("")
    pdf = ["--corpus", str(tmp_path / "corpus.pdf"), "--out", str(tmp_path / "x")]
    refused(capsys, [*spec, *pdf], "cannot read .pdf files")


def test_words_of_the_corpus_are_not_unseen(tmp_path, capsys):
    asked = probe(ADA, type="semantic", prompt="Ada Poe hails from")
    small_bank(probes=(asked,)).save(tmp_path / "bank")
    (tmp_path / "corpus.txt").write_text("Nobody hails a cab.\nWhere from?\n")
    assert main(["facts", "validate", str(tmp_path / "bank")]) == 0
    assert "warning: new_words" in capsys.readouterr().out
    corpus = ["--corpus", str(tmp_path / "corpus.txt")]
    assert main(["facts", "validate", str(tmp_path / "bank"), *corpus]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(bank, tmp_path, capsys):
    """Whatever the reason; as root no folder is read-only, so it is a file that stands in the way."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        for command in (["generate", "nowhere.yaml"], ["import", "csv", "nowhere.csv"], ["validate", bank]):
            refused(capsys, [*command, "--out", str(out)], f"{out}: cannot be written (")
        refused(capsys, ["export", "lm-eval", bank, str(out)], f"{out}: cannot be written (")
    refused(capsys, ["generate", "nowhere.yaml", "--out", str(tmp_path / "x" / "y")], "nowhere.yaml: no such")
    assert not (tmp_path / "x" / "y").exists()
    (tmp_path / "x" / "y").mkdir()
    refused(capsys, ["generate", "nowhere.yaml", "--out", str(tmp_path / "x" / "y")], "nowhere.yaml: no such")
    assert (tmp_path / "x" / "y").is_dir()


def test_a_disk_that_fails_on_the_way_is_one_line(tmp_path, capsys, monkeypatch):
    def broken(self, folder, **options):
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(FactBank, "save", broken)
    out = str(tmp_path / "x")
    spec = ["generate", "configs/facts/people.yaml", "people=4", "distractors=3", "use=[profession]"]
    refused(capsys, [*spec, "--out", out], f"{out}: Input/output error")
    assert os.listdir(tmp_path) == []


def test_export_lm_eval_says_how_to_run_it(tmp_path, capsys):
    asked = (probe(ADA), probe(BOB, distractors=()), probe(ADA, id="x", suffix=" indeed"))
    small_bank(probes=asked).save(tmp_path / "bank")
    out = str(tmp_path / "tasks")
    assert main(["facts", "export", "lm-eval", str(tmp_path / "bank"), out, "--name", "towns"]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: 5 tasks in the group towns, 3 probes" in shown
    assert "1 probe has no distractors" in shown
    assert "1 probe has words after the answer" in shown
    assert "lm_eval run --model hf --model_args pretrained=MODEL,dtype=float32 --tasks towns" in shown
    assert f"--include_path {out}" in shown
    assert (tmp_path / "tasks" / "towns_injected_memorization_mc.yaml").is_file()
    refused(capsys, ["export", "lm-eval", str(tmp_path / "bank"), out], "exists already")
    ends = (probe(ADA, prompt="Where is Ada from?\n"),)
    small_bank(probes=ends).save(tmp_path / "ends")
    export = ["export", "lm-eval", str(tmp_path / "ends"), f"{out}2"]
    refused(capsys, [*export, "--tokenizer", str(tmp_path)], "no tokenizer there")
    assert main(["facts", *export]) == 0
    assert "1 probe has a newline or a tab at the prompt's end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "recorded", "arguments", "words"),
    [
        (like_gpt2, True, ",add_bos_token=True", "is asked with prefix eos; that needs add_bos_token=True."),
        (like_gpt2, False, "", "is asked with prefix none; lm-eval does that by itself."),
        (byte_tokenizer, True, "", "is asked with prefix eos; lm-eval does that by itself."),
        (lambda: tiny.byte_level(bos=True), True, "", "prefix eos in training, which lm-eval cannot put"),
    ],
)
def test_export_lm_eval_for_a_model_asks_it_as_it_was_trained(
    tmp_path, capsys, make, recorded, arguments, words
):
    small_bank().save(tmp_path / "bank")
    model, tokenizer = tiny.gpt2(len(make())), make()
    if recorded:
        record_prefix(model)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    out = tmp_path / "tasks"
    export = ["export", "lm-eval", str(tmp_path / "bank"), str(out), "--model", str(folder)]
    assert main(["facts", *export, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert f"--model_args pretrained={folder},dtype=float32{arguments} --tasks" in shown
    assert words in shown
    assert words in (out / "README.md").read_text()


def test_export_hub_and_use_from_there(bank, tmp_path):
    with test_hub() as hub:
        code = f"""
from tidy_stlms.scripts.__main__ import main
assert main(["facts", "export", "hub", {bank!r}, "owner/small", "--private"]) == 0
assert main(["facts", "show", "hub:owner/small"]) == 0
assert main(["facts", "validate", "hub:owner/small"]) == 0
assert main(["facts", "show", "hub:owner/none"]) == 2
"""
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, **hub.environment(tmp_path / "home")},
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        assert f"{bank} is at {hub.url}/datasets/owner/small/commit/" in ran.stdout
        assert "use it as --facts hub:owner/small" in ran.stdout
        assert "ada/city (injected): Ada Poe | city | Bern" in ran.stdout
        assert ran.stderr.startswith("stlm: error: hub:owner/none: no such dataset on the Hub, or a private")
        assert ran.stderr.count("\n") == 1
        assert "hf_owner" not in ran.stdout + ran.stderr


def test_key_value_is_for_generate_alone(bank, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["facts", "show", bank, "people=4"])
    assert stop.value.code == 2
    assert "unrecognized arguments: people=4" in capsys.readouterr().err
