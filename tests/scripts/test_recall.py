"""`stlm recall` and `stlm facts` on a tiny run."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from msgspec.structs import replace
from rich.console import Console

from tests.eval.facts.bank_files import small_bank
from tests.eval.report.study_example import example_study, model_info, study_of
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, read_jsonl, write_json, write_jsonl
from tidy_stlms.eval.recall.results import Estimate
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.scripts.__main__ import main
from tidy_stlms.scripts.study_tables import print_study
from tidy_stlms.scripts.tables import print_recall_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What was measured in one test must not serve another."""
    monkeypatch.setenv("STLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recall(run):
    """`recall("MODEL", ..., "--option")`: the exit code of `stlm recall` on the run's own bank."""

    def call(*arguments):
        return main(["recall", *map(str, arguments), "--facts", str(run / "facts"), "--device", "cpu"])

    return call


def test_recall_of_a_run_folder_repeats_the_runs_own_figures(run, recall, tmp_path, capsys):
    out = tmp_path / "results"
    assert recall(run, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "memorization" in shown
    assert "(chance: accuracy 0.25, exact match 0.25)" in " ".join(shown.split())
    assert f"{run}: " in shown
    assert ", cpu, float32, sdpa, prefix eos" in shown
    recorded = read_json(run / "summary.json")["recall"]["after"]
    measured = read_json(out / "summary.json")["recall"][str(run)]
    for role, kinds in recorded.items():
        for kind, metrics in kinds.items():
            for metric, figure in metrics.items():
                assert measured[role][kind][metric]["mean"] == pytest.approx(figure["mean"], abs=1e-4)
    [info] = read_json(out / "summary.json")["models"]
    assert (info["prefix"], info["prefix_as_trained"], info["attention"]) == ("eos", True, "sdpa")
    assert max(info["self_check"].values()) < 1e-5
    lines = read_jsonl(out / "results.jsonl")
    assert {line["model"] for line in lines} == {str(run)}
    assert {line["prefix"] for line in (*lines, *read_jsonl(run / "recall.jsonl"))} == {"eos"}
    wanted = (
        "model probe_id fact_ids role type relation prompt answer n_tokens logprob bits_per_byte accuracy"
    )
    for name in (*wanted.split(), "candidate_rank", "exact_match", "perplexity", "token_rank", "top_tokens"):
        assert name in lines[0]
    assert {"results.csv", "report.md", "report.html"} <= {path.name for path in out.iterdir()}


def test_another_prefix_than_in_training_gives_other_figures_and_a_warning(
    run, recall, tmp_path, capsys, caplog
):
    assert read_json(run / "config.json")["document_prefix"] == "eos"
    logprobs = {}
    for prefix in ("eos", "none"):
        assert recall(run, "--prefix", prefix, "--no-generate", "--out", tmp_path / prefix) == 0
        warning = f"{run}: is asked with prefix {prefix}, but its training put eos before each document"
        assert (warning in caplog.text) is (prefix == "none")
        report = (tmp_path / prefix / "report.md").read_text()
        assert ("none (not as in training)" in report) is (prefix == "none")
        assert f"torch {torch.__version__.partition('+')[0]}" in report
        logprobs[prefix] = [line["logprob"] for line in read_jsonl(tmp_path / prefix / "results.jsonl")]
    assert logprobs["eos"] != pytest.approx(logprobs["none"], abs=1e-3)
    with pytest.raises(SystemExit):
        recall(run, "--prefix", "text")
    assert "invalid choice: 'text'" in capsys.readouterr().err


def test_checkpoints_of_a_run_are_compared(run, recall, tmp_path, capsys):
    out = tmp_path / "results"
    assert recall(f"{run}@all", "--baseline", f"{run}@step=8", "--no-generate", "--out", out) == 0
    shown = capsys.readouterr().out
    labels = [f"{run}@step={step}" for step in (8, 12)]
    study = read_json(out / "summary.json")
    assert [(model["model"], model["step"], model["run"]) for model in study["models"]] == [
        (label, step, str(run)) for label, step in zip(labels, (8, 12), strict=True)
    ]
    assert {entry["a"] for entry in study["comparisons"]} == {labels[0]}
    assert {entry["metric"] for entry in study["comparisons"]} >= {"accuracy", "perplexity", "binding"}
    # six exposures in twelve steps
    seen = {e["model"]: e["exposures"] for e in study["dose_response"] if e["exposures"]}
    assert list(seen) == labels
    assert seen[labels[-1]] == 6
    assert "out@step=12" in shown
    assert "not significantly different from" in shown
    # once more, from what is kept
    assert recall(f"{run}@step=8", "--no-generate") == 0
    assert "(measured before)" in capsys.readouterr().out
    # other results are not overwritten by accident
    assert recall(f"{run}@step=8", "--no-generate", "--out", out) == 2
    assert recall(f"{run}@step=8", "--no-generate", "--out", out, "--overwrite") == 0
    assert len(read_json(out / "summary.json")["models"]) == 1


def test_prompts_and_held_out_text_need_no_facts(run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The old farmer walked to the market.\n\nA dog slept.\n")
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("- {sentence: The old farmer, answer: walked}\n- A dog\n")
    out = tmp_path / "results"
    arguments = ["--prompts", prompts, "--heldout", text, "--steps", 2, "--top-k", 3, "--out", out]
    assert main(["recall", *map(str, (run, f"{run}@step=8", *arguments))]) == 0
    shown = capsys.readouterr().out
    assert "The old farmer ...  [walked]" in shown
    assert "perplexity" in shown
    assert "bits/byte" in shown
    study = read_json(out / "summary.json")
    assert "bank" not in study
    for label in (str(run), f"{run}@step=8"):
        assert study["heldout"][label]["n_documents"] == 2
        first, second = study["prompts"][label]
        assert len(first["top_tokens"]) == 2
        assert len(first["top_tokens"][0]) == 3
        assert second["answer"] is None
    [difference] = study["comparisons"]
    assert (difference["role"], difference["metric"]) == ("heldout", "bits_per_byte")


def test_recall_in_the_style_of_bear_says_so(run, recall, tmp_path, capsys):
    out = tmp_path / "results"
    assert recall(run, "--style", "bear", "--out", out) == 0
    shown = " ".join(capsys.readouterr().out.split())
    said = "Asked in BEAR's style, with the figures of its client lm-pub-quiz"
    assert said in shown
    study = read_json(out / "summary.json")
    assert (study["bank"]["style"], study["bank"]["chance"]) == ("bear", 0.25)
    lines = read_jsonl(out / "results.jsonl")
    assert {(line["style"], line["prefix"], line["exact_match"]) for line in lines} == {("bear", "bos", None)}
    assert said in (out / "report.md").read_text()
    assert said.replace("'", "&#39;") in (out / "report.html").read_text()
    # the cache does not take one style for the other
    assert recall(run, "--no-generate", "--out", tmp_path / "suite") == 0
    assert {line["style"] for line in read_jsonl(tmp_path / "suite" / "results.jsonl")} == {"suite"}
    assert said not in (tmp_path / "suite" / "report.md").read_text()


def test_held_out_text_in_rolling_windows_says_so(run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The old farmer walked to the market. A dog slept. " * 30)
    bits = {}
    for style, said in (("overlap", "documents overlap by half."), ("rolling", "roll as in lm-eval.")):
        out = tmp_path / style
        arguments = ["--heldout", str(text), "--heldout-style", style, "--out", str(out)]
        assert main(["recall", str(run), *arguments]) == 0
        assert said in " ".join(capsys.readouterr().out.split())
        [estimate] = read_json(out / "summary.json")["heldout"].values()
        assert estimate["style"] == style
        bits[style] = estimate["bits_per_byte"]
        for report in ("report.md", "report.html"):
            assert said in (out / report).read_text()
    assert bits["overlap"] != bits["rolling"]


def test_a_model_that_breaks_is_reported_and_the_others_go_on(run, recall, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"torn")
    out = tmp_path / "results"
    assert recall(broken, run, "--no-generate", "--out", out) == 1
    captured = capsys.readouterr()
    assert f"{broken}: cannot be loaded" in captured.err
    assert captured.err.count("\n") == 1
    assert f"Recall of {run}" in captured.out.replace("\n", "")
    study = read_json(out / "summary.json")
    assert study["models"][0]["error"].startswith("cannot be loaded")  # its name stands beside it
    assert list(study["recall"]) == [str(run)]
    # alone it is the user's mistake
    assert recall(broken, "--no-generate") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"stlm: error: {broken}: cannot be loaded")
    assert error.count("\n") == 1
    # nothing can be compared with it
    assert recall(run, f"{run}@step=8", "--baseline", broken, "--no-generate") == 1
    captured = capsys.readouterr()
    assert f"--baseline {broken} has no results; every two models are compared" in captured.err
    assert "not significantly different from" not in captured.out.replace("different from zero", "")


def test_a_model_that_fails_in_one_section_shows_the_others(run, recall, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise UserError("probe p7: not a finite number")

    monkeypatch.setattr("tidy_stlms.eval.recall.harness.evaluate_recall", fail)
    text, out = tmp_path / "text.txt", tmp_path / "results"
    text.write_text("A dog slept.\n")
    assert recall(run, "--heldout", text, "--out", out) == 1
    assert f"stlm: error: {run}: probe p7: not a finite number" in capsys.readouterr().err
    study = read_json(out / "summary.json")
    assert study["heldout"][str(run)]["n_documents"] == 1
    assert "recall" not in study


def test_two_processes_say_what_one_says(run, recall, tmp_path):
    """By torchrun, for `accelerate launch` starts one process where there is no GPU."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert recall(run, "--no-cache", "--out", one) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += [
        "--rdzv-endpoint=localhost:0",
        "-m",
        "tests.scripts.joined_recall",
        str(run),
        "--facts",
        str(run / "facts"),
    ]
    done = subprocess.run(
        [*command, "--no-cache", "--out", str(two)],  # as the README writes it: no device is named
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("joined 2") == 2
    assert done.stdout.count(f"wrote {two}") == 1
    for ours, theirs in zip(*(read_jsonl(out / "results.jsonl") for out in (one, two)), strict=True):
        assert ours["probe_id"] == theirs["probe_id"]
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)
        assert ours["generation"] == theirs["generation"]


def test_recall_mistakes_exit_2_before_any_model_runs(run, tmp_path, capsys, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tidy_stlms.eval.study.lazy_model.load_model", never)
    bank, empty = str(run / "facts"), tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.yaml").write_text("- 12\n")
    small_bank(probes=()).save(tmp_path / "unasked")
    for arguments, expected in (
        ([str(empty), "--facts", bank], "not a model"),
        ([str(run), str(empty), "--facts", bank], "not a model"),
        ([f"{run}@step=5", "--facts", bank], "the steps that were saved: 8, 12"),
        ([str(run), "--facts", str(empty)], "not a fact bank"),
        ([str(run), "--facts", bank, "--out", str(run)], "already holds something"),
        ([str(run), "--facts", bank, "--out", str(run), "--overwrite"], "does not look like results"),
        ([str(run), "--facts", bank, "--out", str(tmp_path / "bad.yaml" / "x")], "cannot be written"),
        ([str(run), "--facts", str(tmp_path / "unasked")], "the bank has no probes"),
        ([str(run), f"{run}/", "--facts", bank, "--baseline", str(run)], "there is no other model"),
        ([str(run), "--facts", bank, "--dtype", "float8"], "float8"),
        ([str(run)], f"nothing is asked; give --facts {run}/facts"),
        ([str(run), "--prompts", str(tmp_path / "bad.yaml")], "12 is no prompt"),
        ([str(run), "--heldout", str(tmp_path / "none.txt")], "no such file"),
        ([str(run), "--facts", bank, "--baseline", str(empty)], "not a model"),
        ([str(run), "--facts", bank, "--baseline", f"{run}@all"], "stands for 2 models"),
        ([str(run), "--facts", bank, "--baseline", str(run)], "there is no other model"),
        ([str(run), "--facts", bank, "--data-dir", str(tmp_path / "none")], "no such folder"),
        ([str(run), "--linear-probes", "colla"], "colla"),
        ([str(run), "--facts", bank, "--style", "bear", "--prefix", "eos"], "which --prefix eos forbids"),
        ([str(run), "--prompts", str(tmp_path / "bad.yaml"), "--style", "bear"], "says how a bank is asked"),
    ):
        assert main(["recall", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
        assert "Recall of" not in captured.out


KILLED = """
import sys
import tidy_stlms.eval.study.measure
tidy_stlms.eval.study.measure.PROBES_PER_PART = (2, 2)
from tidy_stlms.scripts.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def kept_rows(cache):
    """The rows in whole lines; a kill may leave half of the last one."""
    lines = [line for path in cache.rglob("*.jsonl") for line in path.read_bytes().split(b"\n")]
    return sum(len(json.loads(line)["rows"]) for line in lines if line.endswith(b"}]}"))


def test_a_killed_run_scores_only_what_is_missing(run, recall, tmp_path, own_cache, monkeypatch):
    from tidy_stlms.eval.recall import harness

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    bank = ["--facts", str(run / "facts"), "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, "recall", str(run), *bank])
    deadline = time.monotonic() + 120
    while kept_rows(own_cache) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
        assert process.poll() is None, "it was faster than its kill"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = kept_rows(own_cache)
    n_probes = len(read_jsonl(run / "facts" / "probes.jsonl"))
    assert 6 <= kept < n_probes

    scored = []
    score = harness.score
    monkeypatch.setattr(
        harness, "score", lambda m, t, items, **kw: scored.extend(items) or score(m, t, items, **kw)
    )
    assert recall(run, "--out", resumed) == 0
    assert len(scored) == n_probes - kept
    assert recall(run, "--out", whole, "--no-cache") == 0
    assert len(scored) == 2 * n_probes - kept
    for ours, theirs in zip(*(read_jsonl(out / "results.jsonl") for out in (resumed, whole)), strict=True):
        assert ours["probe_id"] == theirs["probe_id"]
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)
        assert ours["generation"] == theirs["generation"]


def test_ctrl_c_is_one_line_and_what_is_done_is_kept(run, recall, monkeypatch, capsys):
    from tidy_stlms.eval.recall import harness

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(harness, "evaluate_recall", stop)
        with pytest.raises(SystemExit) as caught:
            recall(run)
    assert caught.value.code == 130
    error = capsys.readouterr().err
    assert "what is finished is kept: the same command goes on" in error
    assert error.strip().count("\n") == 0


def test_facts_generate_show_validate(tmp_path, capsys):
    bank = str(tmp_path / "bank")
    assert (
        main(["facts", "generate", "configs/facts/people.yaml", "--out", bank, "people=12", "use=[language]"])
        == 0
    )
    assert "24 facts" in capsys.readouterr().out
    assert main(["facts", "show", bank, "--examples", "2"]) == 0
    shown = capsys.readouterr().out
    assert "facts: control 12, injected 12" in shown
    assert shown.count("asked (memorization)") == 2
    assert main(["facts", "validate", bank]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert main(["facts", "generate", "configs/facts/people.yaml", "--out", bank]) == 2
    facts = tmp_path / "bank/facts.jsonl"
    facts.write_text(facts.read_text().replace('"role": "control"', '"role": "contrl"', 1))
    assert main(["facts", "validate", bank]) == 2
    captured = capsys.readouterr()
    assert "unknown role 'contrl'" in captured.out
    assert "has errors" in captured.err


def test_an_unknown_command_is_named(capsys):
    assert main(["trian"]) == 2
    assert "unknown command 'trian', did you mean 'train'?" in capsys.readouterr().err
    assert main(["--version"]) == 0


def entry(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "n": 8, "n_facts": 8}


def two_models(p_holm):
    """A study of two models of which the first is better, by a difference of that p-value."""
    figures = {"results/run": entry(0.75, 0.5, 1.0), "results/twin": entry(0.25, 0.0, 0.5)}
    difference = {"a": "results/twin", "b": "results/run", "difference": 0.5, "low": 0.1, "high": 0.9}
    asked = {"role": "injected", "type": "semantic", "metric": "accuracy", "p": 0.01, "n": 8}
    bank = {"name": None, "sha256": "9f2c", "n_facts": 8, "n_probes": 8, "chance": 0.1}
    return study_of(
        [model_info(label, tokenizer="t", flags={"straddles": 3}) for label in figures],
        bank={**bank, "flags": {"case_differs": 2}},
        recall={label: {"injected": {"semantic": {"accuracy": figure}}} for label, figure in figures.items()},
        comparisons=[{**difference, **asked, "p_holm": p_holm}],
    )


def shown(study, *, width=100, baseline=None, color=None):
    console = Console(file=io.StringIO(), width=width, color_system=color, force_terminal=color is not None)
    print_study(console, study, None, baseline)
    return console.file.getvalue()


def test_models_are_columns_as_long_as_there_is_room():
    wide, narrow, list_ = (shown(two_models(0.01), width=width) for width in (100, 36, 25))
    assert "0.75 [0.50, 1.00]  0.25 [0.00, 0.50]" in wide
    header = next(line for line in wide.splitlines() if "run" in line)
    assert header.split() == ["run", "twin"]  # the folder that they share is left out
    assert "0.75  0.25" in narrow
    assert "[0.50" not in narrow.split("Differences")[0]
    assert "accuracy: run 0.75, twin" in " ".join(list_.split())
    assert "straddles 3 of results/run, 3 of results/twin" in wide
    assert "case_differs 2" in wide


BOLD, DIM = "\x1b[1m", "\x1b[2m"


def test_what_is_best_is_marked_and_what_may_be_chance_is_grey():
    def cell(study, figure, **kwargs):
        text = shown(study, color="standard", **kwargs)
        return text[: text.index(figure)].rsplit("\x1b[0m", 1)[-1]

    assert BOLD in cell(two_models(0.01), "0.75 [")
    assert "\x1b" not in cell(two_models(0.01), "0.25 [").replace(" ", "")
    assert "\x1b[1;2m" in cell(two_models(0.2), "0.75 [")  # best, though not for certain
    # against a baseline: what is not unlike it
    assert DIM in cell(two_models(0.2), "0.75 [", baseline="results/twin").replace("1;2m", "2m")
    assert BOLD in cell(two_models(0.01), "0.75 [", baseline="results/twin")


FIGURE = Estimate(mean=0.5, low=0.25, high=0.75, n=8, n_facts=8)
BEFORE = {"injected": {"semantic": {"accuracy": replace(FIGURE, mean=0.1)}}}
AFTER = {
    "injected": {"semantic": {"accuracy": FIGURE}, "memorization": {"accuracy": FIGURE}},
    "control": {"semantic": {"accuracy": FIGURE}},
}


def test_recall_table_shows_before_and_after():
    table = recall_table(AFTER, BEFORE)
    assert table.header == ("probe", "metric", "injected", "control")
    assert table.texts() == [
        ("memorization", "accuracy", "0.50 [0.25, 0.75]", ""),
        ("semantic", "accuracy", "0.10 → 0.50 [0.25, 0.75]", "0.50 [0.25, 0.75]"),
    ]
    assert table.markdown().splitlines()[1] == "| --- | --- | ---: | ---: |"


@pytest.mark.parametrize("width", [30, 80])
def test_recall_table_is_whole_on_any_terminal(width):
    console = Console(file=io.StringIO(), width=width)
    print_recall_table(console, recall_table(AFTER, BEFORE), "Recall")
    shown = console.file.getvalue()
    assert "0.10 → 0.50 [0.25, 0.75]" in " ".join(shown.split())
    assert "…" not in shown


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (100, "semantic      accuracy  0.10 → 0.50 [0.25, 0.75]     0.50 [0.25, 0.75]  0.50 [0.25, 0.75]"),
        (85, "semantic      never (0 exposures)   0.10 → 0.50 [0.25, 0.75]  0.50 [0.25, 0.75]  8"),
        (60, "semantic      never (0 exposures)   0.10 → 0.50  0.50  8"),
        (45, "  rank, control: 0.50 [0.25, 0.75]\n"),
    ],
)
def test_many_arms_are_turned_round_on_a_narrow_terminal(width, line):
    groups = ("never (0 exposures)", "often (64 exposures)", "control")
    both = {"semantic": {"accuracy": FIGURE, "candidate_rank": FIGURE}, "memorization": {"accuracy": FIGURE}}
    before = {groups[0]: {"semantic": {"accuracy": replace(FIGURE, mean=0.1)}}}
    console = Console(file=io.StringIO(), width=width)
    print_recall_table(console, recall_table(dict.fromkeys(groups, both), before), "Recall")
    shown = console.file.getvalue()
    assert line in shown
    assert "…" not in shown
    assert all(group in shown for group in groups)


def test_recall_against_exposures_where_they_differ():
    def shown(study):
        console = Console(file=io.StringIO(), width=120)
        print_study(console, study, None, None)
        return console.file.getvalue()

    study = example_study()
    assert len({point.exposures for point in study.dose_response}) > 2
    assert "Recall against exposures" in shown(study)
    same = tuple(point for point in study.dose_response if point.exposures in (0, 64))
    assert "Recall against exposures" not in shown(replace(study, dose_response=same))


def test_a_bank_that_guessers_solve_is_named_wherever_its_figures_stand(run, tmp_path, capsys):
    made = ["configs/facts/people.yaml", "people=60", "control=0", "use=[birth_city]", "distractors=3"]
    assert main(["facts", "generate", *made, "--out", str(tmp_path / "bank")]) == 0
    meta = read_json(tmp_path / "bank" / "bank.json")
    write_json(tmp_path / "bank" / "bank.json", {**meta, "provenance": "by hand"})
    probes = read_jsonl(tmp_path / "bank" / "probes.jsonl")
    for probe in probes:
        probe["distractors"] = [f"{probe['answers'][0]} Old Town {letter}" for letter in "ABC"]
    write_jsonl(tmp_path / "bank" / "probes.jsonl", probes)
    capsys.readouterr()
    asked = ["--facts", str(tmp_path / "bank"), "--no-generate", "--out", str(tmp_path / "out")]
    assert main(["recall", str(run), *asked]) == 0
    assert 'guessable bank: a guesser that knows no facts ("shortest")' in capsys.readouterr().err
    assert "shortest" in "".join(read_json(tmp_path / "out" / "summary.json")["bank"]["guessable"])
    for page in ("report.md", "report.html"):
        assert "Guessable bank" in (tmp_path / "out" / page).read_text()
