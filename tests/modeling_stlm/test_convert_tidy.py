"""Converted checkpoints compute what Tidy-STLMs computes, for each kind of model that it has."""

import itertools
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_stlm.tidy.convert import convert_checkpoint, convert_config, convert_weights
from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.modeling_stlm.tidy_reference import TidyModel, tidy_config
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.load import load_model, load_weights
from tidy_stlms.eval.models.read import read_tokenizer

ATTN, FFN, HEAD = "model__core_model__attn__", "model__core_model__ffn__", "model__lm_head__"
LAYER_NORMS = {f"{place}normalization": "layer_norm" for place in (ATTN, FFN, HEAD)}
BIASES = {f"{place}bias": True for place in (ATTN, FFN, HEAD)}
PLAIN = {f"{FFN}ffn_type": "generic", f"{FFN}activation": "gelu"}
SHARED = {"model__core_model__core_model_type": "generic_ffn_sharing"}

VARIANTS = {
    "default": {},
    "untied": {"model__embedding_weight_tying": False},
    "head bias, tied": {f"{HEAD}bias": True},
    "head bias, untied": {f"{HEAD}bias": True, "model__embedding_weight_tying": False},
    **{f"group of {size}": {f"{ATTN}group_size": size} for size in (1, 4)},
    "attention bias": {f"{ATTN}bias": True},
    "feed-forward bias": {f"{FFN}bias": True},
    **{
        f"plain {name}": {**PLAIN, f"{FFN}activation": name}
        for name in ("gelu", "relu", "silu", "leakyrelu", "tanh", "sigmoid", "GELU")
    },
    "plain with bias": {**PLAIN, f"{FFN}bias": True},
    "shared": SHARED,
    "shared with bias": {**SHARED, f"{FFN}bias": True},
    "shared plain": {**SHARED, **PLAIN},
    "layer norms": LAYER_NORMS,
    "layer norms with biases": {**LAYER_NORMS, **BIASES},
    "a bias in one of three layer norms": {**LAYER_NORMS, f"{FFN}bias": True},
    "no norms": {f"{place}normalization": "none" for place in (ATTN, FFN, HEAD)},
    "another norm in each place": {
        f"{ATTN}normalization": "layer_norm",
        f"{FFN}normalization": "none",
        f"{ATTN}bias": True,
        f"{HEAD}bias": True,
    },
    "layer norm at the head only": {f"{HEAD}normalization": "layer_norm", f"{HEAD}bias": True},
    **{
        f"positions {kind}": {"model__positional_encoding_type": kind}
        for kind in ("learned", "sincos", "none")
    },
    "GPT-2": {
        **LAYER_NORMS,
        **PLAIN,
        **BIASES,
        f"{HEAD}bias": False,
        f"{ATTN}group_size": 4,
        "model__positional_encoding_type": "learned",
    },
}


