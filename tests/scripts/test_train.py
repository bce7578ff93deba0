"""`stlm train` as its users meet it: a run folder that is all there, and mistakes in one line."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tidy_stlms.scripts.train
from tests.scripts.conftest import fails
from tidy_stlms.configs.load import load_config
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.trainers.run import prepare


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_folder_holds_all_that_is_promised(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "environment.json", "plan.parquet", "summary.json", "report.md", "facts"}
    assert names >= {"metrics.jsonl", "recall.jsonl", "generations.jsonl", "figures", "README.md"}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names >= {"modeling_stlm.py", "configuration_stlm.py"}
    assert json.loads((run / "config.json").read_text())["use_cache"] is True
    for figure in ("loss", "recall", "rank_and_bits"):
        assert (run / f"figures/{figure}.png").stat().st_size > 5_000
        assert f"figures/{figure}.png" in (run / "report.md").read_text()


def test_summary_has_the_shape_that_others_read(run):
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary) == [
        "steps", "tokens", "train_loss", "eval_loss", "eval_bits_per_byte", "tokens_per_second",
        "parameters", "recall",
    ]  # fmt: skip
    assert (summary["steps"], summary["tokens"]) == (12, 12 * 4 * 64)
    assert summary["parameters"] == AutoModelForCausalLM.from_pretrained(run).num_parameters()
    for when in ("before", "after"):
        assert set(summary["recall"][when]) == {"injected", "control"}
        figure = summary["recall"][when]["injected"]["memorization"]["accuracy"]
        assert set(figure) == {"mean", "low", "high", "n", "n_facts"}
        assert (figure["n"], figure["n_facts"]) == (8, 8)
        assert figure["low"] <= figure["mean"] <= figure["high"]
    # the figures are those of the log
    last = [r for r in rows(run / "recall.jsonl") if r["step"] == 12 and r["role"] == "control"]
    ranks = [r["candidate_rank"] for r in last if r["type"] == "semantic"]
    reported = summary["recall"]["after"]["control"]["semantic"]["candidate_rank"]
    assert reported["mean"] == pytest.approx(np.mean(ranks))


def test_logs_have_a_line_for_every_measurement(run):
    steps = [r["step"] for r in rows(run / "metrics.jsonl") if "loss" in r]
    assert steps == [1, 5, 10, 12]
    assert {r["step"] for r in rows(run / "recall.jsonl")} == {0, 4, 8, 12}
    assert {r["step"] for r in rows(run / "metrics.jsonl") if "eval_perplexity" in r} == {6, 12}
    watched = rows(run / "generations.jsonl")
    assert [r["step"] for r in watched] == [0, 4, 8, 12]
    assert len(watched[0]["top_tokens"]) == 4
    assert watched[0]["answer_logprob"] < 0
    assert [len(step) for step in watched[0]["top_tokens"]] == [5] * 4


def test_others_may_read_what_is_not_kept_from_them(run):
    umask = os.umask(0)
    os.umask(umask)
    for file in [*run.glob("*"), *run.glob("checkpoint-12/*.safetensors")]:
        if file.is_file():
            assert file.stat().st_mode & 0o777 == 0o666 & ~umask, file


def test_loss_at_a_step_of_recall_is_logged_too(tiny, tmp_path):
    assert (
        main(
            [
                "train",
                *tiny("run", "training.logging_steps=4", "training.max_steps=4", "injection.exposures=1"),
            ]
        )
        == 0
    )
    assert [r["step"] for r in rows(tmp_path / "run/metrics.jsonl") if "loss" in r] == [1, 4]


def test_a_run_without_facts_is_ordinary_training(tiny, tmp_path):
    assert main(["train", *tiny("plain", "facts.spec=null", "training.max_steps=2")]) == 0
    summary = json.loads((tmp_path / "plain/summary.json").read_text())
    assert summary["recall"] == {"before": {}, "after": {}}
    assert not (tmp_path / "plain/plan.parquet").exists()


def test_the_twin_differs_by_the_plan_only(tiny):
    def batches(*overrides):
        file, *keys = tiny("twin", *overrides)
        prepared = prepare(load_config([file], keys)[0])
        return prepared, [prepared.collator([prepared.stream[p]])["input_ids"] for p in range(48)]

    with_facts, injected = batches()
    twin, plain = batches("injection.enabled=false")
    changed = {p for p in range(48) if not torch.equal(injected[p], plain[p])}
    assert changed == set(with_facts.plan.by_position)
    geometry = asdict(with_facts.geometry) | {"injection": None}
    assert asdict(twin.geometry) == geometry
    assert torch.equal(with_facts.model.lm_head.weight, twin.model.lm_head.weight)


@pytest.mark.parametrize("placement", ["splice", "row"])
@pytest.mark.parametrize("strategy", ["uniform", "random", "start", "end"])
def test_exposures_decoded_from_real_batches_equal_the_plan(tiny, strategy, placement):
    keys = [f"injection.strategy={strategy}", f"injection.placement={placement}", "injection.window=0.9"]
    file, *keys = tiny("run", *keys, "training.max_steps=20", "injection.span=pass")
    run = prepare(load_config([file], keys)[0])
    loader = torch.utils.data.DataLoader(run.stream, batch_size=8, collate_fn=run.collator)
    end = run.tokenizer.eos_token
    seen: dict[str, int] = {}
    for batch in loader:
        for text in run.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=False):
            for document in text.split(end)[1:-1]:  # what stands between two end-of-text tokens
                seen[document] = seen.get(document, 0) + 1
    statements = {s.id: s for s in run.bank.statements}
    planned: dict[str, int] = {}
    for statement_id in run.plan.statement_ids:
        planned[statements[statement_id].text] = planned.get(statements[statement_id].text, 0) + 1
    assert {text: seen.get(text, 0) for text in planned} == planned
    by_fact = {f.id: sum(seen.get(s.text, 0) for s in run.bank.statements_of(f.id)) for f in run.bank.facts}
    assert by_fact == {f.id: 6 if f.role == "injected" else 0 for f in run.bank.facts}


def test_plan_on_disk_is_readable_and_complete(run):
    table = pq.read_table(run / "plan.parquet").to_pylist()
    bank = load_bank(run / "facts")
    texts = {s.id: s.fact_ids for s in bank.statements}
    assert len(table) == 6 * len(bank.injected_facts())
    for row in table:
        assert row["step"] == row["position"] // 4
        assert tuple(row["fact_ids"]) == texts[row["statement_id"]]
    assert {bank.fact_by_id[r["fact_ids"][0]].role for r in table} == {"injected"}


CLEAN = """
import sys
sys.path = [p for p in sys.path if "editable" not in p]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
for name in ("modeling_stlm", "tidy_stlms"):
    sys.modules[name] = None  # importing it raises ImportError
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
folder, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
base = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
ids = AutoTokenizer.from_pretrained(folder)("The old farmer", return_tensors="pt")["input_ids"]
with torch.no_grad():
    torch.save([ids, model(ids).logits, base(ids).last_hidden_state], out)
