"""What transformers expects of any of its causal language models, after its own CausalLMModelTester,
ModelTesterMixin and GenerationTesterMixin: attention implementations, caches, ways to generate, embeddings.

What holds for every member of the family stands in test_family.py.
"""

import itertools

import pytest
import torch
from torch.testing import assert_close
from transformers import AttentionInterface, DynamicCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# two that have little in common: rotary, grouped heads, tied; learned, shared feed-forwards, biases, untied
KINDS = {
    "default": {},
    "other": {
        "position_embedding_type": "learned",
        "num_key_value_heads": None,
        "attention_bias": True,
        "qk_norm": True,
        "mlp_type": "plain",
        "hidden_act": "gelu",
        "num_ffn_groups": 1,
        "norm_type": "layernorm",
        "norm_bias": True,
        "tie_word_embeddings": False,
        "lm_head_bias": True,
    },
}
GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request) -> dict:
    return request.param


@pytest.fixture
def model(make_model, kind):
    return make_model(**kind)


@pytest.fixture
def padded(input_ids) -> dict:
    """The second row lacks its first four tokens."""
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :4] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


# --- attention implementations


@pytest.fixture
def eager_flex():
    """flex_attention as it is written, without half a minute of compiling its kernels."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("eager_flex")
def test_flex_attention_equals_sdpa(make_model, kind, model, padded, input_ids):
    flex = make_model(**kind, attn_implementation="flex_attention")
    packed = {"input_ids": input_ids, "position_ids": torch.cat((torch.arange(4), torch.arange(7)))[None]}
    with torch.no_grad():
        for inputs in ({"input_ids": input_ids}, padded, packed):
            shown = inputs.get("attention_mask", torch.ones_like(input_ids)).bool()
            ours, expected = flex(**inputs).logits, model(**inputs).logits
            assert_close(ours[shown], expected[shown], atol=1e-4, rtol=1e-4)
        assert torch.equal(flex.generate(**padded, **GREEDY), model.generate(**padded, **GREEDY))


@pytest.mark.usefixtures("eager_flex")
def test_flex_attention_is_refused_on_a_cpu_where_gradients_are_recorded(make_model, kind, input_ids):
    flex = make_model(**kind, attn_implementation="flex_attention")
    for training in (True, False):
        with pytest.raises(ValueError, match="flex_attention has no gradients on a CPU") as error:
            flex.train(training)(input_ids)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("eager_flex")
def test_flex_attention_reads_a_frozen_model_without_no_grad(make_model, kind, model, input_ids):
    flex = make_model(**kind, attn_implementation="flex_attention").requires_grad_(False)
    assert_close(flex(input_ids).logits, model(input_ids).logits, atol=1e-4, rtol=1e-4)


def test_attention_goes_through_the_interface(model, input_ids):
    calls = []

    def recording(module, query, key, value, attention_mask, **kwargs):
        calls.append((module.layer_idx, attention_mask, module.is_causal, kwargs["position_ids"].shape))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    expected = model(input_ids).logits
    AttentionInterface.register("recording", recording)
    model.set_attn_implementation("recording")
    assert_close(model(input_ids).logits, expected)
    # an implementation without masks of its own gets none, and what it needs to do without
    assert calls == [(layer, None, True, (1, 11)) for layer in range(2)]


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn3"])
def test_flash_attention_is_refused_packed_documents_in_larger_batches(
    make_model, input_ids, attention, monkeypatch
):
    model = make_model()
    packed = torch.cat((torch.arange(4), torch.arange(7))).expand(2, -1)
    reached = RuntimeError("at the first layer")

    def stop(*args, **kwargs):
        raise reached

    model.model.layers[0].register_forward_pre_hook(stop)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", attention)
    for positions in (packed, packed[:1]):
        with pytest.raises(ValueError, match="in a batch of one row only") as error:
            model(input_ids, position_ids=positions)
        assert "\n" not in str(error.value)
    # whatever flash attention keeps apart, or takes for one document as all others do
    ones = torch.ones_like(input_ids)
    for rows, options in (
        (input_ids[:1], {"position_ids": packed[:1]}),
        (input_ids, {"position_ids": torch.arange(11).expand(2, -1)}),
        (input_ids, {"position_ids": packed, "attention_mask": ones}),
        (input_ids[:, :1], {"position_ids": torch.tensor([[4], [7]])}),
        (input_ids, {}),
    ):
        with pytest.raises(RuntimeError, match="at the first layer"):
            model(rows, **options)


def test_implementations_that_transformers_offers_are_supported(model):
    for flag in ("sdpa", "flash_attn", "flex_attn", "attention_backend"):
        assert getattr(model, f"_supports_{flag}"), flag
    assert model._can_compile_fullgraph


def test_a_ready_made_mask_equals_the_one_that_is_made(model, padded):
    positions = (padded["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    expected = model(**padded, position_ids=positions).logits
    mask = torch.ones(11, 11, dtype=torch.bool).tril() & padded["attention_mask"].bool()[:, None, None, :]
    mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float).min)  # (batch, 1, seq, seq)
    logits = model(padded["input_ids"], attention_mask=mask, position_ids=positions).logits
    assert_close(logits[0], expected[0], atol=1e-5, rtol=0)
    assert_close(logits[1, 4:], expected[1, 4:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_full_precision(model, input_ids, dtype):
    expected = model(input_ids).logits
    logits = model.to(dtype)(input_ids).logits
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


# --- caches and compiled graphs


def test_static_cache_equals_no_cache_in_one_graph(make_model, kind, input_ids):
    model = make_model(**kind)
    with torch.no_grad():
        expected = model(input_ids, use_cache=False).logits
        cache = StaticCache(config=model.config, max_cache_len=16)
        first = model(input_ids[:, :9], past_key_values=cache).logits
        # a decoding step, whose position is a tensor: traced as a whole, without a break in the graph
        step = torch.compile(model, fullgraph=True, backend="eager")
        logits = [first]
        for position in (9, 10):
            position_ids = torch.full((2, 1), position)
            inputs = {"input_ids": input_ids[:, position : position + 1], "position_ids": position_ids}
            logits.append(step(**inputs, past_key_values=cache).logits)
    assert_close(torch.cat(logits, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_the_model_can_be_exported(model, input_ids):
    with torch.no_grad():
        program = torch.export.export(model, (input_ids,), {"use_cache": False}, strict=False)
        assert_close(program.module()(input_ids, use_cache=False).logits, model(input_ids).logits)


def test_generation_goes_on_from_a_cache(model, input_ids):
    whole = model.generate(input_ids, **GREEDY)
    first = model.generate(input_ids, **{**GREEDY, "max_new_tokens": 3}, return_dict_in_generate=True)
    assert isinstance(first.past_key_values, DynamicCache)
    rest = model.generate(
        first.sequences, past_key_values=first.past_key_values, **{**GREEDY, "max_new_tokens": 3}
    )
    assert torch.equal(rest, whole)


# --- ways to generate


def test_beam_search_as_wide_as_the_vocabulary_finds_the_best_continuation(make_model, kind):
    model = make_model(**{**kind, "vocab_size": 7})
    input_ids = torch.tensor([[3, 1, 4], [1, 5, 2]])
    found = model.generate(
        input_ids,
        num_beams=7,
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=-1,
    )
    for prompt, sequence in zip(input_ids, found, strict=True):
        continuations = torch.tensor(list(itertools.product(range(7), repeat=2)))
        rows = torch.cat((prompt.expand(49, -1), continuations), dim=1)
        logprobs = model(rows).logits.log_softmax(dim=-1)[:, 2:4]
        scores = logprobs.gather(-1, continuations[..., None]).sum(dim=(1, 2))
        assert torch.equal(sequence, rows[scores.argmax()])


def test_assisted_generation_equals_greedy(make_model, kind, model, input_ids):
    one = input_ids[:1]
    expected = model.generate(one, **GREEDY)
    small = make_model(**{**kind, "hidden_size": 16})
    assert not torch.equal(small.generate(one, **GREEDY), expected)
    for assistant in (model, small):
        assert torch.equal(model.generate(one, assistant_model=assistant, **GREEDY), expected)
    looked_up = model.generate(one.repeat(1, 2), prompt_lookup_num_tokens=3, **GREEDY)
    assert torch.equal(looked_up, model.generate(one.repeat(1, 2), **GREEDY))


def test_sampling_repeats_with_its_seed_and_follows_the_probabilities(model, input_ids):
    prompt = input_ids[:1, :5]
    options = {
        "do_sample": True,
        "max_new_tokens": 1,
        "num_return_sequences": 2000,
        "pad_token_id": 0,
        "top_k": 0,
    }
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(model.generate(prompt, **options)[:, -1])
    assert torch.equal(*drawn)
    expected = model(prompt).logits[0, -1].softmax(dim=-1)
    assert (drawn[0].bincount(minlength=97) / 2000 - expected).abs().max() < 0.05


def test_generation_from_embeddings_equals_generation_from_ids(model, input_ids):
    from_ids = model.generate(input_ids, **GREEDY)
    inputs_embeds = model.get_input_embeddings()(input_ids)
    for cache in ("dynamic", "static"):
        generated = model.generate(inputs_embeds=inputs_embeds, cache_implementation=cache, **GREEDY)
        assert torch.equal(generated, from_ids[:, 11:])


def test_generation_returns_scores_states_and_attentions(make_model, kind, input_ids):
    model = make_model(**kind, attn_implementation="eager")
    options = {"output_scores": True, "output_hidden_states": True, "output_attentions": True}
    outputs = model.generate(input_ids, return_dict_in_generate=True, output_logits=True, **options, **GREEDY)
    expected = model(outputs.sequences, output_hidden_states=True, output_attentions=True)
    assert_close(torch.stack(outputs.logits, dim=1), expected.logits[:, 10:-1], atol=1e-5, rtol=1e-5)
    for step in range(1, 6):
        for layer in range(3):
            state = outputs.hidden_states[step][layer]
            assert_close(state, expected.hidden_states[layer][:, 10 + step, None], atol=1e-5, rtol=1e-5)
        for layer in range(2):
            weights = expected.attentions[layer][:, :, 10 + step, : 11 + step]
            assert_close(outputs.attentions[step][layer], weights[:, :, None], atol=1e-5, rtol=1e-5)


def test_generation_stops_at_the_end_of_text(make_model, kind, input_ids):
    free = make_model(**kind).generate(input_ids, **GREEDY)
    end = free[0, 13].item()
    model = make_model(**kind, eos_token_id=end, pad_token_id=96)
    stopped = model.generate(input_ids, max_new_tokens=6, do_sample=False)
    row = stopped[0, 11:].tolist()
    assert row[: row.index(end) + 1] == free[0, 11 : 11 + row.index(end) + 1].tolist()
    assert set(row[row.index(end) + 1 :]) <= {96}


# --- inputs and outputs


def test_rows_of_a_batch_do_not_see_each_other(model, input_ids):
    together = model(input_ids).logits
    for row in range(2):
        assert_close(model(input_ids[row : row + 1]).logits[0], together[row], atol=1e-5, rtol=1e-5)


def test_a_tuple_holds_what_the_output_holds(model, input_ids):
    options = {"labels": input_ids, "output_hidden_states": True}
    outputs, values = model(input_ids, **options), model(input_ids, return_dict=False, **options)
    assert torch.equal(values[0], outputs.loss)
    assert torch.equal(values[1], outputs.logits)
    assert torch.equal(values[3][-1], outputs.hidden_states[-1])


def test_states_and_attentions_keep_gradients(make_model, kind, input_ids):
    model = make_model(**kind, attn_implementation="eager")
    outputs = model(input_ids, output_hidden_states=True, output_attentions=True)
    kept = [outputs.hidden_states[0], outputs.hidden_states[1], outputs.attentions[0]]
    for tensor in kept:
        tensor.retain_grad()
    outputs.logits[0, 0, 0].backward()
    assert all(tensor.grad is not None for tensor in kept)


def test_checkpointing_trains_with_a_frozen_embedding(model, input_ids):
    """As LoRA does: no parameter below needs a gradient, so the embedding's output must ask for one."""
    model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model.enable_input_require_grads()
    model.requires_grad_(False)
    query = model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    model(input_ids, labels=input_ids).loss.backward()
    assert query.grad.abs().max() > 0


