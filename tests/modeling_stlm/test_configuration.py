import dataclasses
import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_stlm import STLMConfig, STLMForCausalLM


def test_default_model_is_that_of_tidy_stlms():
    with torch.device("meta"):
        model = STLMForCausalLM(STLMConfig())
    embedding = 50257 * 512
    attention = 512 * (512 + 128 + 128 + 512)  # q, k, v, o: 16 heads of 32, of which 4 for keys and values
    feed_forward = 3 * 512 * 1536
    norms = 2 * 512
    assert model.num_parameters() == embedding + 8 * (attention + feed_forward + norms) + 512 == 49_857_536


def test_unset_fields_stay_unset_and_work(make_model, tmp_path):
    model = make_model(head_dim=None, num_key_value_heads=None)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == attention.k_proj.weight.shape == (32, 32)

    model.config.save_pretrained(tmp_path)
    loaded = STLMConfig.from_pretrained(tmp_path)
    assert loaded.head_dim is None
    assert loaded.num_key_value_heads is None

    # an override that arrives after the file was read meets no derived value
    wider = STLMForCausalLM(STLMConfig.from_pretrained(tmp_path, hidden_size=64))
    assert wider.model.layers[0].self_attn.head_dim == 16


def test_head_dim_is_free_of_hidden_size(make_model, input_ids):
    model = make_model(head_dim=6)
    assert model.model.layers[0].self_attn.o_proj.weight.shape == (32, 4 * 6)
    assert model(input_ids).logits.shape == (2, 11, 97)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"hidden_size": 500}, ["`hidden_size` (500)", "`num_attention_heads` (16)", "set `head_dim`"]),
        ({"num_key_value_heads": 3}, ["`num_key_value_heads` (3)", "divisor of 16"]),
        ({"num_key_value_heads": 32}, ["`num_key_value_heads` (32)", "divisor of 16"]),
        ({"head_dim": 7}, ["odd (7)", "set an even `head_dim`"]),
        ({"hidden_size": 16 * 5}, ["odd (5)", "set an even `head_dim`"]),
        ({"num_attention_heads": 0}, ["`num_attention_heads` is 0", "at least 1"]),
        ({"num_hidden_layers": -1}, ["`num_hidden_layers` is -1", "at least 1"]),
        ({"resid_dropout": 1.0}, ["`resid_dropout` is 1.0", "[0, 1)"]),
        ({"attention_dropout": -0.1}, ["`attention_dropout` is -0.1", "[0, 1)"]),
        ({"hidden_act": "swosh"}, ["`hidden_act` is 'swosh'", "choose one of", "silu"]),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
            ["'dynamic' needs `head_dim`", "set it to 32"],
        ),
        (
            {"rope_parameters": {"rope_type": "zz"}},
            ["`rope_parameters.rope_type` is 'zz'", "choose one of default, linear"],
        ),
        ({"rope_parameters": {"rope_type": "yarn"}, "head_dim": 32}, ["Missing required keys", "'factor'"]),
        ({"rope_parameters": {"rope_type": "longrope"}, "head_dim": 32}, ["Missing", "short_factor"]),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 0}, "head_dim": 32},
            ["`rope_parameters.factor` is 0"],
        ),
        ({"rope_parameters": {"rope_theta": 0.0}}, ["`rope_parameters.rope_theta` is 0.0", "above 0"]),
        ({"rope_parameters": {"rope_theta": "1e4"}}, ["`rope_parameters.rope_theta` is '1e4'", "a number"]),
        ({"rms_norm_eps": 0.0}, ["`rms_norm_eps` is 0.0", "above 0"]),
        ({"layer_norm_eps": -1e-5}, ["`layer_norm_eps` is -1e-05", "above 0"]),
        ({"initializer_range": -0.02}, ["`initializer_range` is -0.02", "at least 0"]),
        ({"hidden_size": "512"}, ["'hidden_size' expected int, got str"]),
        (
            {"hidden_act": "learned"},
            ["`hidden_act` is 'learned'", "weights of its own", "choose one of silu"],
        ),
        ({"hidden_act": "none"}, ["`hidden_act` is 'none'", "one linear map", "choose one of silu"]),
        ({"hidden_act": "prelu"}, ["`hidden_act` is 'prelu'", "choose one of silu"]),
        ({"position_embedding_type": "rope"}, ["`position_embedding_type` is 'rope'", "rotary, learned"]),
        ({"mlp_type": "swiglu"}, ["`mlp_type` is 'swiglu'", "gated, plain"]),
        ({"norm_type": "batchnorm"}, ["`norm_type` is 'batchnorm'", "rmsnorm, layernorm, none"]),
        ({"final_norm_type": "rms"}, ["`final_norm_type` is 'rms'", "rmsnorm, layernorm, none"]),
        ({"norm_bias": True}, ["`norm_bias` is for LayerNorm", "`norm_type` to layernorm"]),
        (
            {"norm_type": "layernorm", "norm_bias": True}
            | {f"{place}_norm_type": "rmsnorm" for place in ("attention", "mlp", "final")},
            ["`norm_bias` is for LayerNorm"],
        ),
        ({"num_ffn_groups": 0}, ["`num_ffn_groups` is 0", "at least 1"]),
        ({"num_ffn_groups": 9}, ["`num_ffn_groups` (9)", "`num_hidden_layers` (8)", "null"]),
        (
            {
                "position_embedding_type": "sinusoidal",
                "hidden_size": 15,
                "num_attention_heads": 5,
                "num_key_value_heads": 1,
            },
            ["`hidden_size` is odd (15)", "make it even"],
        ),
        (
            {"position_embedding_type": "learned", "rope_parameters": {"rope_type": "default"}},
            ["`rope_parameters` are for rotary", "'learned'", "null"],
        ),
        ({"position_embedding_type": "none", "rope_theta": 500.0}, ["`rope_parameters` are for rotary"]),
    ],
)
def test_impossible_configs_name_the_key_and_the_remedy(fields, parts):
    with pytest.raises(StrictDataclassError) as error:
        STLMConfig(**fields)
    message = str(error.value.__cause__)
    assert isinstance(error.value.__cause__, ValueError | TypeError)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "fields",
    [
        {"head_dim": 7, "position_embedding_type": "learned"},  # nothing turns in pairs
        {"norm_type": "none", "final_norm_type": "layernorm", "norm_bias": True},
        {"num_ffn_groups": 8},
        {"num_ffn_groups": 3},  # groups need not divide the layers
        {"qk_norm": True, "norm_type": "none"},
        {"tie_word_embeddings": True, "lm_head_bias": True},
        {"embd_dropout": 0},
    ],
)
def test_odd_but_sensible_configs_are_accepted(fields, tmp_path):
    STLMConfig(**fields).save_pretrained(tmp_path)
    assert STLMConfig.from_pretrained(tmp_path).to_dict() == STLMConfig(**fields).to_dict()


