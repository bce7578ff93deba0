"""What holds for every member of the family: one test, run for 25 in which any two options meet."""

from itertools import combinations

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from modeling_stlm import STLMConfig
from modeling_stlm.accounting import PARTS, account
from tests.modeling_stlm.conftest import AXES, VARIANTS


def assert_equal_logits(actual, expected):
    """Equal but for rounding, which is relative to the largest of the logits."""
    scale = expected.abs().max().item()
    assert scale > 0.1  # else everything would be equal
    assert_close(actual, expected, atol=2e-5 * scale, rtol=0)


def test_any_two_options_meet():
    names = [set(name.split("-")) for name in VARIANTS]
    for first, second in combinations(AXES, 2):
        for pair in ({one, two} for one in first for two in second):
            assert any(pair <= name for name in names), pair


def test_saved_and_loaded_gives_equal_logits(make_model, input_ids, tmp_path, variant):
    model = make_model(**variant)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids).logits, model(input_ids).logits)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    assert STLMConfig.from_pretrained(tmp_path).to_dict().keys() >= variant.keys()


def test_cache_equals_no_cache(make_model, input_ids, variant):
    model = make_model(**variant)
    expected = model(input_ids, use_cache=False).logits
    start = model(input_ids[:, :4])
    middle = model(input_ids[:, 4:9], past_key_values=start.past_key_values)
    steps = [start.logits, middle.logits]
    for position in (9, 10):
        step = model(input_ids[:, position : position + 1], past_key_values=middle.past_key_values)
        steps.append(step.logits)
    assert_equal_logits(torch.cat(steps, dim=1), expected)


def test_generation_with_either_cache_equals_an_argmax_loop(make_model, input_ids, variant):
    model = make_model(**variant)
    expected = input_ids
    for _ in range(4):
        next_ids = model(expected, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
        expected = torch.cat((expected, next_ids), dim=1)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    for cache in ("dynamic", "static"):
        generated = model.generate(
            input_ids, attention_mask=torch.ones_like(input_ids), cache_implementation=cache, **options
        )
        assert torch.equal(generated, expected)


def test_left_padded_equals_unpadded(make_model, input_ids, variant):
    model = make_model(**variant)
    padded = torch.cat((torch.full((2, 3), 5), input_ids), dim=1)
    attention_mask = torch.ones_like(padded)
    attention_mask[:, :3] = 0
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=attention_mask, position_ids=position_ids).logits
    assert_equal_logits(logits[:, 3:], model(input_ids).logits)

    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    alone = model.generate(input_ids, attention_mask=torch.ones_like(input_ids), **options)
    together = model.generate(padded, attention_mask=attention_mask, **options)
    assert torch.equal(together[:, 3:], alone)


def test_eager_equals_sdpa(make_model, input_ids, variant):
    sdpa = make_model(**variant, attn_implementation="sdpa")
    eager = make_model(**variant, attn_implementation="eager")
    assert_equal_logits(eager(input_ids).logits, sdpa(input_ids).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_equal_separate_ones(make_model, input_ids, variant, attention):
    model = make_model(**variant, attn_implementation=attention)
    lengths = ((5, 6), (3, 8))  # the two rows are cut in different places
    position_ids = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    expected = torch.stack(
        [
            torch.cat([model(part[None]).logits[0] for part in ids.split(row)])
            for ids, row in zip(input_ids, lengths, strict=True)
        ]
    )
    for use_cache in (False, True):  # in training, and in a plain call in eval mode, which makes a cache
        logits = model(input_ids, position_ids=position_ids, use_cache=use_cache).logits
        assert_equal_logits(logits, expected)
    one_document = model(input_ids).logits
    assert not torch.allclose(one_document[:, 5:], expected[:, 5:], atol=1e-2)


def test_no_token_sees_the_future(make_model, input_ids, variant):
    model = make_model(**variant)
    changed = input_ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 97
    before, after = model(input_ids).logits, model(changed).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_checkpointing_gives_equal_gradients(make_model, input_ids, variant):
    def gradients(checkpointing: bool) -> tuple[int, dict[str, torch.Tensor]]:
        # dropout on: the second forward pass of a checkpointed layer must draw the same masks
        model = make_model(**variant, attention_dropout=0.2, resid_dropout=0.2, embd_dropout=0.2).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        passes = []
        model.model.layers[0].self_attn.register_forward_hook(lambda *_: passes.append(1))
        torch.manual_seed(7)
        model(input_ids, labels=input_ids).loss.backward()
        return len(passes), {name: parameter.grad for name, parameter in model.named_parameters()}

    (plain_passes, plain), (checkpointed_passes, checkpointed) = gradients(False), gradients(True)
    assert (plain_passes, checkpointed_passes) == (1, 2)
    assert all(gradient is not None for gradient in plain.values())
    largest = max(gradient.abs().max().item() for gradient in plain.values())
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, atol=2e-5 * largest, rtol=0, msg=name)


def test_accounting_counts_every_parameter_once(make_model, variant):
    model = make_model(**variant)
    figures = account(model)
    assert sum(figures["parameters"].values()) == figures["total"] == model.num_parameters()
    assert set(figures["parameters"]) <= set(PARTS)


# One of each kind of position, with shared and own feed-forwards.
@pytest.mark.parametrize("name", list(VARIANTS)[:24:6])
def test_a_training_step_is_one_graph(make_model, input_ids, name):
    variant = {"num_hidden_layers": 3, **VARIANTS[name]}
    model = make_model(**variant).train()
    # backend="eager" traces without compiling: a break in the graph raises
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected = model(input_ids, labels=input_ids)
    outputs = compiled(input_ids, labels=input_ids)
    assert_equal_logits(outputs.logits, expected.logits)
    gradients = [torch.autograd.grad(run.loss, list(model.parameters())) for run in (expected, outputs)]
    for plain, traced in zip(*gradients, strict=True):
        assert_close(traced, plain, atol=1e-4, rtol=1e-3)
