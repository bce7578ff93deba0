"""The documentation names files, functions, commands and terms that exist."""

import ast
import re
from pathlib import Path

import pytest

from tests import files_page
from tests.test_imports import FOLDERS, MODULES, ROOT
from tidy_stlms.configs.checks import CHOICES
from tidy_stlms.eval import run_folder
from tidy_stlms.eval.facts.integrity import PROBE_TYPES, ROLES, STATEMENT_KINDS
from tidy_stlms.scripts.__main__ import COMMANDS

PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
KEEP_A_CHANGELOG = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join([*FOLDERS, 'tests', 'docs', 'src'])})/[\w./*-]*[\w/*]")
OF_TIDY_STLMS = {"configs/full_configs"}  # named on the way from there
# `name` (`file.py`), `name` in `file.py`, and the arrows of CONTRIBUTING.md: name   file.py
DEFINITION = re.compile(r"`(\w+)`(?: in | \()`([\w/]+\.py)`|│ (\w+) +([\w/]+\.py)")
DOTTED = re.compile(r"\b(?:tidy_stlms|modeling_stlm)(?:\.\w+)+")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
COMMAND = re.compile(r"^(?:\$ |torchrun .* )?stlm (\w+)|`stlm (\w+)", re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def defined_in(file: Path) -> set[str]:
    """Names of functions, classes and constants at the top of a file."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def meanings() -> dict[str, str]:
    """The glossary: meaning by term."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text_of("docs/glossary.md"), re.MULTILINE))


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_links_lead_somewhere(page):
    for path in set(PATH.findall(text_of(page))) - OF_TIDY_STLMS:
        assert list(ROOT.glob(path)), f"{page}: {path} does not exist"
    for link in LINK.findall(text_of(page)):
        assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: link to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_functions_stand_in_the_files_that_are_named_with_them(page):
    for quoted_name, quoted_file, drawn_name, drawn_file in DEFINITION.findall(text_of(page)):
        name, file = quoted_name or drawn_name, quoted_file or drawn_file
        assert name in defined_in(ROOT / file), f"{page}: {file} has no {name}"
    for dotted in DOTTED.findall(text_of(page)):
        module, _, name = dotted.rpartition(".")
        exists = dotted in MODULES or (module in MODULES and name in defined_in(MODULES[module]))
        assert exists or dotted in ("tidy_stlms.eval", "tidy_stlms.modeling_stlm"), f"{page}: {dotted}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    for in_block, in_line in COMMAND.findall(text_of(page)):
        assert (in_block or in_line) in {*COMMANDS, "COMMAND"}, f"{page}: stlm {in_block or in_line}"


def test_the_pages_are_read():
    """The patterns above find something: paths and arrows in the tour, commands in README."""
    tour = text_of("CONTRIBUTING.md")
    assert len(PATH.findall(tour)) > 40
    assert len(DEFINITION.findall(tour)) > 15
    assert len(COMMAND.findall(text_of("README.md"))) > 30


def test_the_glossary_has_the_words_that_files_use():
    terms = meanings()
    assert quoted(terms["role"]) == set(ROLES)
    assert quoted(terms["type"]) == set(PROBE_TYPES)
    assert quoted(terms["statement"]) == {"kind", *STATEMENT_KINDS}
    assert quoted(terms["placement"]) == set(CHOICES["injection.placement"])
    assert quoted(terms["strategy"]) == set(CHOICES["injection.strategy"])


def test_the_page_of_files_is_up_to_date():
    assert text_of("docs/files.md") == files_page.page(), "run `python -m tests.files_page`"


def test_the_page_of_files_names_all_of_a_run_folder():
    constants = {name: value for name, value in vars(run_folder).items() if name.isupper()}
    names = {value for value in constants.values() if isinstance(value, str)}
    assert len(names) > 10
    for name in names:
        assert re.search(rf"`{re.escape(name)}[`/]", text_of("docs/files.md")), name


def test_every_field_on_the_page_of_files_has_a_meaning():
    for record in files_page.records():
        for name, _, _, meaning in files_page.fields_of(record):
            assert meaning, f"{record.__name__}.{name} has no docstring"


def test_the_changelog_has_the_headings_of_keep_a_changelog():
    versions = re.split(r"^## ", text_of("CHANGELOG.md"), flags=re.MULTILINE)[1:]
    assert versions[0].startswith("[Unreleased]\n")
    for version in versions:
        headings = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert headings == [heading for heading in KEEP_A_CHANGELOG if heading in headings]