OWN_FIELDS = [field for field in dataclasses.fields(STLMConfig) if field.name in STLMConfig.__annotations__]


@pytest.mark.parametrize("name", [field.name for field in OWN_FIELDS])
def test_every_field_refuses_a_wrong_type(name):
    wrong = object()  # no field takes one
    with pytest.raises(StrictDataclassError, match=name):
        STLMConfig(**{name: wrong})
    with pytest.raises(StrictDataclassError, match=name):
        setattr(STLMConfig(), name, wrong)


def test_exactly_what_is_documented_is_a_field():
    arguments = STLMConfig.__doc__.split("Args:")[1].split("Raises:")[0]
    lines = re.findall(r"^ {8}(\w[\w, ]*):", arguments, flags=re.MULTILINE)
    assert {name for line in lines for name in line.split(", ")} == {field.name for field in OWN_FIELDS}


def test_positions_other_than_rotary_leave_no_rope_parameters(tmp_path):
    for kind in ("learned", "sinusoidal", "none"):
        STLMConfig(position_embedding_type=kind).save_pretrained(tmp_path)
        assert STLMConfig.from_pretrained(tmp_path).rope_parameters is None
    assert STLMConfig(rope_theta=500.0).rope_parameters["rope_theta"] == 500.0


def test_an_override_of_a_saved_config_is_checked_when_the_model_is_built(tmp_path):
    STLMConfig(num_hidden_layers=2, vocab_size=7).save_pretrained(tmp_path)
    config = STLMConfig.from_pretrained(tmp_path, num_ffn_groups=3)
    with pytest.raises(StrictDataclassError, match="num_ffn_groups"):
        STLMForCausalLM(config)


def test_tensor_parallel_plan_names_what_there_is(make_model, variant):
    model = make_model(**variant)
    assert model.tp_plan["lm_head"] == "colwise_gather_output"
    names = {re.sub(r"\d+", "*", name) for name, _ in model.named_modules()}
    assert set(model.tp_plan) <= names
    linear = {
        re.sub(r"\d+", "*", name) for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    assert linear <= set(model.tp_plan)  # no matrix is left whole
