"""An exported folder is a stock Llama: equal logits, no custom code, no trust."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from modeling_stlm.export_llama import export_llama, to_llama_config
from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tidy_stlms.configs.errors import UserError
from tidy_stlms.scripts.export import main

LOAD = """
import sys
sys.path = [p for p in sys.path if "editable" not in p]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
for name in ("modeling_stlm", "tidy_stlms"):
    sys.modules[name] = None  # importing it raises ImportError
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer("a cat sat", return_tensors="pt")["input_ids"]
with torch.no_grad():
    torch.save([type(model).__name__, ids, model(ids).logits, model.generation_config.eos_token_id], out)
"""


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(["a cat sat on a mat"] * 3, 280)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"tie_word_embeddings": False, "num_key_value_heads": None},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        {"head_dim": 6, "rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 50}},
        {"head_dim": 8, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        {"norm_type": "none", "attention_norm_type": "rmsnorm", "mlp_norm_type": "rmsnorm",
         "final_norm_type": "rmsnorm"},
        {"hidden_act": "gelu"},
    ],
)  # fmt: skip
def test_logits_are_equal(make_model, input_ids, tmp_path, overrides):
    model = make_model(**overrides)
    for parameter in model.parameters():  # norms and biases too, which start as ones and zeros
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    warnings = export_llama(model, None, tmp_path / "out")
    assert [w.split()[0] for w in warnings] == (["hidden_act"] if "hidden_act" in overrides else [])
    llama = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(llama(input_ids).logits, model(input_ids).logits, atol=1e-5, rtol=0)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    assert not {"auto_map", "norm_type", "embd_dropout"} & written.keys()
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors", ".md"}
    # what readers of transformers 4 look for
    rope = dict(written["rope_parameters"])
    assert written["rope_theta"] == rope.pop("rope_theta") == model.config.rope_parameters["rope_theta"]
    assert written.get("rope_scaling") == (rope if rope["rope_type"] == "linear" else None)


def test_stlm_export_llama_opens_where_the_project_is_missing(make_model, tokenizer, tmp_path, capsys):
    model = make_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, resid_dropout=0.1,
                       attention_dropout=0.2)  # fmt: skip
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path / "stlm")
    tokenizer.save_pretrained(tmp_path / "stlm")
    assert main(["llama", str(tmp_path / "stlm"), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "resid_dropout" in printed.err
    assert not list((tmp_path / "out").glob("*.py"))
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "out"), str(tmp_path / "logits.pt")],
        cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    kind, ids, logits, eos = torch.load(tmp_path / "logits.pt")
    assert kind == "LlamaForCausalLM"
    assert torch.equal(ids, tokenizer("a cat sat", return_tensors="pt")["input_ids"])
    assert eos == tokenizer.eos_token_id
    with torch.no_grad():
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "out/config.json").read_text())["attention_dropout"] == 0.2
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["max_new_tokens"] == 7


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        ({"position_embedding_type": "learned"}, "position_embedding_type"),
        ({"position_embedding_type": "none"}, "position_embedding_type"),
        ({"norm_type": "layernorm"}, "attention_norm_type"),
        ({"final_norm_type": "none"}, "final_norm_type"),
        ({"mlp_norm_type": "layernorm"}, "mlp_norm_type"),
        ({"mlp_type": "plain"}, "mlp_type"),
        ({"num_ffn_groups": 1}, "num_ffn_groups"),
        ({"qk_norm": True}, "qk_norm"),
        ({"lm_head_bias": True}, "lm_head_bias"),
    ],
)
def test_what_llama_has_not_is_named(make_model, tmp_path, overrides, option):
    with pytest.raises(UserError, match=f"^{option}: "):
        export_llama(make_model(**overrides), None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_sizes_that_llama_refuses_are_a_users_mistake(make_model):
    with pytest.raises(UserError, match="hidden size"):
        to_llama_config(make_model(hidden_size=30, head_dim=8).config)


def test_other_models_are_refused(make_model, tmp_path):
    export_llama(make_model(), None, tmp_path / "llama")
    with pytest.raises(UserError, match="'llama'"):
        export_llama(LlamaForCausalLM.from_pretrained(tmp_path / "llama"), None, tmp_path / "again")
    with pytest.raises(UserError, match="exists already"):
        export_llama(make_model(), None, tmp_path / "llama")


def test_special_tokens_are_named_as_older_readers_name_them(make_model, tmp_path):
    tokenizer = train_bpe_tokenizer(["a cat sat on a mat"] * 3, 280)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|x|>"]})
    export_llama(make_model(vocab_size=len(tokenizer)), tokenizer, tmp_path / "out")
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert written["additional_special_tokens"] == ["<|x|>"]
    assert "extra_special_tokens" not in written
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded("a<|x|>")["input_ids"] == tokenizer("a<|x|>")["input_ids"]
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


def test_stlm_export_llama_without_a_tokenizer_warns_once(make_model, tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "stlm")
    capsys.readouterr()  # its progress bar
    assert main(["llama", str(tmp_path / "stlm"), str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stlm: warning: ")
    assert "has no tokenizer" in line
    assert (tmp_path / "out/model.safetensors").exists()
    (tmp_path / "stlm/tokenizer.json").write_text("{}")  # one that is there and broken is a mistake
    assert main(["llama", str(tmp_path / "stlm"), str(tmp_path / "again")]) == 2
    assert "tokenizer cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_stlm_export_llama_says_what_stands_in_the_way_before_loading(
    make_model, tmp_path, capsys, monkeypatch
):
    make_model(mlp_type="plain").save_pretrained(tmp_path / "stlm")
    capsys.readouterr()
    monkeypatch.setattr(
        "tidy_stlms.eval.models.load.load_weights", lambda *args, **kwargs: pytest.fail("loaded")
    )
    for out, part in (("out", "mlp_type: "), ("stlm", "exists already")):
        assert main(["llama", str(tmp_path / "stlm"), str(tmp_path / out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line


def test_stlm_export_llama_takes_an_adapters_base_and_its_tokenizer(make_model, tokenizer, tmp_path, capsys):
    make_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "stlm")
    tokenizer.save_pretrained(tmp_path / "stlm")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "stlm")
    adapter = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(base, adapter).save_pretrained(tmp_path / "adapter")
    capsys.readouterr()
    assert main(["llama", str(tmp_path / "adapter"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(tokenizer)


def test_an_adapter_is_merged(make_model, input_ids, tmp_path):
    torch.manual_seed(0)
    adapted = get_peft_model(
        make_model(), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    ).eval()
    with torch.no_grad():
        expected = adapted(input_ids).logits
        assert not torch.allclose(expected, make_model()(input_ids).logits, atol=1e-2)
        export_llama(adapted, None, tmp_path / "out")
        llama = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(llama(input_ids).logits, expected, atol=1e-4, rtol=0)


def test_an_adapter_that_cannot_be_merged_is_refused(make_model, tmp_path):
    lora = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", alora_invocation_tokens=[1])
    with pytest.raises(UserError, match="cannot be merged into its base model: aLoRA does not"):
        export_llama(get_peft_model(make_model(), lora), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dtype_is_kept(make_model, tmp_path):
    export_llama(make_model().bfloat16(), None, tmp_path / "out")
    assert LlamaForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
