"""Whatever is wrong in a user's model ends in one line that names it, and nothing of it runs or is built."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import ModelSection, TokenizerSection
from tidy_stlms.eval.models import load
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.models.names import expand_names
from tidy_stlms.eval.models.read import load_tokenizer, read_model_config
from tidy_stlms.eval.scoring.generation import top_tokens
from tidy_stlms.eval.scoring.generation_check import check_generation
from tidy_stlms.scripts.export import _export_llama
from tidy_stlms.scripts.info import _info
from tidy_stlms.trainers.model import build_model
from tidy_stlms.trainers.tokenizer import load_tokenizer as tokenizer_of_run

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder for each kind of model."""
    tokenizer, folders = tiny.byte_level(bos=True), {}
    for make in (tiny.stlm, tiny.gpt2, tiny.llama):
        folders[make.__name__] = tmp_path_factory.mktemp(make.__name__)
        make(len(tokenizer)).save_pretrained(folders[make.__name__])
        tokenizer.save_pretrained(folders[make.__name__])
    return folders


@pytest.fixture
def changed(tmp_path, whole):
    """`changed(kind, file, **values)`: a copy of a folder with other values in one of its JSON files."""

    def change(kind, file="config.json", **values) -> Path:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole[kind], folder)
        content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(content | values))
        return folder

    return change


def ask(folder):
    model, tokenizer = load_model(folder, device="cpu")
    check_generation(model, tokenizer, ["Ada Lopez was born in"])
    top_tokens(model, tokenizer, "Ada", steps=2)


def info(folder):
    _info([str(folder)], as_json=True, trust_remote_code=False)


def export(folder):
    _export_llama(str(folder), str(folder.parent / "exported"), "float32")


def train(folder):
    section = ModelSection(name_or_path=str(folder))
    tokenizer = tokenizer_of_run(TokenizerSection(), section, None, None, folder.parent)
    build_model(section, tokenizer, seed=0)


def line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text.isprintable(), text
    assert len(text) < 600
    return text


