"""Imports go one way: configs and modeling_stlm, then eval, then trainers, then scripts."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = {"configs.errors", "configs.files"}
MAY_IMPORT = {
    "configs": set(),
    "modeling_stlm": set(),
    "eval": {"configs", "modeling_stlm"},
    "trainers": {"configs", "modeling_stlm", "eval"},
    "scripts": {"configs", "modeling_stlm", "eval", "trainers"},
}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_lies_below(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            )
            for name in names:
                top = name.partition(".")[0]
                allowed = top == room or top in MAY_IMPORT[room] or name in SHARED
                assert top not in MAY_IMPORT or allowed, f"{file}: imports {name}"


def test_custom_code_for_the_hub_imports_only_siblings_and_libraries():
    for name in ("configuration_stlm.py", "modeling_stlm.py"):
        for node in ast.walk(ast.parse((ROOT / "modeling_stlm" / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.partition(".")[0] not in MAY_IMPORT, f"{name}: {node.module}"
