"""Properties of the forward pass, of generation and of the loss."""

import math

import pytest
import torch
from torch import nn
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from modeling_stlm import STLMConfig
from modeling_stlm.modeling_stlm import CACHE, STLMMLP, sinusoidal_positions


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"num_key_value_heads": 1, "hidden_act": "gelu"},
        {
            "num_key_value_heads": None,
            "head_dim": 6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
        },
        {
            "head_dim": 8,
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
            "max_position_embeddings": 8,
        },
        {"tie_word_embeddings": False},
        {"attention_bias": True, "mlp_bias": True, "hidden_act": "relu"},
        {"head_dim": 8, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"head_dim": 8, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
    ],
)
def test_equals_llama_with_the_same_weights(make_model, input_ids, overrides):
    model = make_model(**overrides)
    fields = model.config.to_dict()
    fields.pop("auto_map")
    llama = LlamaForCausalLM(LlamaConfig(**fields)).eval()
    llama.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(input_ids).logits, llama(input_ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("biased", [True, False])
def test_equals_qwen3_with_the_same_weights(make_model, input_ids, biased):
    model = make_model(qk_norm=True, head_dim=6, attention_bias=biased)
    for layer in model.model.layers:  # at one, the weights of the norms would show nothing
        nn.init.normal_(layer.self_attn.q_norm.weight)
        nn.init.normal_(layer.self_attn.k_norm.weight)
    fields = model.config.to_dict()
    fields.pop("auto_map")
    qwen = Qwen3ForCausalLM(Qwen3Config(**fields)).eval()
    qwen.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(input_ids).logits, qwen(input_ids).logits, atol=1e-5, rtol=0)


def test_equals_gpt2_with_the_same_weights(make_model, input_ids):
    model = make_model(
        position_embedding_type="learned",
        num_key_value_heads=None,
        attention_bias=True,
        mlp_type="plain",
        mlp_bias=True,
        hidden_act="gelu_new",
        norm_type="layernorm",
        norm_bias=True,
    )
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48)
    gpt2 = GPT2LMHeadModel(config).eval()
    state, ours = gpt2.state_dict(), model.state_dict()

    def copy(theirs: str, *names: str, transposed: bool = False):
        tensor = torch.cat([ours.pop(name) for name in names])
        state[theirs].copy_(tensor.T if transposed else tensor)  # GPT-2 keeps its matrices transposed

    copy("transformer.wte.weight", "model.embed_tokens.weight")
    copy("transformer.wpe.weight", "model.embed_positions.weight")
    for kind in ("weight", "bias"):
        copy(f"transformer.ln_f.{kind}", f"model.norm.{kind}")
        for idx in range(2):
            h, layer, transposed = f"transformer.h.{idx}", f"model.layers.{idx}", kind == "weight"
            copy(f"{h}.ln_1.{kind}", f"{layer}.input_layernorm.{kind}")
            copy(f"{h}.ln_2.{kind}", f"{layer}.post_attention_layernorm.{kind}")
            heads = [f"{layer}.self_attn.{name}_proj.{kind}" for name in "qkv"]
            copy(f"{h}.attn.c_attn.{kind}", *heads, transposed=transposed)
            copy(f"{h}.attn.c_proj.{kind}", f"{layer}.self_attn.o_proj.{kind}", transposed=transposed)
            copy(f"{h}.mlp.c_fc.{kind}", f"{layer}.mlp.up_proj.{kind}", transposed=transposed)
            copy(f"{h}.mlp.c_proj.{kind}", f"{layer}.mlp.down_proj.{kind}", transposed=transposed)
    assert set(ours) == {"lm_head.weight"}  # tied
    torch.testing.assert_close(model(input_ids).logits, gpt2(input_ids).logits, atol=1e-5, rtol=0)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_pytorch_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("mlp_type", ["gated", "plain"])