CONFIG_VALUES = [
    ("stlm", {"use_cache": "x"}, "use_cache"),
    ("stlm", {"hidden_size": 10**30}, "hidden_size"),
    ("llama", {"dtype": float("nan")}, "list index out of range"),
    ("llama", {"num_labels": 10**9}, "num_labels"),
    ("llama", {"rope_parameters": [1]}, ""),
    ("gpt2", {"resid_pdrop": "x"}, ""),
    ("gpt2", {"model_type": ["gpt2"]}, ""),
    ("stlm", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
]


@pytest.mark.parametrize(("kind", "values", "reason"), CONFIG_VALUES)
@pytest.mark.parametrize("command", [ask, info, export, train])
def test_a_wrong_value_in_a_config(changed, capsys, command, kind, values, reason):
    folder = changed(kind, **values)
    try:
        command(folder)
    except UserError:
        pass
    else:  # without weights, nothing may be wrong with it
        assert command is info
        assert "quantization_config" in values or kind == "gpt2"
        return
    with pytest.raises(UserError, match=str(folder) if command is not export else "model") as error:
        command(folder)
    if command is not export or kind == "stlm":
        assert reason in line(error)


TOKENIZER_VALUES = [
    ("tokenizer.json", {"model": {"type": "BPE", "vocab": 3}}),
    ("tokenizer.json", {"added_tokens": [{"id": 1}]}),
    ("tokenizer_config.json", {"auto_map": "x"}),
    ("tokenizer_config.json", {"model_input_names": None}),
    ("tokenizer_config.json", {"added_tokens_decoder": 7}),
    ("tokenizer_config.json", {"eos_token": {"content": 5}}),
    ("tokenizer_config.json", {"eos_token": 5}),
]


@pytest.mark.parametrize(("file", "values"), TOKENIZER_VALUES)
@pytest.mark.parametrize("command", [ask, export, train])
def test_a_wrong_value_in_a_tokenizer(changed, command, file, values):
    folder = changed("stlm", file, **values)
    with pytest.raises(UserError, match=f"{folder}: its tokenizer cannot be loaded") as error:
        command(folder)
    line(error)


def test_a_panic_in_rust_is_one_line(changed, capfd):
    """A template with a special token that is not in its list: tokenizers loads it, and panics when used."""
    parts = [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": {}}
    folder = changed("stlm", "tokenizer.json", post_processor=template)
    capfd.readouterr()
    with pytest.raises(UserError, match=f"{folder}: its tokenizer cannot be loaded: no entry found for key"):
        load_tokenizer(str(folder))
    assert "panicked" not in capfd.readouterr().err


def test_values_that_show_only_in_a_forward_pass_or_in_generation(changed):
    with pytest.raises(UserError, match=r"model: cannot be used: its forward pass fails: dropout"):
        load_model(changed("gpt2", resid_pdrop=float("nan")))
    with pytest.raises(UserError, match=r"^generation fails: "):
        ask(changed("gpt2", sliding_window={}))
    with pytest.raises(UserError, match=r"^generation_config\.json: eos_token_id must be .* got ''$"):
        ask(changed("llama", "generation_config.json", eos_token_id=""))


@pytest.mark.parametrize("text", ["[]", "3", "null", "[" * 3000 + "]" * 3000, '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("command", [ask, info, export, train])
def test_a_config_that_is_no_object(changed, command, text):
    folder = changed("stlm")
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: ") as error:
        command(folder)
    line(error)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("stlm", {"num_hidden_layers": 10**59}),
        ("llama", {"num_hidden_layers": 10**6}),
        ("gpt2", {"n_layer": 10**6}),
        ("stlm", {"num_ffn_groups": 10**6}),
        ("stlm", {"hidden_size": 10**9}),
        ("stlm", {"vocab_size": 10**15}),
        ("gpt2", {"n_positions": 10**8}),
        ("llama", {"text_config": {"num_hidden_layers": 10**6}}),
    ],
)
@pytest.mark.parametrize("command", [ask, info, export, train])
def test_absurd_sizes_are_refused_before_anything_is_built(changed, monkeypatch, command, kind, values):
    folder = changed(kind, **values)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_config", None)
    with pytest.raises(UserError, match=r"is (a number|[\d,]+).*; at most [\d,]+ can be built"):
        command(folder)
    with pytest.raises(UserError, match="can be built"):
        check_model_path(folder)  # as a dry run does


@pytest.mark.parametrize("values", [{"hidden_size": 10**7}, {"vocab_size": 10**8}])
def test_tensors_of_another_size_are_not_allocated(changed, values):
    """They would take 400 TB and 13 GB."""
    with pytest.raises(UserError, match="tensors of the weights have another size than the config says"):
        load_model(changed("stlm", **values), device="cpu")


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "gone.safetensors", 3])
def test_a_list_of_weight_files_names_files_beside_it(changed, name):
    folder = changed("llama")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "part.safetensors")}))
    load_model(folder, device="cpu")
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    with pytest.raises(UserError, match=r"index\.json: .*(not the name of a file beside it|is missing)"):
        load_model(folder, device="cpu")
    index.write_text("[]")
    with pytest.raises(UserError, match=r"index\.json: must hold a JSON object"):
        check_model_path(folder)


