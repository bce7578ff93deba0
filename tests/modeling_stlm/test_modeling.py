"""Properties of the forward pass, of generation and of the loss."""

import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


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
    ],
)
def test_equals_llama_with_the_same_weights(make_model, input_ids, overrides):
    model = make_model(**overrides)
    fields = model.config.to_dict()
    fields.pop("auto_map")
    llama = LlamaForCausalLM(LlamaConfig(**fields)).eval()
    llama.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(input_ids).logits, llama(input_ids).logits, atol=1e-5, rtol=0)


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
