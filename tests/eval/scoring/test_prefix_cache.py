"""Prompts read once for many answers: the same numbers on every kind of attention and cache."""

import inspect

import pytest
import torch
import transformers

from tests.eval import tiny
from tidy_stlms.eval.models.inputs import cache_name
from tidy_stlms.eval.scoring import prefix_cache, scorer
from tidy_stlms.eval.scoring.budget import Budget
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.scoring.passes import plan_prompts
from tidy_stlms.eval.scoring.scorer import Item, score

NOTICE = "cannot be shared among answers"
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


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch):
    """Sharing is tried, however little there is to score."""
    monkeypatch.setattr(scorer._Scoring, "_gains", lambda *_: True)


def plainly(model, tokenizer, items, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(scorer._Scoring, "_gains", lambda *_: False)
        return score(model, tokenizer, items)


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-4)
        assert ours.token_ranks == theirs.token_ranks
        assert ours.greedy_match == theirs.greedy_match


@pytest.fixture
def n_shared(monkeypatch):
    """How many rows were read behind cached ones, as a list of counts."""
    counts = []

    def counting(model, rows, pad_id, keep, *, behind=None, which=()):
        if behind is not None:
            counts.append(len(rows))
        return prefix_cache.read(model, rows, pad_id, keep, behind=behind, which=which)

    monkeypatch.setattr(scorer, "read", counting)
    return counts


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_plain_way(name, tokenizer, items, monkeypatch, n_shared, caplog):
    model = build(name, len(tokenizer))
    expected = plainly(model, tokenizer, items, monkeypatch)
    assert not n_shared
    for batch_tokens in (None, 60):
        assert_equal(score(model, tokenizer, items, batch_tokens=batch_tokens), expected)
    assert sum(n_shared) >= 2 * 40
    assert not caplog.text


def test_attention_written_out(tokenizer, items, monkeypatch, n_shared):
    model = tiny.llama(len(tokenizer), attn_implementation="eager")
    assert_equal(score(model, tokenizer, items), plainly(model, tokenizer, items, monkeypatch))
    assert n_shared


def test_behind_an_adapter(tokenizer, items, monkeypatch, n_shared):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.llama(len(tokenizer)), LoraConfig(target_modules=["q_proj"]))
    assert_equal(score(model, tokenizer, items), plainly(model, tokenizer, items, monkeypatch))
    assert n_shared


def test_in_bfloat16(tokenizer, items, n_shared, caplog):
    model = tiny.llama(len(tokenizer)).bfloat16()
    score(model, tokenizer, items)
    assert n_shared
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
def test_other_caches_are_found_out(name, tokenizer, items, n_shared, caplog):
    model = recurrent(name, len(tokenizer))
    items = items[:4]
    found = score(model, tokenizer, items)
    assert not n_shared
    assert caplog.text.count(NOTICE) == 1
    assert_equal(found, score(model, tokenizer, items, batch_tokens=1))


@pytest.mark.parametrize("broken", ["forgets", "repeats the first", "repeats nothing", "one cache for all"])
def test_a_cache_that_is_silently_wrong_is_found_out(broken, tokenizer, items, monkeypatch, n_shared, caplog):
    model = tiny.llama(len(tokenizer))
    expected = plainly(model, tokenizer, items, monkeypatch)
    if broken == "forgets":
        forward = model.forward

        def forgetful(*args, **kwargs):
            return forward(*args, **{**kwargs, cache_name(model): None})

        forgetful.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(model, "forward", forgetful)
    elif broken.startswith("repeats"):
        select = transformers.DynamicCache.batch_select_indices
        wrong = {"repeats the first": lambda at: at * 0, "repeats nothing": torch.unique}[broken]
        monkeypatch.setattr(
            transformers.DynamicCache, "batch_select_indices", lambda self, at: select(self, wrong(at))
        )
    else:  # a second answer sees the first one
        monkeypatch.setattr(prefix_cache.copy, "copy", lambda cache: cache)
    assert_equal(score(model, tokenizer, items), expected)
    assert not n_shared
    assert NOTICE in caplog.text


def test_a_model_without_logits_to_keep(tokenizer, items, monkeypatch, n_shared):
    model = tiny.llama(len(tokenizer))
    expected = plainly(model, tokenizer, items, monkeypatch)

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
    assert_equal(score(model, tokenizer, items), expected)
    assert n_shared


def test_models_that_read_padding_share_among_prompts_of_one_length(tokenizer, items, monkeypatch, n_shared):
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
    expected = score(model, tokenizer, items, batch_tokens=1)
    n_shared.clear()
    assert_equal(score(model, tokenizer, items), expected)
    assert n_shared


def test_one_call_for_answers_of_one_token_and_none_for_trying(tokenizer, monkeypatch):
    model, calls = tiny.llama(len(tokenizer)), []
    model.register_forward_hook(lambda *_: calls.append(1))
    cities = [
        city for city in tiny.CITIES if len(tokenizer.encode(f" {city}", add_special_tokens=False)) == 1
    ]
    assert len(cities) > 3
    monkeypatch.undo()
    score(model, tokenizer, [Item("Ada Lopez was born in", cities)])
    assert len(calls) == 1


def test_keys_and_values_stay_within_their_bytes(tokenizer, items, monkeypatch, n_shared):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items)
    passes = plan_prompts(encode_items(tokenizer, items))
    _, prompts = prefix_cache.read(model, [one.inputs for one in passes], 0, 1)
    # layers, keys and values, heads, tokens, head_dim, float32
    assert prompts.nbytes() == 2 * 2 * 2 * max(len(one.inputs) for one in passes) * 8 * 4
    n_shared.clear()
    budget = Budget(1024, cache_bytes=5 * prompts.nbytes())
    monkeypatch.setattr(scorer, "default_budget", lambda *_: budget)
    assert_equal(score(model, tokenizer, items), expected)
    assert max(n_shared) <= 8  # of prompts that are shorter than the longest, a few more than 5 fit
