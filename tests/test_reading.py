"""Calls of libraries that read a user's file stand inside `reading(...)`: every error becomes one line."""

import ast

from tests.test_imports import MODULES

# Calls that parse or load something, by the end of their name.
READERS = {
    "from_pretrained", "from_config", "load_dataset", "from_parquet", "read_table", "ParquetFile",
    "safe_open", "load_file", "torch.load", "safe_load", "json.load", "json.loads", "json5.loads",
    "OmegaConf.create", "OmegaConf.merge", "OmegaConf.to_container", "OmegaConf.to_object",
    "OmegaConf.from_dotlist", "merge_and_unload",
}  # fmt: skip
# Calls that read nothing of a user, and why.
OURS = {
    ("modeling_stlm.export_llama", "LlamaForCausalLM.from_pretrained"): "weights in memory",
    ("modeling_stlm.tidy.convert", "STLMForCausalLM.from_pretrained"): "weights in memory, checked before",
    ("modeling_stlm.tidy.checkpoint", "torch.load"): "in a `try` that tells refused classes from damage",
    ("tidy_stlms.configs.load", "OmegaConf.to_container"): "a config whose values have been checked",
    ("tidy_stlms.configs.load", "OmegaConf.to_object"): "the same",
    ("tidy_stlms.eval.scoring.bench", "json.loads"): "a tokenizer that the library has just serialised",
    ("tidy_stlms.eval.tokens", "json.loads"): "a tokenizer that the library has just serialised",
    ("tidy_stlms.trainers.text_bytes", "json.loads"): "a tokenizer that the library has just serialised",
    ("tidy_stlms.scripts.train", "yaml.safe_load"): "YAML that OmegaConf has just written",
}


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def reads(call: ast.Call) -> bool:
    name = name_of(call)
    return any(name == reader or name.endswith(f".{reader}") for reader in READERS)


def calls_outside(tree: ast.AST, inside: bool = False):
    """The reading calls that no `with reading(...)` encloses, of this function."""
    for node in ast.iter_child_nodes(tree):
        now = inside
        if isinstance(node, ast.With):
            contexts = [item.context_expr for item in node.items]
            now = inside or any(isinstance(c, ast.Call) and name_of(c) == "reading" for c in contexts)
        elif isinstance(node, ast.FunctionDef | ast.Lambda):
            now = False  # it may be called from anywhere
        if isinstance(node, ast.Call) and reads(node) and not inside:
            yield node
        yield from calls_outside(node, now)


def test_libraries_read_inside_reading():
    found = set()
    for module, file in MODULES.items():
        for call in calls_outside(ast.parse(file.read_text(encoding="utf-8"))):
            found.add((module, name_of(call)))
    assert found - OURS.keys() == set()
    assert OURS.keys() - found == set(), "no longer needed"
