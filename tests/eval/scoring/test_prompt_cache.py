"""Prompts read once for many answers: the same numbers on every kind of attention and cache."""

import pytest
import torch
import transformers

from tests.eval import tiny
from tidy_stlms.eval.models.inputs import cache_name
from tidy_stlms.eval.scoring import budget
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.scoring.prompt_cache import forward_with_cache
from tidy_stlms.eval.scoring.scorer import Item, score
from tidy_stlms.eval.scoring.sequences import plan_shared_prompts

NOTICE = "cannot be shared among answers"
# Rows behind a cache in the trial: two for each of two prompts, and two more if padding was the trouble.
TRIAL_ROWS = 6
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
GATED = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
CONFIGS = {
    "llama": ("Llama", GATED),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}),
    "gpt_neox": ("GPTNeoX", {**SHAPE, "intermediate_size": 48, "max_position_embeddings": 128}),
    # windows that the longest prompts do not fit into
    "mistral": ("Mistral", {**GATED, "sliding_window": 6}),
    "gemma2": ("Gemma2", {**GATED, "sliding_window": 6, "head_dim": 8, "final_logit_softcapping": 3.0}),
    "opt": ("OPT", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "mpt": ("Mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
}


def build(name, vocab_size):
    kind, shape = CONFIGS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        **{
            **shape,
            "vocab_size": vocab_size,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def items():
    """Prompts and answers of many lengths."""
    answers = ["Paris", "Kuala Oslo", "St. Chen Lopez", "Springer", "Kuala Oslo Chen", "Zürich"]
    items = [Item(probe.prompt, answers) for probe in tiny.bank().probes][::5]
    few = [Item("Bo", answers[:3]), Item("Ada Lopez is", ["Rome", "Oslo"], suffix=" by birth.")]
    return [*items, *few, Item("Cleo was born in", ["Paris", "Rome", "Oslo"]), Item("Eve is", ["Bo Chen"])]


def assert_equal(scores, expected):
    for ours, theirs in zip(scores, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-4)
        assert ours.token_ranks == theirs.token_ranks
        assert ours.greedy_match == theirs.greedy_match


def cached_rows_of(model):
    """A list that gets the number of rows of each forward pass behind a cache."""
    counts = []

    def count(_model, _args, kwargs):
        if kwargs.get(cache_name(model)) is not None:
            counts.append(len(kwargs["input_ids"]))

    model.register_forward_pre_hook(count, with_kwargs=True)
    return counts


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_plain_way(name, tokenizer, items, caplog):
    model = build(name, len(tokenizer))
    cached_rows = cached_rows_of(model)
    expected = score(model, tokenizer, items, share_prompts=False)
    assert not cached_rows
    for batch_tokens in (None, 60):
        cached_rows.clear()
        shared = score(model, tokenizer, items, share_prompts=True, batch_tokens=batch_tokens)
        assert_equal(shared, expected)
        assert sum(cached_rows) - 2 * 2 >= 40  # besides the trial of two prompts
    assert not caplog.text


def test_attention_written_out(tokenizer, items):
    model = tiny.llama(len(tokenizer), attn_implementation="eager")
    expected = score(model, tokenizer, items, share_prompts=False)
    cached_rows = cached_rows_of(model)
    assert_equal(score(model, tokenizer, items, share_prompts=True), expected)
    assert sum(cached_rows) > TRIAL_ROWS


def test_behind_an_adapter(tokenizer, items):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.llama(len(tokenizer)), LoraConfig(target_modules=["q_proj"]))
    expected = score(model, tokenizer, items, share_prompts=False)
    cached_rows = cached_rows_of(model)
    assert_equal(score(model, tokenizer, items, share_prompts=True), expected)
    assert sum(cached_rows) > TRIAL_ROWS


def test_in_bfloat16(tokenizer, items, caplog):
    model = tiny.llama(len(tokenizer)).bfloat16()
    cached_rows = cached_rows_of(model)
    score(model, tokenizer, items, share_prompts=True)
    assert sum(cached_rows) > TRIAL_ROWS
    assert NOTICE not in caplog.text


def recurrent(name, vocab_size):
    torch.manual_seed(0)
    shape = {"vocab_size": vocab_size, "hidden_size": 32, "num_hidden_layers": 2}
    if name == "rwkv":
        config = transformers.RwkvConfig(**shape, context_length=64)
        model = transformers.RwkvForCausalLM(config)
    elif name == "mamba":
        model = transformers.MambaForCausalLM(transformers.MambaConfig(**shape, state_size=4))
    else:  # convolutions beside attention, in a cache that repeats its attention only
        options = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
        kinds = ["conv", "full_attention"]
        model = transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**shape, **options, layer_types=kinds))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize("name", ["mamba", "rwkv", "lfm2"])
