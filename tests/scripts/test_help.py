"""Help answers at once: it imports nothing but the standard library and the command itself."""

import json
import resource
import subprocess
import sys

import pytest

from tidy_stlms.scripts.__main__ import COMMANDS

SUBCOMMANDS = [
    *(f"facts {name}" for name in ("generate", "show", "validate", "import", "export")),
    *("facts export lm-eval", "facts export hub", "convert tidy", "convert tidy-config", "export llama"),
]
ALL_HELP = """
import contextlib, io, json, sys
before = set(sys.modules)
from tidy_stlms.scripts.__main__ import main
texts = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            code = main([*command.split(), "--help"])
        except SystemExit as stop:
            code = stop.code
    assert not code, command
    texts[command] = text.getvalue()
packages = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([texts, sorted(packages - set(sys.stdlib_module_names))]))
"""


@pytest.fixture(scope="module")
def helps():
    """The help of every command, and the packages that were imported for all of them."""
    commands = json.dumps(["", *COMMANDS, *SUBCOMMANDS])
    done = subprocess.run([sys.executable, "-c", ALL_HELP, commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_help_imports_a_library(helps):
    _, packages = helps
    assert packages == ["tidy_stlms"]


def test_every_command_explains_itself_with_examples(helps):
    texts, _ = helps
    assert all(f"\n  {name}" in texts[""] for name in COMMANDS)
    for command, text in texts.items():
        assert text.startswith(f"usage: stlm {command}"), command
    for command in COMMANDS:
        assert f"examples:\n  stlm {command} " in texts[command], command
    assert "RUN@all" in texts["recall"]


def test_help_takes_less_than_a_third_of_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "tidy_stlms.scripts", "--help"], stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # the processor's time, since other tests run beside this one
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