def save(path, config, weights, **more):
    torch.save(
        {"model": weights, "optimizer": {"state": {}}, "config": config, "iteration": 1001, **more}, path
    )
    return path


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint of the default model, its config and its reference."""
    torch.manual_seed(0)
    config = tidy_config()
    model = TidyModel(config["model"]).eval()
    return save(tmp_path / "tiny.pt", OmegaConf.create(config), model.state_dict()), config, model


@pytest.fixture(scope="module")
def ids():
    return torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_tidy_stlms(variant, tmp_path, ids):
    torch.manual_seed(0)
    config = tidy_config(**VARIANTS[variant])
    reference = TidyModel(config["model"]).eval()
    checkpoint = save(tmp_path / "a.pt", OmegaConf.create(config), reference.state_dict())
    convert_checkpoint(checkpoint, tmp_path / "out")
    model = load_weights(str(tmp_path / "out"), torch.float32).eval()
    with torch.no_grad():
        expected, found = reference(ids), model(ids).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_folder_is_a_whole_model(tiny, tmp_path, ids):
    checkpoint, _, reference = tiny
    warnings = convert_checkpoint(checkpoint, tmp_path / "out", tokenizer=None)
    assert len(warnings) == 1
    assert "gpt2, 61 tokens" in warnings[0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "model.safetensors", "generation_config.json", "README.md"}
    assert names >= {"configuration_stlm.py", "modeling_stlm.py"}
    card = (tmp_path / "out/README.md").read_text()
    assert "`tiny.pt`, saved with iteration 1,001" in card
    assert "Needs transformers 5.21 or newer." in card
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert f"{model.num_parameters():,} parameters" in card
    assert model.num_parameters() == sum(p.numel() for p in reference.parameters())
    assert (model.config.embd_dropout, model.config.attention_dropout, model.config.resid_dropout) == (
        0.1,
    ) * 3


def test_a_plain_dict_as_config_and_wrapped_names_are_the_same_model(tiny, tmp_path, ids):
    _, config, reference = tiny
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in reference.state_dict().items()}
    convert_checkpoint(save(tmp_path / "wrapped.pt", config, wrapped), tmp_path / "out")
    with torch.no_grad():
        found = load_weights(str(tmp_path / "out"), torch.float32).eval()(ids).logits
        torch.testing.assert_close(found, reference(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "positions"),
    [
        (torch.float8_e4m3fn, "rope"),  # too coarse for a table of sines
        *itertools.product((torch.float16, torch.bfloat16, torch.float64), ("rope", "sincos")),
    ],
)
def test_weights_of_any_precision_become_float32(dtype, positions):
    config = tidy_config(model__positional_encoding_type=positions)
    weights = {name: tensor.to(dtype) for name, tensor in TidyModel(config["model"]).state_dict().items()}
    converted = convert_weights(weights, convert_config(config, "a.pt"), "a.pt")
    assert {tensor.dtype for tensor in converted.values()} == {torch.float32}


def test_weights_that_are_not_finite_are_one_warning(tiny, tmp_path):
    _, config, reference = tiny
    names = ["core_model.transformer.h.1.attn.c_proj.weight", "core_model.transformer.h.2.attn.c_proj.weight"]
    weights = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    weights[names[0]][3, 4], weights[names[1]][0, 0] = float("nan"), float("inf")
    checkpoint = save(tmp_path / "nan.pt", config, weights)
    _, warning = convert_checkpoint(checkpoint, tmp_path / "out")  # the first: no tokenizer
    assert warning.startswith(f"{names[0]} ")
    assert "not finite" in warning


def test_a_constant_dropout_has_two_names():
    for name in ("dropout_p", "dropout"):
        schedule = {"dropout_type": "constant", name: 0.2}
        config = convert_config(tidy_config(trainer__dropout_scheduler=schedule), "a.pt")
        assert (config.embd_dropout, config.attention_dropout, config.resid_dropout) == (0.2,) * 3


def test_converting_leaves_the_random_state_alone(tiny, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    convert_checkpoint(tiny[0], tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


def test_tokenizer_of_the_right_size_comes_along(tmp_path):
    config = tidy_config(model__vocab_size=258)
    torch.manual_seed(0)
    checkpoint = save(tmp_path / "a.pt", OmegaConf.create(config), TidyModel(config["model"]).state_dict())
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    assert (
        convert_checkpoint(checkpoint, tmp_path / "out", tokenizer=read_tokenizer(tmp_path / "bytes")) == []
    )
    model, tokenizer = load_model(tmp_path / "out", device="cpu")
    assert tokenizer("ab")["input_ids"] == byte_tokenizer()("ab")["input_ids"]
    assert (model.config.pad_token_id, model.config.eos_token_id) == (256, 257)
    assert model.generation_config.eos_token_id == 257
    assert "AutoTokenizer" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(("vocab_size", "kept"), [(300, True), (200, False)])
def test_tokenizer_of_another_size_is_one_warning(tmp_path, vocab_size, kept):
    config = tidy_config(model__vocab_size=vocab_size)
    checkpoint = save(tmp_path / "a.pt", config, TidyModel(config["model"]).state_dict())
    (warning,) = convert_checkpoint(checkpoint, tmp_path / "out", tokenizer=byte_tokenizer())
    assert "258 tokens" in warning
    assert f"{vocab_size} tokens" in warning
    assert (tmp_path / "out/tokenizer.json").exists() is kept


def test_gpt2_files_without_a_config_are_read(tmp_path, tiny):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2/vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}')
    (tmp_path / "gpt2/merges.txt").write_text("#version: 0.2\na b\n")
    (warning,) = convert_checkpoint(tiny[0], tmp_path / "out", tokenizer=read_tokenizer(tmp_path / "gpt2"))
    assert "4 tokens" in warning
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ab")["input_ids"] == [2]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({f"{FFN}ffn_type": "generic", f"{FFN}activation": "learned"}, ["ffn.activation=learned"]),
        ({f"{FFN}ffn_type": "generic", f"{FFN}activation": "none"}, ["ffn.activation=none"]),
        ({f"{FFN}ffn_type": "generic"}, ["ffn.activation: is missing"]),
        ({f"{FFN}ffn_type": "moe"}, ["ffn.ffn_type=moe", "swiglu, generic"]),
        ({"model__core_model__core_model_type": "hf_core"}, ["core_model_type=hf_core"]),
        ({"model__model_shell_type": "byte_shell"}, ["model_shell_type=byte_shell"]),
        ({"model__embedder__embedding_model_type": "byte_level"}, ["embedding_model_type=byte_level"]),
        ({f"{HEAD}lm_head_type": "byte_level"}, ["lm_head_type=byte_level"]),
        ({f"{ATTN}is_causal": False}, ["attn.is_causal=False"]),
        ({f"{ATTN}attn_type": "linear"}, ["attn.attn_type=linear"]),
        ({f"{ATTN}normalization": "batch_norm"}, ["attn.normalization=batch_norm"]),
        ({f"{ATTN}group_size": 3}, ["group_size=3", "num_heads=4"]),
        ({f"{ATTN}num_heads": "4"}, ["num_heads=4", "whole number"]),
        ({f"{ATTN}bias": "no"}, ["attn.bias=no", "true or false"]),
        ({f"{ATTN}window": 8}, ["model.core_model.attn.window"]),
        ({"model__hidden_dim": 30}, ["hidden_size"]),
        ({"model__positional_encoding_type": ["rope"]}, ["positional_encoding_type"]),
        ({"trainer__dropout_scheduler": {"dropout_type": "constant", "dropout_p": 1.5}}, ["dropout"]),
        ({"model": {}}, ["model.model_shell_type: is missing"]),
        ({"model": "generic"}, ["model: the section is missing"]),
    ],
)
def test_other_models_are_refused_by_name(tiny, tmp_path, changes, parts):
    checkpoint = save(tmp_path / "other.pt", tidy_config(**changes), tiny[2].state_dict())
    refused(checkpoint, tmp_path, *parts)


def refused(checkpoint, tmp_path, *parts):
    with pytest.raises(UserError) as error:
        convert_checkpoint(checkpoint, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    for part in (checkpoint.name, *parts):
        assert part in message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def without(weights, name):
    return {key: tensor for key, tensor in weights.items() if key != name}


ATTENTION = "core_model.transformer.h.1.attn.c_attn.weight"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda w: without(w, ATTENTION), [f"lack {ATTENTION}"]),
        (lambda w: {**w, ATTENTION: torch.ones(3, 32)}, [ATTENTION, "[3, 32]", "[64, 32]"]),
        (lambda w: {**w, "extra.scale": torch.ones(1)}, ["extra.scale"]),
        (
            lambda w: {**w, "core_model.transformer.h.3.attn.c_proj.weight": torch.ones(1)},
            ["h.3.attn.c_proj"],
        ),
        (
            lambda w: {**w, "model_head.linear.weight": torch.ones(61, 32)},
            ["model_head.linear.weight", "ties"],
        ),
        (lambda w: {**w, ATTENTION: torch.ones(64, 32, dtype=torch.int8)}, [ATTENTION, "int8"]),
        (lambda w: {**w, "note": "hello"}, ["note", "state dict"]),
        (lambda w: [], ["state dict"]),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused_by_name(tiny, tmp_path, change, parts):
    weights = change(dict(tiny[2].state_dict()))
    refused(save(tmp_path / "wrong.pt", tiny[1], weights), tmp_path, *parts)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (SHARED, "core_model.transformer.h.2.ffn.linear_1.weight"),
        ({"model__positional_encoding_type": "sincos"}, "embedding_model.positional_encodings.pe"),
    ],
)
def test_what_should_be_equal_and_differs_is_refused(tmp_path, changes, name):
    config = tidy_config(**changes)
    weights = dict(TidyModel(config["model"]).state_dict())
    weights[name] = weights[name] + 0.01
    refused(save(tmp_path / "a.pt", config, weights), tmp_path, name)


def test_one_of_two_tied_tensors_is_enough(tiny, tmp_path, ids):
    _, config, reference = tiny
    for name in ("model_head.linear.weight", "embedding_model.token_embedder.weight"):
        weights = without(reference.state_dict(), name)
        converted = convert_weights(weights, convert_config(config, "a.pt"), "a.pt")
        assert torch.equal(converted["lm_head.weight"], converted["model.embed_tokens.weight"])


def test_an_existing_folder_is_left_alone(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        convert_checkpoint(tiny[0], tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        convert_checkpoint(tiny[0], tmp_path / "file/out")


def test_no_tokenizer_where_one_was_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(UserError, match=f"^{source}: .*tokenizer"):
            read_tokenizer(source)