@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_feed_forward_equals_its_formula(mlp_type, hidden_act):
    torch.manual_seed(0)
    config = STLMConfig(
        hidden_size=6,
        intermediate_size=9,
        num_attention_heads=1,
        num_key_value_heads=1,
        mlp_type=mlp_type,
        hidden_act=hidden_act,
        mlp_bias=True,
    )
    mlp, hidden_states = STLMMLP(config), 3 * torch.randn(5, 6)
    gate = mlp.gate_proj if mlp_type == "gated" else mlp.up_proj
    inner = gate(hidden_states).detach().apply_(ACTIVATIONS[hidden_act])
    if mlp_type == "gated":
        inner = inner * mlp.up_proj(hidden_states)
    torch.testing.assert_close(mlp(hidden_states), mlp.down_proj(inner), atol=1e-5, rtol=1e-5)


def test_sinusoids_equal_their_formula(make_model, input_ids):
    position_ids = torch.tensor([[0, 1, 63, 5000]])
    table = sinusoidal_positions(position_ids, 10)[0]
    for row, position in zip(table, position_ids[0].tolist(), strict=True):
        for column in range(10):
            angle = position / 10_000 ** (2 * (column // 2) / 10)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert row[column].item() == pytest.approx(expected, abs=1e-3 if position > 100 else 1e-5)

    # of any length, and added to the embeddings
    model = make_model(position_embedding_type="sinusoidal", max_position_embeddings=4)
    states = model(input_ids, output_hidden_states=True).hidden_states[0]
    positions = sinusoidal_positions(torch.arange(11)[None], 32)
    torch.testing.assert_close(states, model.model.embed_tokens(input_ids) + positions)


def test_without_positions_only_the_mask_tells_the_order(make_model, input_ids):
    model = make_model(position_embedding_type="none", num_hidden_layers=1)
    shuffled = input_ids[:, [3, 1, 0, 2, *range(4, 11)]]
    # a single layer that sees no positions reads what came before as a set
    torch.testing.assert_close(model(shuffled).logits[:, 4:], model(input_ids).logits[:, 4:])
    assert not torch.allclose(model(shuffled).logits[:, :4], model(input_ids).logits[:, :4])


def test_positions_beyond_the_learned_ones_are_refused(make_model, input_ids):
    model = make_model(position_embedding_type="learned", max_position_embeddings=11)
    outputs = model(input_ids)
    message = "position 11 is beyond the 11 learned positions"
    with pytest.raises(ValueError, match=message):
        model(input_ids[:, :1], past_key_values=outputs.past_key_values)
    with pytest.raises(ValueError, match=message):
        model(input_ids, position_ids=torch.arange(1, 12)[None])
    with pytest.raises(ValueError, match=message):
        model(torch.cat((input_ids, input_ids[:, :1]), dim=1))


@pytest.mark.parametrize(
    ("groups", "expected"), [(1, [0, 0, 0, 0, 0]), (2, [0, 0, 0, 1, 1]), (3, [0, 0, 1, 1, 2])]
)
def test_consecutive_layers_share_a_feed_forward(make_model, input_ids, groups, expected):
    model = make_model(num_hidden_layers=5, num_ffn_groups=groups)
    assert not any("layers" in name and ".mlp." in name for name in model.state_dict())
    used = []
    for number, ffn in enumerate(model.model.ffns):
        ffn.register_forward_hook(lambda *_, number=number: used.append(number))
    model(input_ids)
    assert used == expected

    # equal to a model in which every layer has a copy of its own
    own = make_model(num_hidden_layers=5)
    state = {name: tensor for name, tensor in model.state_dict().items() if ".ffns." not in name}
    for layer, group in enumerate(expected):
        for name, tensor in model.model.ffns[group].state_dict().items():
            state[f"model.layers.{layer}.mlp.{name}"] = tensor
    own.load_state_dict(state)
    torch.testing.assert_close(model(input_ids).logits, own(input_ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "biased"),
    [
        ({}, set()),
        ({"attention_bias": True}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ({"mlp_bias": True}, {"gate_proj", "up_proj", "down_proj"}),
        ({"mlp_bias": True, "mlp_type": "plain", "num_ffn_groups": 1}, {"up_proj", "down_proj"}),
        ({"lm_head_bias": True}, {"lm_head"}),
        ({"norm_type": "layernorm"}, set()),
        (
            {"norm_type": "layernorm", "norm_bias": True},
            {"input_layernorm", "post_attention_layernorm", "norm"},
        ),
        (
            {
                "norm_type": "layernorm",
                "norm_bias": True,
                "final_norm_type": "none",
                "mlp_norm_type": "rmsnorm",
            },
            {"input_layernorm"},
        ),
    ],
)
def test_biases_are_where_the_config_wants_them_and_act(make_model, input_ids, fields, biased):
    model = make_model(**fields)
    found = {name: tensor for name, tensor in model.named_parameters() if name.endswith(".bias")}
    assert {name.split(".")[-2] for name in found} == biased
    outputs = model(input_ids)
    outputs.logits.square().sum().backward()
    assert all(tensor.grad is not None for tensor in found.values())


def test_norms_stand_where_the_config_puts_them(make_model):
    fields = {"norm_type": "layernorm", "norm_bias": True, "layer_norm_eps": 0.25, "rms_norm_eps": 0.5}
    model = make_model(**fields, mlp_norm_type="none", final_norm_type="rmsnorm").model
    layer = model.layers[0]
    assert (type(layer.input_layernorm), layer.input_layernorm.eps) == (nn.LayerNorm, 0.25)
    assert layer.input_layernorm.bias is not None
    assert type(layer.post_attention_layernorm) is nn.Identity
    assert (type(model.norm), model.norm.eps) == (nn.RMSNorm, 0.5)
    assert make_model(norm_type="layernorm").model.norm.bias is None


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
@pytest.mark.parametrize("whole", [True, False], ids=["STLMForCausalLM", "STLMModel"])
def test_the_cache_is_read_under_its_names_of_all_transformers_versions(make_model, input_ids, name, whole):
    model = make_model() if whole else make_model().model
    expected = model(input_ids, use_cache=False)[0]
    cache = DynamicCache(config=model.config)
    first = model(input_ids[:, :4], **{name: cache})
    assert getattr(first, CACHE) is cache
    rest = model(input_ids[:, 4:], **{name: cache})
    assert cache.get_seq_length() == input_ids.shape[1]
    torch.testing.assert_close(torch.cat((first[0], rest[0]), dim=1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["past_key_value", "cache_params", "kv_cache", "layer_past"])
def test_a_cache_under_an_unknown_name_is_refused(make_model, input_ids, name):
    """Swallowed by **kwargs, it would make generation forget all tokens but the last."""
    model = make_model()
    for each in (model, model.model, model.model.layers[0].self_attn):
        arguments = (
            [input_ids] if each is not model.model.layers[0].self_attn else [torch.ones(1, 2, 32), None]
        )
        with pytest.raises(TypeError, match=f"`{name}` looks like a cache"):
            each(*arguments, **{name: DynamicCache(config=model.config)})
    for old in ("past", "kv_caches", "key_value_cache"):  # of old, tuples or lists of tensors
        with pytest.raises(TypeError, match=f"`{old}` looks like a cache"):
            model(input_ids, **{old: ((torch.ones(1), torch.ones(1)),)})
    model(input_ids, past_key_values=None, cache_position=torch.arange(11))  # no cache at all


def test_checkpointed_layers_leave_the_cache_alone(make_model, input_ids):
    """The backward pass runs a checkpointed layer again, and would write its keys a second time."""
    model = make_model().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    cache = DynamicCache(config=model.config)
    model(input_ids, labels=input_ids, **{CACHE: cache}).loss.backward()
    assert cache.get_seq_length() == 0


def test_what_is_done_to_a_cache_by_name_is_done_under_both_names(make_model):
    model = make_model()
    for names in (model.config.keys_to_ignore_at_inference, model._skip_keys_device_placement):
        assert {"cache", "past_key_values"} <= set(names)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cache_equals_no_cache(make_model, input_ids, attention):
    model = make_model(attn_implementation=attention)
    expected = model(input_ids, use_cache=False)
    assert expected.past_key_values is None

    outputs = model(input_ids[:, :4])
    logits = [outputs.logits]
    for position in range(4, 11):
        outputs = model(input_ids[:, position : position + 1], past_key_values=outputs.past_key_values)
        logits.append(outputs.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected.logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_left_padded_equals_unpadded(make_model, input_ids, attention):
    model = make_model(attn_implementation=attention)
    padded = torch.cat((torch.full((2, 3), 5), input_ids), dim=1)
    attention_mask = torch.ones_like(padded)
    attention_mask[0, :3] = 0
    attention_mask[1, :3] = 0
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=attention_mask, position_ids=position_ids).logits
    torch.testing.assert_close(logits[:, 3:], model(input_ids).logits, atol=1e-5, rtol=0)


def test_no_token_sees_the_future(model, input_ids):
    changed = input_ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 97
    before, after = model(input_ids).logits, model(changed).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("cache_implementation", ["dynamic", "static"])
def test_greedy_generation_equals_an_argmax_loop(model, input_ids, cache_implementation):
    expected = input_ids
    for _ in range(8):
        next_ids = model(expected, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
        expected = torch.cat((expected, next_ids), dim=1)
    generated = model.generate(
        input_ids,
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
        cache_implementation=cache_implementation,
    )
    assert torch.equal(generated, expected)


def test_generation_of_left_padded_prompts_equals_one_by_one(model, input_ids):
    alone = model.generate(input_ids[1:, 4:], max_new_tokens=6, do_sample=False, pad_token_id=0)
    batch, attention_mask = input_ids.clone(), torch.ones_like(input_ids)
    batch[1, :4], attention_mask[1, :4] = 0, 0
    together = model.generate(
        batch, attention_mask=attention_mask, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    assert torch.equal(together[1:, 4:], alone)


def test_eager_equals_sdpa_and_alone_returns_attentions(make_model, input_ids):
    sdpa, eager = make_model(attn_implementation="sdpa"), make_model(attn_implementation="eager")
    outputs = eager(input_ids, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, sdpa(input_ids).logits, atol=1e-5, rtol=0)

    assert [tuple(weights.shape) for weights in outputs.attentions] == 2 * [(2, 4, 11, 11)]
    torch.testing.assert_close(outputs.attentions[1].sum(dim=-1), torch.ones(2, 4, 11))
    assert [tuple(states.shape) for states in outputs.hidden_states] == 3 * [(2, 11, 32)]
    assert torch.equal(outputs.hidden_states[0], eager.model.embed_tokens(input_ids))


def test_inputs_embeds_stand_in_for_input_ids(model, input_ids):
    inputs_embeds = model.get_input_embeddings()(input_ids)
    assert torch.equal(model(inputs_embeds=inputs_embeds).logits, model(input_ids).logits)
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids, inputs_embeds=inputs_embeds)


def test_gradient_checkpointing_gives_equal_gradients(make_model, input_ids):
    def gradients(checkpointing: bool) -> tuple[int, dict[str, torch.Tensor]]:
        # dropout on: the second forward pass of a checkpointed layer must draw the same masks
        model = make_model(attention_dropout=0.2, resid_dropout=0.2, embd_dropout=0.2).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        passes = []
        model.model.layers[0].mlp.register_forward_hook(lambda *_: passes.append(1))
        torch.manual_seed(7)
        model(input_ids, labels=input_ids).loss.backward()
        return len(passes), {name: parameter.grad for name, parameter in model.named_parameters()}

    (plain_passes, plain), (checkpointed_passes, checkpointed) = gradients(False), gradients(True)
    assert (plain_passes, checkpointed_passes) == (1, 2)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, checkpointed[name]), name


def test_logits_to_keep(model, input_ids):
    logits = model(input_ids).logits
    kept = torch.tensor([2, 5, 10])
    torch.testing.assert_close(model(input_ids, logits_to_keep=3).logits, logits[:, -3:])
    torch.testing.assert_close(model(input_ids, logits_to_keep=kept).logits, logits[:, kept])


def test_loss_is_the_shifted_sum_over_the_number_of_items(model, input_ids):
    labels = input_ids.clone()
    labels[0, :4] = -100
    logits, targets = model(input_ids).logits[:, :-1], labels[:, 1:]
    logprobs = logits.double().log_softmax(dim=-1)
    total = -logprobs.gather(-1, targets.clamp(min=0)[..., None])[..., 0][targets != -100].sum()

    mean = model(input_ids, labels=labels).loss
    torch.testing.assert_close(mean.double(), total / (10 + 7))
    accumulated = model(input_ids, labels=labels, num_items_in_batch=torch.tensor(40)).loss
    torch.testing.assert_close(accumulated.double(), total / 40)


def test_loss_of_a_bfloat16_model_is_computed_in_float32(model, input_ids):
    model = model.bfloat16()
    outputs = model(input_ids, labels=input_ids)
    assert outputs.logits.dtype == torch.bfloat16
    logits = outputs.logits.float()[:, :-1].flatten(0, 1)
    torch.testing.assert_close(outputs.loss, nn.functional.cross_entropy(logits, input_ids[:, 1:].flatten()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["embd_dropout", "attention_dropout", "resid_dropout"])
def test_dropout_acts_in_training_only(make_model, input_ids, kind, attention):
    plain = make_model(attn_implementation=attention)
    dropped = make_model(attn_implementation=attention, **{kind: 0.5})
    assert torch.equal(dropped(input_ids).logits, plain(input_ids).logits)

    dropped.train()
    first, second = dropped(input_ids).logits, dropped(input_ids).logits
    assert not torch.allclose(first, second)
    assert torch.equal(plain.train()(input_ids).logits, plain.eval()(input_ids).logits)


def test_residual_dropout_acts_on_everything_that_a_layer_adds(make_model, input_ids):
    base = make_model(resid_dropout=1 - 1e-9).model.train()
    torch.testing.assert_close(base(input_ids).last_hidden_state, base.norm(base.embed_tokens(input_ids)))


def test_projections_into_the_residual_stream_start_smaller(make_model):
    model = make_model(hidden_size=256, intermediate_size=256, num_hidden_layers=3, initializer_range=0.02)
    scaled = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            is_scaled = module.weight.std().item() < 0.015
            expected = 0.02 / math.sqrt(2 * 3) if is_scaled else 0.02
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            if is_scaled:
                scaled.add(name.split(".")[-1])
    assert scaled == {"o_proj", "down_proj"}
    marked = {
        name.split(".")[-1] for name, module in model.named_modules() if hasattr(module, "is_residual_out")
    }
    assert marked == scaled


def test_embedding_of_a_token_that_also_pads_goes_on_learning(make_model, input_ids):
    model = make_model(eos_token_id=5, pad_token_id=5)
    assert model.model.embed_tokens.weight[5].abs().sum() > 0
    input_ids[:] = 5
    hidden_states = model.model(input_ids).last_hidden_state
    hidden_states.square().sum().backward()
    assert model.model.embed_tokens.weight.grad[5].abs().sum() > 0


def test_forward_is_one_graph(model, input_ids):
    # backend="eager" traces without compiling: a break in the graph raises
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(input_ids).logits, model(input_ids).logits)


def test_config_is_left_as_it_was_written(model, input_ids):
    before = model.config.to_dict()
    model(input_ids, labels=input_ids)
    model.generate(input_ids, max_new_tokens=1, pad_token_id=0)
    assert model.config.to_dict() == before