def test_other_caches_are_found_out(name, tokenizer, items, caplog):
    model = recurrent(name, len(tokenizer))
    cached_rows = cached_rows_of(model)
    scores = score(model, tokenizer, items[:4], share_prompts=True)
    assert sum(cached_rows) <= TRIAL_ROWS
    assert caplog.text.count(NOTICE) == 1
    assert_equal(scores, score(model, tokenizer, items[:4], share_prompts=False, batch_tokens=1))


@pytest.mark.parametrize("broken", ["forgets", "repeats the first", "repeats nothing", "one cache for all"])
def test_a_cache_that_is_silently_wrong_is_found_out(broken, tokenizer, items, monkeypatch, caplog):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items, share_prompts=False)
    cached_rows = cached_rows_of(model)
    if broken == "forgets":
        model.register_forward_pre_hook(
            lambda _model, args, kwargs: (args, {**kwargs, cache_name(model): None}), with_kwargs=True
        )
    elif broken.startswith("repeats"):
        select = transformers.DynamicCache.batch_select_indices
        wrong = {"repeats the first": lambda at: at * 0, "repeats nothing": torch.unique}[broken]
        monkeypatch.setattr(
            transformers.DynamicCache, "batch_select_indices", lambda self, at: select(self, wrong(at))
        )
    else:  # a copy is the cache itself: a second answer sees the first one
        for part in (transformers.DynamicCache, transformers.cache_utils.DynamicLayer):
            monkeypatch.setattr(part, "__copy__", lambda self: self, raising=False)
    assert_equal(score(model, tokenizer, items, share_prompts=True), expected)
    assert sum(cached_rows) <= TRIAL_ROWS
    assert NOTICE in caplog.text


def test_a_model_without_logits_to_keep(tokenizer, items):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items, share_prompts=False)

    class Plain(transformers.LlamaForCausalLM):
        def forward(
            self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None
        ):
            kwargs = {
                "position_ids": position_ids,
                "past_key_values": past_key_values,
                "use_cache": use_cache,
            }
            return super().forward(input_ids, attention_mask=attention_mask, **kwargs)

    model.__class__ = Plain
    cached_rows = cached_rows_of(model)
    assert_equal(score(model, tokenizer, items, share_prompts=True), expected)
    assert sum(cached_rows) > TRIAL_ROWS


def test_models_that_read_padding_share_among_prompts_of_one_length(tokenizer, items):
    """Absolute positions that count the padding, as models without `position_ids` have them."""
    model = tiny.gpt2(len(tokenizer))

    class Counting(transformers.GPT2LMHeadModel):
        def forward(
            self, input_ids, attention_mask=None, past_key_values=None, use_cache=None, logits_to_keep=0
        ):
            kwargs = {"past_key_values": past_key_values, "use_cache": use_cache}
            return super().forward(
                input_ids, attention_mask=attention_mask, logits_to_keep=logits_to_keep, **kwargs
            )

    model.__class__ = Counting
    expected = score(model, tokenizer, items, share_prompts=False, batch_tokens=1)
    cached_rows = cached_rows_of(model)
    assert_equal(score(model, tokenizer, items, share_prompts=True), expected)
    assert sum(cached_rows) > TRIAL_ROWS


def test_one_call_for_answers_of_one_token_and_none_for_trying(tokenizer):
    model, calls = tiny.llama(len(tokenizer)), []
    model.register_forward_hook(lambda *_: calls.append(1))
    cities = [
        city for city in tiny.CITIES if len(tokenizer.encode(f" {city}", add_special_tokens=False)) == 1
    ]
    assert len(cities) > 3
    score(model, tokenizer, [Item("Ada Lopez was born in", cities)])
    assert len(calls) == 1


def test_keys_and_values_stay_within_their_bytes(tokenizer, items, monkeypatch):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items, share_prompts=True)
    prompt_ids = [prompt.input_ids for prompt in plan_shared_prompts(encode_items(tokenizer, items))]
    _, prompts = forward_with_cache(model, prompt_ids, 0, 1)
    # layers, keys and values, heads, tokens, head_dim, float32
    assert prompts.bytes_per_prompt() == 2 * 2 * 2 * max(map(len, prompt_ids)) * 8 * 4
    cached_rows = cached_rows_of(model)
    monkeypatch.setattr(budget, "MAX_CACHE_BYTES", 5 * prompts.bytes_per_prompt())
    monkeypatch.setattr(budget, "CPU_PASS_TOKENS", 4096)  # so that all prompts share a batch
    assert_equal(score(model, tokenizer, items, share_prompts=True, batch_tokens=1024), expected)
    assert sum(cached_rows) > TRIAL_ROWS
    assert max(cached_rows) <= 8  # of prompts that are shorter than the longest, a few more than 5 fit
