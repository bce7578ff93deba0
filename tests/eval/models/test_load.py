"""Loading models, and one clear line where there is none."""

import json
import shutil

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import BertConfig, BertLMHeadModel

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.load import choose_device, choose_dtype, load_model, load_tokenizer
from tidy_stlms.eval.models.lookup import check_model_path
from tidy_stlms.eval.scoring.scorer import Item, score

ITEMS = [Item("Ada Lopez was born in", ["Paris", "Kuala Lumpur"])]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    tiny.llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_folder(folder, tokenizer):
    check_model_path(folder)
    model, loaded = load_model(folder, device="cpu")
    assert model.dtype == torch.float32
    assert not model.training
    assert score(model, loaded, ITEMS) == score(tiny.llama(len(tokenizer)), tokenizer, ITEMS)
    assert load_model(str(folder), device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16


@pytest.fixture(scope="module")
def stlm_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("stlm")
    tiny.stlm(len(tokenizer), context=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_stlm_needs_no_remote_code(stlm_folder, tokenizer):
    from modeling_stlm import STLMForCausalLM

    loaded, loaded_tokenizer = load_model(stlm_folder, device="cpu")
    assert type(loaded) is STLMForCausalLM
    model = STLMForCausalLM.from_pretrained(stlm_folder).eval()
    assert score(loaded, loaded_tokenizer, ITEMS) == score(model, tokenizer, ITEMS)


def test_a_peft_adapter(tmp_path, folder, tokenizer):
    from peft import LoraConfig, get_peft_model

    base, _ = load_model(folder, device="cpu")
    [before] = score(base, tokenizer, ITEMS)
    adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.eval()
    expected = score(adapted, tokenizer, ITEMS)
    assert abs(expected[0].logprobs[0] - before.logprobs[0]) > 0.01
    adapted.save_pretrained(tmp_path)
    # the tokenizer is the base model's, which stands elsewhere
    check_model_path(tmp_path)
    model, loaded = load_model(tmp_path, device="cpu")
    for ours, theirs in zip(score(model, loaded, ITEMS), expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)

    from tidy_stlms.eval.scoring.generation import generate_texts

    merged = adapted.merge_and_unload()
    own = model.get_base_model().generation_config
    assert generate_texts(model, loaded, ["Ada"], [5]) == generate_texts(merged, tokenizer, ["Ada"], [5])
    assert model.get_base_model().generation_config is own

    broken = json.loads((tmp_path / "adapter_config.json").read_text()) | {
        "base_model_name_or_path": "gone/away/x"
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="gone/away/x: not a model"):
        check_model_path(tmp_path)


def test_an_adapter_without_task_type_on_an_stlm(tmp_path, stlm_folder, tokenizer):
    """Its base class is not one of those that peft imports by itself."""
    from peft import LoraConfig, get_peft_model

    base, _ = load_model(stlm_folder, device="cpu")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).eval()
    adapted.save_pretrained(tmp_path)
    assert score(*load_model(tmp_path, device="cpu"), ITEMS) == score(adapted, tokenizer, ITEMS)


@pytest.mark.parametrize("part", ["base", "adapter"])
def test_nothing_random_stands_in_for_missing_weights(tmp_path, folder, part):
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "base")
    base, _ = load_model(tmp_path / "base", device="cpu")
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    [file] = (tmp_path / part).glob("*.safetensors")
    weights = load_file(file)
    del weights[next(key for key in weights if "q_proj" in key)]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"adapter: cannot be loaded: .*(lack|missing).*q_proj"):
        load_model(tmp_path / "adapter", device="cpu")


def assert_refused(path, message):
    for refuse in (check_model_path, load_model):
        with pytest.raises(UserError, match=message) as caught:
            refuse(path)
        assert "\n" not in str(caught.value)


def test_what_is_not_a_model_is_refused_at_once(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", r"empty: not a model \(no config.json\)")
    (tmp_path / "notes.txt").write_text("no model")
    assert_refused(tmp_path / "notes.txt", r"not a model \(a file\)")
    assert_refused(tmp_path / "missing", r"not a model \(no such folder\)")
    assert_refused("../never/heard/of", r"not a model \(no such folder\)")

    no_weights = tmp_path / "no_weights"
    no_weights.mkdir()
    shutil.copy(folder / "config.json", no_weights)
    assert_refused(no_weights, r"not a model \(no weights")
    (no_weights / "config.json").write_text("{oops")
    assert_refused(no_weights, "config.json: not valid JSON")


def test_what_cannot_be_loaded_is_one_line(tmp_path, folder, tokenizer):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer.json").unlink()
    (bare / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="bare: ") as caught:
        load_model(bare, device="cpu")
    assert "\n" not in str(caught.value)

    # GPT-2 without tokenizer files would get an empty tokenizer from transformers
    gpt2 = tmp_path / "gpt2"
    tiny.gpt2(50).save_pretrained(gpt2)
    with pytest.raises(UserError, match="gpt2: no tokenizer there; save"):
        load_model(gpt2, device="cpu")

    headless = tmp_path / "headless"
    shutil.copytree(folder, headless)
    tiny.llama(len(tokenizer)).model.save_pretrained(headless)
    with pytest.raises(UserError, match=r"headless: cannot be loaded: the weights lack 1 .*lm_head.weight"):
        load_model(headless, device="cpu")

    (headless / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="headless: cannot be loaded: "):
        load_model(headless, device="cpu")

    config = json.loads((bare / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}}
    (bare / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="--trust-remote-code"):
        load_model(bare, device="cpu")


def test_a_model_that_looks_ahead_is_refused(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for is_decoder in (False, True):
        config = BertConfig(vocab_size=len(tokenizer), is_decoder=is_decoder, **sizes)
        BertLMHeadModel(config).save_pretrained(tmp_path)
        if is_decoder:
            load_model(tmp_path, device="cpu")
        else:
            with pytest.raises(UserError, match="not a causal language model: it looks ahead"):
                load_model(tmp_path, device="cpu")


def test_device_and_dtype():
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_device(None) == choose_device("auto")
    assert choose_dtype(None, cpu) == choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("float16", cpu) == torch.float16
    with pytest.raises(UserError, match="dtype 'int8': not one of auto, float32"):
        choose_dtype("int8", cpu)
    with pytest.raises(UserError, match="device 'abacus'"):
        choose_device("abacus")


def test_gpt2s_two_bare_files_are_a_tokenizer(tmp_path):
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(alphabet)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("abb")) == ["ab", "b"]
    assert tokenizer.eos_token == "<|endoftext|>"
