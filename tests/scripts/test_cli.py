"""What commands print: one line for an error, all of it with `--debug`, and no control characters."""

import logging
import subprocess
import sys
import warnings

import pytest
import yaml
from rich.text import Text

from tidy_stlms.configs.errors import DiskFull, RunFailed, UserError
from tidy_stlms.configs.printable import UNPRINTABLE
from tidy_stlms.scripts.__main__ import COMMANDS
from tidy_stlms.scripts.__main__ import main as stlm
from tidy_stlms.scripts.cli import run
from tidy_stlms.scripts.messages import MESSAGE_LIMIT, say
from tidy_stlms.scripts.tables import print_rows
from tidy_stlms.scripts.terminal import Terminal, literal

EVIL = "\x1b]0;title\x07\x1b[31m\u202eab\x9b1m\ud800"
SHOWN = "\\u001b]0;title\\u0007\\u001b[31m\\u202eab\\u009b1m\\ud800"
KEPT = "\N{MAN}\u200d\N{WOMAN} \u05d0\u05d1 \u0645\u0631 [bold]x[/bold] :heart: 1/2"


def raises(error, hidden=None):
    def main():
        try:
            if hidden is not None:
                raise hidden
        finally:
            raise error from None

    return main


@pytest.mark.parametrize(("error", "code"), [(UserError(EVIL), 2), (RunFailed(EVIL), 1), (DiskFull(EVIL), 1)])
def test_a_message_is_one_line_of_bounded_length_without_control_characters(error, code, capsys):
    error.args = (f"a\nb\r\n{EVIL} " + "word " * 1000,)
    assert run(raises(error)) == code
    line = capsys.readouterr().err
    assert line.startswith(f"stlm: error: a b {SHOWN} word")
    assert line.endswith(" ...\n")
    assert line.count("\n") == 1
    assert len(line) <= MESSAGE_LIMIT + 20


def test_the_command_that_resumes_a_run_stays_in_a_line_of_its_own(capsys):
    full = DiskFull("model.safetensors: no space left")
    full.remedy = "go on with\n  stlm train 'a  b.yaml' training.resume_from_checkpoint=true"
    assert run(raises(full)) == 1
    message, command = capsys.readouterr().err.splitlines()
    assert message.endswith("make room, then go on with")
    assert command == "  stlm train 'a  b.yaml' training.resume_from_checkpoint=true"


def test_debug_shows_also_what_from_none_hides_and_keeps_the_code(capsys):
    assert run(raises(UserError("the line"), hidden=KeyError(EVIL)), debug=True) == 2
    *trace, line = capsys.readouterr().err.splitlines()
    assert line == "stlm: error: the line"
    assert "KeyError" in "\n".join(trace)
    assert "During handling of the above exception" in "\n".join(trace)
    assert not UNPRINTABLE.search("\n".join(trace))
    assert run(raises(UserError("the line"), hidden=KeyError("hidden"))) == 2
    assert capsys.readouterr().err == "stlm: error: the line\n"


def test_a_defect_keeps_its_traceback_with_and_without_debug(capsys):
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
    assert run(raises(TypeError("ours"), hidden=KeyError("first")), debug=True) == 1
    shown = capsys.readouterr().err
    assert (
        shown.index("KeyError: 'first'")
        < shown.index("TypeError: ours")
        < shown.index("stlm: error: a defect")
    )


