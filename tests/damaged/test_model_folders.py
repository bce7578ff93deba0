"""Model folders with a damaged config, tokenizer, generation config, adapter or weights file."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.damaged.damage import cases, damaged_bytes, damaged_value, to_json
from tests.eval.tiny import bank, byte_level, gpt2, llama, stlm
from tests.modeling_stlm.byte_examples import make_byte_model

COMMANDS = ("info", "ask", "export", "recall", "train")
KINDS = ("stlm", "gpt2", "llama", "byte", "adapter")
EVIL = """
import os
os.mkdir({canary!r})
class Evil: pass
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Whole model folders by kind, and a bank."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = byte_level()
    makers = {"stlm": stlm, "gpt2": gpt2, "llama": llama}
    for kind, make in makers.items():
        make(len(tokenizer)).save_pretrained(root / kind)
        tokenizer.save_pretrained(root / kind)
    make_byte_model().save_pretrained(root / "byte")
    byte_tokenizer().save_pretrained(root / "byte")
    adapter(root / "adapter", root / "llama")
    bank(people=2).save(root / "bank")
    return root


def adapter(folder, base):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder)


def use(case, folders, kind, name, content, command):
    model = case.folder / "model"
    shutil.copytree(folders / kind, model)
    (model / name).write_bytes(content)
    (model / "evil.py").write_text(EVIL.format(canary=str(case.canary)))
    keys = [f"model.name_or_path={model}", "model.config=null", "tokenizer.train=null"]
    keys.append(f"training.output_dir={case.out}")
    commands = {
        "info": ["info", model],
        "ask": ["ask", model, "--steps", 2],
        "export": ["export", "llama", model, case.out],
        "recall": ["recall", model, "--facts", folders / "bank", "--out", case.out],
        "train": ["train", "configs/quickstart.yaml", "--dry-run", *keys],
    }
    case.run(*commands[command], typed="The old farmer\n")


def files_of(folder, ending):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(ending))


@cases(16, 1500)
@given(data=st.data(), kind=st.sampled_from(KINDS), command=st.sampled_from(COMMANDS))
def test_any_value(new_case, folders, data, kind, command):
    name = data.draw(st.sampled_from(files_of(folders / kind, ".json")))
    value = json.loads((folders / kind / name).read_text())
    use(new_case(), folders, kind, name, to_json(data.draw(damaged_value(value))), command)


@cases(10, 800)
@given(data=st.data(), kind=st.sampled_from(KINDS), command=st.sampled_from(COMMANDS))
def test_any_bytes(new_case, folders, data, kind, command):
    name = data.draw(st.sampled_from(files_of(folders / kind, (".json", ".safetensors"))))
    use(
        new_case(),
        folders,
        kind,
        name,
        data.draw(damaged_bytes((folders / kind / name).read_bytes())),
        command,
    )


CLASSES = {
    "AutoModelForCausalLM": "evil.Evil",
    "AutoConfig": "evil.Evil",
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
}
QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@cases(8, 200)
@given(
    name=st.sampled_from(["config.json", "tokenizer_config.json", "generation_config.json"]),
    key=st.sampled_from(
        ["auto_map", "custom_generate", "tokenizer_class", "architectures", "quantization_config"]
    ),
    value=st.sampled_from([CLASSES, "evil.Evil", ["evil.Evil"], QUANTIZED, {"quant_method": "evil"}]),
    command=st.sampled_from(COMMANDS),
)
def test_code_beside_the_model_never_runs(new_case, folders, name, key, value, command):
    file = folders / "llama" / name
    content = (json.loads(file.read_text()) if file.exists() else {}) | {key: value}
    if key == "auto_map" and name == "config.json":
        content["model_type"] = "evil"
    use(new_case(), folders, "llama", name, to_json(content), command)
