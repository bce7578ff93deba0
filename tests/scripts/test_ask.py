"""`stlm ask` on a tiny run."""

import io
import shutil

import pytest

from tidy_stlms.scripts.__main__ import main


def test_ask_continues_what_is_typed(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("The old farmer\nA dog\n"))
    assert main(["ask", str(run), "--steps", "3", "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("The old farmer", "A dog")) for line in lines) == 2
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]


def test_ask_puts_the_prefix_before_what_is_typed(run, monkeypatch, capsys, caplog):
    shown = {}
    for prefix in ([], ["--prefix", "eos"], ["--prefix", "none"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("The old farmer\n"))
        assert main(["ask", str(run), "--steps", "1", *prefix]) == 0
        shown[tuple(prefix)] = capsys.readouterr().out
        assert ("is asked with prefix none" in caplog.text) is ("none" in prefix)
    assert shown[()] == shown["--prefix", "eos"] != shown["--prefix", "none"]


def test_ask_refuses_what_is_no_text(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("caf\udce9 is\n"))
    assert main(["ask", str(run), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "stlm: error: standard input: not UTF-8\n"


@pytest.mark.parametrize("width", [30, 200])
def test_ask_several_models_side_by_side(run, monkeypatch, capsys, tmp_path, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("The old farmer\n"))
    assert main(["ask", "run@step=8", "run@last", "--steps", "3", "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The old farmer"
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["run@step=8", "run@step=12"]
    steps = [line for line in lines[3:] if line.split()[:1] in (["1"], ["2"], ["3"])]
    # a column each, or one below the other
    assert len(steps) == (3 if width == 200 else 6)
    assert main(["ask", "run@step=5"]) == 2
