"""`stlm recall`, `stlm ask` and `stlm facts` on a tiny run."""

import io
import json

import pytest
from rich.console import Console

from eval.report.tables import recall_table
from scripts.__main__ import main
from scripts.tables import print_recall_table


def test_recall_of_a_run_folder_repeats_the_runs_own_figures(run, tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["recall", str(run), "--facts", str(run / "facts"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "memorization" in shown
    assert "chance 0.25" in shown
    recorded = json.loads((run / "summary.json").read_text())["recall"]["after"]
    measured = json.loads((out / "summary.json").read_text())[str(run)]
    for role, kinds in recorded.items():
        for kind, metrics in kinds.items():
            for metric, figure in metrics.items():
                assert measured[role][kind][metric]["mean"] == pytest.approx(figure["mean"], abs=1e-4)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {line["model"] for line in lines} == {str(run)}


def test_a_model_that_breaks_is_reported_and_the_others_go_on(run, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"torn")
    arguments = ["recall", str(broken), str(run), "--facts", str(run / "facts"), "--no-generate"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert f"{broken}: " in captured.err
    assert f"Recall of {run}" in captured.out.replace("\n", "")


def test_recall_mistakes_exit_2_before_any_model_runs(run, tmp_path, capsys):
    bank = str(run / "facts")
    for arguments, expected in (
        ([str(tmp_path), "--facts", bank], "not a model"),
        ([str(run), "--facts", str(tmp_path)], "not a fact bank"),
        ([str(run), "--facts", bank, "--out", str(run)], "already holds something"),
        ([str(run), "--facts", bank, "--dtype", "float8"], "float8"),
    ):
        assert main(["recall", *arguments]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
        assert "Recall of" not in captured.out


def test_ask_continues_what_is_typed(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("The old farmer\nA dog\n"))
    assert main(["ask", str(run), "--steps", "3", "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("The old farmer", "A dog")) for line in lines) == 2
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]


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
    assert "unknown command 'trian'" in capsys.readouterr().err
    assert main(["--version"]) == 0


FIGURE = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8, "n_facts": 8}
RECALL = {
    "before": {"injected": {"semantic": {"accuracy": {**FIGURE, "mean": 0.1}}}},
    "after": {
        "injected": {"semantic": {"accuracy": FIGURE}, "memorization": {"accuracy": FIGURE}},
        "control": {"semantic": {"accuracy": FIGURE}},
    },
}


def test_recall_table_shows_before_and_after():
    table = recall_table(RECALL)
    assert table.header == ("probe", "metric", "injected", "control")
    assert table.rows == [
        ("memorization", "accuracy", "0.50 [0.25, 0.75]", ""),
        ("semantic", "accuracy", "0.10 → 0.50 [0.25, 0.75]", "0.50 [0.25, 0.75]"),
    ]
    assert table.markdown().splitlines()[1] == "| --- | --- | ---: | ---: |"


@pytest.mark.parametrize("width", [30, 80])
def test_recall_table_is_whole_on_any_terminal(width):
    console = Console(file=io.StringIO(), width=width)
    print_recall_table(console, recall_table(RECALL), "Recall")
    shown = console.file.getvalue()
    assert "0.10 → 0.50 [0.25, 0.75]" in " ".join(shown.split())
    assert "…" not in shown