def test_debug_shows_errors_after_which_a_command_goes_on(capsys):
    def main():
        try:
            raise KeyError("inner")
        except KeyError:
            logging.getLogger("tidy_stlms.eval").debug("one model failed", exc_info=True)

    assert run(main, debug=True) == 0
    shown = capsys.readouterr().err
    assert "DEBUG: one model failed" in shown
    assert "KeyError: 'inner'" in shown
    run(main)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("where", ["before", "behind", "inside"])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_takes_debug(command, where, tmp_path, capsys):
    missing = str(tmp_path / "missing")
    words = {
        "train": [missing],
        "facts": ["show", missing],
        "recall": [missing],
        "ask": [missing],
        "info": [missing],
        "push": [missing, "me/x"],
        "convert": ["tidy-config", missing, str(tmp_path / "out.yaml")],
        "export": ["llama", missing, str(tmp_path / "out")],
        "bench": ["recall", "--probes", "0"],
    }[command]
    line = {
        "before": ["--debug", command, *words],
        "behind": [command, *words, "--debug"],
        "inside": [command, "--debug", *words],
    }[where]
    assert stlm(line) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.splitlines()[-1].startswith("stlm: error: ")
    assert stlm([command, *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_argparse_repeats_no_control_characters(capsys):
    for words in (["info", "x", f"--{EVIL}"], ["recall", "x", "--limit", EVIL], ["facts", EVIL], [EVIL]):
        try:
            code = stlm(words)
        except SystemExit as exit:
            code = exit.code
        shown = capsys.readouterr().err
        assert code == 2
        assert not UNPRINTABLE.search(shown)
        assert "u001b" in shown or "x1b" in shown


def test_what_others_print_has_no_control_characters_either():
    script = (
        "import logging, sys, warnings\n"
        "from tidy_stlms.scripts.cli import run\n"
        "evil = '\\x1b[31m\\u202e\\x9b'\n"
        "def main():\n"
        "    logging.getLogger('some.library').warning('%s logged\\nnext', evil)\n"
        "    logging.getLogger('tidy_stlms.eval').warning('%s ours\\nnext', evil * 999)\n"
        "    warnings.warn(evil + 'warned')\n"
        "    raise TypeError(evil + 'raised')\n"
        "sys.exit(run(main))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert not UNPRINTABLE.search(done.stderr)
    assert "\\u001b[31m\\u202e\\u009b logged\nnext\n" in done.stderr
    assert "\\u001b[31m\\u202e\\u009bwarned" in done.stderr
    assert "TypeError: \\u001b[31m\\u202e\\u009braised" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= MESSAGE_LIMIT + 4


def test_the_terminal_shows_text_as_it_is_and_keeps_its_own_colours(capsys):
    terminal = Terminal(force_terminal=True, color_system="standard", width=200)
    with terminal.capture() as capture:
        terminal.print(EVIL + KEPT, style="bold")
        terminal.print(Text(EVIL))
    shown = capture.get()
    assert shown.startswith(f"\x1b[1m{SHOWN}{KEPT}")
    assert not UNPRINTABLE.search(shown.replace("\x1b[1m", "").replace("\x1b[0m", ""))
    say(EVIL + KEPT + "\n\tx")
    assert capsys.readouterr().out == f"{SHOWN}{KEPT}\n\tx\n"


@pytest.mark.parametrize("width", [200, 30])
def test_tables_are_as_wide_as_what_they_show(width):
    terminal = Terminal(width=width)
    rows = [[literal(EVIL[:12]), Text(EVIL)], [literal("plain"), literal("1.00")]]
    with terminal.capture() as capture:
        print_rows(terminal, EVIL, ["model", EVIL], rows, 1)
    shown = capture.get()
    assert not UNPRINTABLE.search(shown)
    lines = shown.splitlines()
    assert lines[0].strip().startswith("\\u001b]0;title")
    if width == 200:
        assert len({len(line.rstrip()) for line in lines[3:5]}) == 1  # right-aligned under each other


def test_a_dry_run_prints_a_config_of_the_same_values(capsys):
    words = ["configs/quickstart.yaml", f"training.output_dir=out/a\u202eb {KEPT[:4]}", "--dry-run"]
    assert stlm(["train", *words]) == 0
    shown = capsys.readouterr().out
    assert not UNPRINTABLE.search(shown)
    assert yaml.safe_load(shown)["training"]["output_dir"] == f"out/a\u202eb {KEPT[:4]}".rstrip()


def test_warnings_stay_catchable():
    run(lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(EVIL, stacklevel=1)
    assert str(caught[0].message) == EVIL
