"""What a model shows before it is measured: the same logits by every way, or how far apart they are."""

import functools

import msgspec
import pytest
import torch
import transformers

from tests.eval import tiny
from tests.eval.scoring.test_prompt_cache import CONFIGS, build
from tidy_stlms.eval.models.inputs import cache_name
from tidy_stlms.eval.scoring.self_check import self_check

PROMPTS = ["Ada Lopez was born in", "Cleo is", "Eve was born in the old town of"]
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_can_do_all_shows_rounding_only(name, tokenizer):
    check = self_check(build(name, len(tokenizer)), tokenizer, PROMPTS)
    assert max(msgspec.to_builtins(check).values()) <= ROUNDING


def test_one_prompt_is_enough(tokenizer):
    model = build("llama", len(tokenizer))
    for prompts in (["A"], [""], ["A", "A"]):
        assert max(msgspec.to_builtins(self_check(model, tokenizer, prompts)).values()) <= ROUNDING


def test_empty_prompts_are_not_read():
    tokenizer = tiny.byte_level()
    tokenizer.eos_token = None  # no token could stand before them
    assert self_check(build("llama", len(tokenizer)), tokenizer, ["", " "]).padding is not None


def test_what_a_model_cannot_do_is_null(tokenizer):
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    torch.manual_seed(0)
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(**shape)).eval()
    check = self_check(mamba, tokenizer, PROMPTS)
    assert check.lookahead == 0
    assert check.shared_prompt is None  # its cache is a state, which cannot be repeated by rows
    assert check.generation is not None


def test_a_wrong_cache_shows(tokenizer, monkeypatch):
    model = build("gpt2", len(tokenizer))
    forward = type(model).forward

    @functools.wraps(forward)  # the harness reads the names of the arguments
    def wrong_behind_a_cache(self, *args, **kwargs):
        cache = kwargs.get(cache_name(model))
        n_cached = cache.get_seq_length() if cache is not None else 0
        output = forward(self, *args, **kwargs)
        if n_cached:
            output.logits = output.logits.roll(1, -1)
        return output

    monkeypatch.setattr(type(model), "forward", wrong_behind_a_cache)
    check = self_check(model, tokenizer, PROMPTS)
    assert (check.lookahead, check.padding) == (0, pytest.approx(0, abs=ROUNDING))
    assert check.shared_prompt > 0.01
    assert check.generation > 0.01