"""


def test_the_run_folder_opens_in_a_process_without_the_project(run, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CLEAN, str(run), str(tmp_path / "out.pt")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    ids, logits, hidden = torch.load(tmp_path / "out.pt")
    model = AutoModelForCausalLM.from_pretrained(run).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)
        assert torch.equal(model.model(ids).last_hidden_state, hidden)
    assert AutoTokenizer.from_pretrained(run)("The old farmer")["input_ids"] == ids[0].tolist()


def test_lm_eval_evaluates_the_run_folder(run, tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    bank = load_bank(run / "facts")
    probes = [p for p in bank.probes if p.type == "memorization"][:8]
    lines = [
        {"prompt": p.prompt, "choices": [f" {c}" for c in (*p.answers, *p.distractors)], "gold": 0}
        for p in probes
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "facts.yaml").write_text(f"""
task: stlm_facts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "data.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
""")
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={run},dtype=float32,trust_remote_code=True",
        tasks=["stlm_facts"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=8,
        bootstrap_iters=0,
    )
    last = {r["probe_id"]: r for r in rows(run / "recall.jsonl") if r["step"] == 12}
    expected = np.mean([last[p.id]["accuracy"] for p in probes])
    assert results["results"]["stlm_facts"]["acc,none"] == pytest.approx(expected)


def test_mistakes_end_in_one_line_and_exit_2(tiny, run, tmp_path, capsys):
    def config(*overrides, name="new"):
        return ["train", *tiny(name, *overrides)]

    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return ["data.name=files", f"data.train_files={tmp_path / name}"]

    fails(capsys, config("training.learnign_rate=1"), "did you mean training.learning_rate?")
    fails(capsys, config("training.max_steps=many"), "training.max_steps", "whole number")
    fails(
        capsys,
        config("model.config.hiden_size=8"),
        "model.config.hiden_size",
        "did you mean model.config.hidden_size?",
    )
    fails(capsys, config("model.config.hidden_size=33"), "model.config", "hidden_size")
    fails(capsys, config("model.config.hidden_size=wide"), "model.config", "hidden_size")
    fails(capsys, ["train", "nowhere.yaml"], "nowhere.yaml: no such file")
    fails(capsys, ["train"], "give a config file")
    fails(capsys, config("data.name=files", "data.train_files=nowhere.txt"), "nowhere.txt: no such file")
    fails(capsys, config(*file("empty.txt", b"\n")), "empty.txt: holds no text")
    fails(capsys, config(*file("c.jsonl", b'{"body": "a"}\n')), "c.jsonl", "'text'", "data.text_column")
    fails(capsys, config(*file("latin.txt", b"caf\xe9")), "latin.txt, line 1: not UTF-8")
    fails(capsys, config("data.context_window=12"), "do not fit into a row of 12")
    fails(capsys, config("data.context_window=65"), "data.context_window=65", "at most 64")
    fails(
        capsys,
        config("injection.exposures=1000"),
        "injection.exposures: 8000 exposures of 8 facts do not fit",
    )
    fails(capsys, config("model.name_or_path=nowhere/model"), "model: give name_or_path")
    other = ["model.name_or_path=nowhere/model", "model.config=null"]
    fails(capsys, config(*other), "tokenizer: the model at model.name_or_path has its own")
    fails(capsys, config(*other, "tokenizer.train=null"), "nowhere/model: not a")
    fails(
        capsys,
        config("tokenizer.train=null", "tokenizer.name_or_path=./nowhere"),
        "tokenizer.name_or_path=./nowhere",
    )
    fails(capsys, config("facts.spec=null", f"facts.bank={tmp_path}"), "not a fact bank")
    fails(capsys, config("facts.overrides.peple=3"), "peple", "people")
    fails(capsys, config("tokenizer.train.vocab_size=10"), "tokenizer.train.vocab_size")
    assert not (tmp_path / "new").exists()  # nothing was begun


def test_a_generated_bank_whose_answers_stand_in_prompts_is_refused(tiny, tmp_path, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text("""
name: leaking
people: 4
distractors: 3
paraphrases: 1
new_words: flag
names: {locale: en_US, pattern: "[A-Z][a-z]+"}
relations:
  colour:
    label: colour
    answers: {words: [red, blue, green, black]}
    pool_size: 4
    train: ["Whatever red and blue and green and black are, {subject} likes {object}."]
    probes: {}
