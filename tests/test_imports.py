"""Imports go one way: a room imports only rooms below it, and no files import each other in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From the lowest floor to the highest. A room holds its files and those sub-rooms that are not named here.
FLOORS = (
    "tidy_stlms.configs",
    "modeling_stlm",
    "tidy_stlms.eval",  # its own files: run folders, the Hub, tokens
    "tidy_stlms.eval.models",
    "tidy_stlms.eval.facts",
    "tidy_stlms.eval.facts.generate",
    "tidy_stlms.eval.facts.imports",
    "tidy_stlms.eval.scoring",
    "tidy_stlms.eval.recall",
    "tidy_stlms.eval.study",
    "tidy_stlms.eval.report",
    "tidy_stlms.trainers",
    "tidy_stlms.scripts",
)
FOLDERS = ("configs", "modeling_stlm", "eval", "trainers", "scripts")
# The model knows nothing of how runs are configured.
FOR_MODELING = {"tidy_stlms.configs.errors", "tidy_stlms.configs.files", "tidy_stlms.configs.reading"}
TRAVELS_TO_THE_HUB = {
    f"{kind}_stlm{byte}.py" for kind in ("configuration", "modeling") for byte in ("", "_byte")
}


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "modeling_stlm" else ("tidy_stlms", *parts))
    return name.removesuffix(".__init__")


MODULES = {module_of(file): file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}


def imports_of(file, module=""):
    """Names of the modules that a file imports, anywhere in it; those of this project are files."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            level = node.level - (file.name == "__init__.py")  # a package is its own first level
            package = module.rsplit(".", level)[0] if node.level else ""
            source = ".".join(part for part in (package, node.module) if part)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                names.add(full if full in MODULES else source)
    return names


def floor_of(module):
    """The index of the nearest room around a module."""
    around = [floor for floor in FLOORS if module == floor or module.startswith(f"{floor}.")]
    return FLOORS.index(max(around, key=len))


def is_ours(name):
    return name.partition(".")[0] in ("tidy_stlms", "modeling_stlm")


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_what_lies_below(room):
    files = {name: file for name, file in MODULES.items() if FLOORS[floor_of(name)] == room}
    assert files
    for module, file in files.items():
        for name in filter(is_ours, imports_of(file, module)):
            assert name in MODULES or name == "tidy_stlms", f"{file}: imports {name}, which does not exist"
            assert name == "tidy_stlms" or floor_of(name) <= floor_of(module), (
                f"{file}: imports {name}, from above"
            )
            assert room != "modeling_stlm" or floor_of(name) or name in FOR_MODELING, (
                f"{file}: imports {name}"
            )


def test_no_files_import_each_other_in_a_circle():
    graph = {
        module: {name for name in imports_of(file, module) if name in MODULES}
        for module, file in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the files


def test_custom_code_for_the_hub_imports_only_siblings_and_libraries():
    for name in TRAVELS_TO_THE_HUB:
        for module in filter(
            is_ours, imports_of(ROOT / "modeling_stlm" / name, f"modeling_stlm.{name[:-3]}")
        ):
            assert MODULES[module].name in TRAVELS_TO_THE_HUB, f"{name}: imports {module}"


def test_nobody_uses_the_folders_by_their_bare_names():
    """`import eval` works in this folder alone; elsewhere it is someone else's."""
    bare = set(FOLDERS) - {"modeling_stlm"}
    in_strings = re.compile(rf"""["'](?:{"|".join(bare)})\.\w+(?:\.\w+)*[:"']""")
    for file in [
        *MODULES.values(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "src" / "tidy_stlms").glob("*.py"),
    ]:
        for name in imports_of(file):
            assert name.partition(".")[0] not in bare, f"{file}: import tidy_stlms.{name} instead of {name}"
        for text in in_strings.findall(file.read_text(encoding="utf-8")):
            path = text.strip("\"':").partition(":")[0]
            assert f"tidy_stlms.{path}" not in MODULES, f"{file}: {text} lacks tidy_stlms"
    assert not list(ROOT.glob("src/tidy_stlms/modeling_stlm")), "its classes would exist twice"
