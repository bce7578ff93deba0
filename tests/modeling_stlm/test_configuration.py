import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

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
        ({"hidden_size": "512"}, ["'hidden_size' expected int, got str"]),
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