""")
    fails(capsys, ["train", *tiny("new", f"facts.spec={spec}", "facts.overrides.use=null")], "spec.yaml")
    fails(capsys, ["facts", "generate", str(spec), "--out", str(tmp_path / "bank")], "stands in the prompt")
    assert not (tmp_path / "bank").exists()


def test_an_existing_folder_is_refused_and_replaced_only_when_asked(tiny, tmp_path, capsys):
    short = ("training.max_steps=2", "evaluation.recall_steps=0", "injection.exposures=1")
    assert main(["train", *tiny("run", *short)]) == 0
    before = (tmp_path / "run/summary.json").read_bytes()
    fails(
        capsys,
        ["train", *tiny("run", *short)],
        "training.output_dir",
        "--overwrite",
        "resume_from_checkpoint",
    )
    fails(capsys, ["train", *tiny("run", *short, "data.name=files"), "--overwrite"], "data.train_files")
    assert (tmp_path / "run/summary.json").read_bytes() == before  # a mistake costs nothing
    assert main(["train", *tiny("run", *short), "--overwrite"]) == 0
    both = ["train", *tiny("run", *short, "training.resume_from_checkpoint=true"), "--overwrite"]
    fails(capsys, both, "contradict each other")
    fails(capsys, ["train", *tiny("run", *short, "training.report_to=wandbb"), "--overwrite"], "wandbb")
    fails(capsys, ["train", *tiny("run", *short, "training.lr_scheduler_kwargs.foo=1"), "--overwrite"], "foo")
    assert (tmp_path / "run/summary.json").exists()
    fails(capsys, ["train", *tiny("run/summary.json/x", *short)], "is a file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    fails(capsys, ["train", *tiny("mine", *short), "--overwrite"], "holds files that are not of a run")
    assert (tmp_path / "mine/thesis.tex").exists()


def test_keys_are_listed_with_their_meaning(capsys):
    assert tidy_stlms.scripts.train.main(["--keys", "injection"]) == 0
    assert "injection.exposures: int | None = None" in capsys.readouterr().out
    fails(capsys, ["train", "--keys", "nothing"], "no section 'nothing'")


def test_a_run_says_what_it_read(tiny, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(
        "\n\n".join(f"the old farmer has {n} cows and a red barn" for n in range(300))
    )
    files = ["data.name=files", f"data.train_files={tmp_path / 'a.txt'}", "data.max_documents=null"]
    files.append("data.validation_fraction=0.1")
    plain = ["facts.spec=null", "training.max_steps=2", "evaluation.recall_steps=0"]
    assert main(["train", *tiny("new", *files, *plain)]) == 0
    shown = capsys.readouterr().err
    assert f"data: {tmp_path / 'a.txt'}: 300 documents; 270 to train: " in shown
    assert "; 30 held out" in shown
    report = (tmp_path / "new" / "report.md").read_text()
    assert "`files` (270 documents, and 30 held out)" in report
    assert "plan.parquet" not in report
    assert "recall.jsonl" not in report


def test_what_is_wrong_on_the_command_line_is_one_line(capsys):
    for arguments, message in (
        (["trian"], "unknown command 'trian', did you mean 'train'?; see `stlm --help`"),
        (["train", "--max_steps", "20"], "unrecognized arguments: --max_steps; see `stlm train --help`"),
        (["ask", "m", "--steps", "0"], "argument --steps: "),
        (["train", "configs/quickstart.yaml", "training.max_steps"], "write training.max_steps=VALUE"),
    ):
        with contextlib.suppress(SystemExit):
            assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert message in shown, shown
        assert shown.count("\n") == 1