def test_damaged_weights(changed):
    folder = changed("llama")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}  # the file is memory-mapped
    for damaged in (content[:100], b"\xff" * 8 + content[8:], b"", b"\x02" + b"\0" * 7 + b"[]"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be loaded: ") as error:
            load_model(folder, device="cpu")
        line(error)
    save_file({name: tensor.to(torch.complex64) for name, tensor in weights.items()}, file)
    with pytest.raises(UserError, match="cannot be loaded: Casting complex values"):
        load_model(folder, device="cpu")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_payload_in_pickled_weights_does_not_run(changed, tmp_path):
    folder = changed("llama")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    load_model(folder, device="cpu")
    torch.save({**weights, "x": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a pickle that holds more than weights, .* not run$"):
        load_model(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def adapter(tmp_path, whole):
    """`adapter(**values)`: an adapter of the Llama with other values in its config."""
    base, _ = load_model(whole["llama"], device="cpu")
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    config = json.loads(path.read_text())

    def change(**values) -> str:
        path.write_text(json.dumps(config | values))
        return str(path.parent)

    return change


def test_an_adapter_with_a_wrong_config(adapter, tmp_path):
    load_model(adapter(), device="cpu")
    for values in ({"r": 10**9}, {"r": 10**7}, {"r": "x"}, {"peft_type": "X"}, {"target_modules": 3}):
        with pytest.raises(UserError, match="adapter: ") as error:
            load_model(adapter(**values), device="cpu")
        line(error)
    for values in ({"base_model_name_or_path": ["x"]}, {"base_model_name_or_path": ""}, {"revision": 3}):
        with pytest.raises(UserError, match=r"adapter_config.json: (base_model_name_or_path|revision) "):
            expand_names([adapter(**values)], cache=tmp_path)


def test_an_adapter_on_an_adapter_is_refused(adapter, tmp_path):
    itself = adapter(base_model_name_or_path=str(tmp_path / "adapter"))
    for refuse in (check_model_path, load_model, lambda name: expand_names([name], cache=tmp_path)):
        with pytest.raises(UserError, match="is an adapter itself; merge it"):
            refuse(itself)


def test_a_tokenizer_that_needs_a_package(changed, monkeypatch):
    folder = changed("llama")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    with pytest.raises(UserError, match=r"its tokenizer cannot be loaded: .*pip install sentencepiece"):
        load_model(folder, device="cpu")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(UserError, match="no tokenizer there; save the model's tokenizer"):
        load_tokenizer(str(folder))


def test_code_for_an_older_transformers(changed):
    """Version 4 had a list of tied weights."""
    folder = changed(
        "llama",
        model_type="older",
        transformers_version="4.30.1",
        auto_map={"AutoConfig": "code.OlderConfig", "AutoModelForCausalLM": "code.OlderModel"},
    )
    (folder / "code.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OlderConfig(LlamaConfig):\n    model_type = 'older'\n"
        "class OlderModel(LlamaForCausalLM):\n"
        "    config_class = OlderConfig\n    _tied_weights_keys = ['lm_head.weight']\n"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match="--trust-remote-code"):
        load_model(folder, device="cpu")
    with pytest.raises(
        UserError, match=r"its own code may not fit transformers .* saved by 4\.30\.1"
    ) as error:
        load_model(folder, device="cpu", trust_remote_code=True)
    line(error)


def test_an_error_of_ours_keeps_its_traceback(changed, monkeypatch):
    def broken(*arguments):
        raise KeyError("a defect")

    monkeypatch.setattr(load, "check_fit", broken)
    with pytest.raises(KeyError, match="a defect"):
        load_model(changed("llama"), device="cpu")


def test_a_config_is_read_as_it_is(whole):
    assert read_model_config(str(whole["gpt2"])).n_embd == 32


def test_only_one_file_reads_users_models():
    reads = re.compile(r"\b(Auto\w+|GPT2Tokenizer|Peft\w+|\w+Tokenizer\w*)\.from_(pretrained|config)\(")
    docstrings = re.compile(r'"""(?s:.)*?"""')
    rooms = ("configs", "eval", "modeling_stlm", "scripts", "trainers")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    reading = [file for file in files if reads.search(docstrings.sub("", file.read_text()))]
    assert {file.relative_to(ROOT).as_posix() for file in reading} == {
        "eval/models/read.py",
        "trainers/model.py",  # a config from scratch
    }