def test_a_batch_is_learned_by_heart(make_model, kind, input_ids):
    model = make_model(**kind, initializer_range=0.02).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(input_ids, labels=input_ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.2  # from 4.6
    generated = model.eval().generate(input_ids[:, :3], max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(generated, input_ids)


# --- embeddings and weights


def test_resizing_the_vocabulary_keeps_what_there_was(model, input_ids, tmp_path):
    before = model(input_ids).logits
    model.resize_token_embeddings(103, mean_resizing=False)
    outputs = model(input_ids, labels=input_ids)
    assert outputs.logits.shape == (2, 11, 103)
    assert_close(outputs.logits[..., :97], before)
    assert model.config.vocab_size == model.lm_head.out_features == 103
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied is model.config.tie_word_embeddings

    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path)(input_ids).logits, outputs.logits)
    model.resize_token_embeddings(97)
    assert_close(model(input_ids).logits, before)


def test_embeddings_can_be_exchanged(model):
    new = torch.nn.Embedding(97, 32)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is model.model.embed_tokens is new
    head = torch.nn.Linear(32, 97, bias=False)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is model.lm_head is head


def test_weights_that_a_file_lacks_are_initialised_as_new_ones(make_model, kind, tmp_path):
    """Built on the meta device, where what is missing holds garbage."""
    model = make_model(**kind, initializer_range=0.02)
    torch.nn.init.constant_(model.model.norm.weight, 9.0)
    model.save_pretrained(tmp_path, state_dict={"model.norm.weight": model.model.norm.weight})
    loaded = type(model).from_pretrained(tmp_path)
    assert (loaded.model.norm.weight == 9).all()
    for name, parameter in loaded.named_parameters():
        if name == "model.norm.weight":
            continue
        if "norm" in name or name.endswith("bias"):
            assert (parameter == float(name.endswith("weight"))).all(), name
        else:
            is_scaled = name.endswith(("o_proj.weight", "down_proj.weight"))
            assert parameter.std().item() == pytest.approx(0.01 if is_scaled else 0.02, rel=0.1), name


def test_a_vocabulary_of_another_size_is_refused_unless_asked_for(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        type(model).from_pretrained(tmp_path, vocab_size=50)
    loaded = type(model).from_pretrained(tmp_path, vocab_size=50, ignore_mismatched_sizes=True)
    assert loaded.lm_head.weight.shape == (50, 32)
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight)
