"""The trial before anything is measured: generation with the cache equals a pass without it."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from modeling_stlm import STLMByteConfig, STLMByteForCausalLM, STLMForCausalLM
from modeling_stlm.modeling_stlm import CACHE
from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.eval import tiny
from tests.eval.tiny import bank, byte_level
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.checks import check_logits
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.scoring.generation_check import check_generation

SIZE = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "initializer_range": 0.3}
PROMPTS = ["Ada", "The place where Ada Lopez came into the world is"]


def stlm(**overrides):
    return tiny.stlm(400, context=64, **overrides)


class Swallows(STLMForCausalLM):
    """A model whose cache has a name that the installed transformers does not use: it goes unread."""

    def forward(self, input_ids=None, **kwargs):
        kwargs.pop(CACHE, None)
        return super().forward(input_ids=input_ids, **kwargs)


MODELS = {
    "stlm": stlm,
    "learned positions": lambda: stlm(position_embedding_type="learned"),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, **HEADS)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_whose_cache_works_pass(kind):
    torch.manual_seed(0)
    check_generation(MODELS[kind]().eval(), byte_level(), PROMPTS)


def test_a_model_without_a_cache_passes():
    torch.manual_seed(0)
    check_generation(STLMByteForCausalLM(STLMByteConfig()).eval(), byte_tokenizer(), PROMPTS)


def test_a_swallowed_cache_is_named_instead_of_figures():
    torch.manual_seed(0)
    model = Swallows(stlm().config).eval()
    with pytest.raises(UserError, match="generation with the cache gives other logits than without it"):
        evaluate_recall(model, byte_level(), bank())
    rows = evaluate_recall(
        model, byte_level(), bank(), generate=False
    )  # nothing is generated: nothing is wrong
    assert all(row.exact_match is None for row in rows)


def test_prompts_as_long_as_the_context_are_cut_for_the_trial():
    check_generation(stlm(max_position_embeddings=8), byte_level(), PROMPTS)
    check_generation(stlm(), byte_level(), [])
    check_generation(stlm(), byte_level(), ["Ada"])


def test_the_trial_leaves_the_model_as_it_was():
    model = stlm(resid_dropout=0.5).train()
    before = torch.get_rng_state()
    check_generation(model, byte_level(), PROMPTS)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_were_lost_are_named():
    model = stlm()
    check_logits(model, "it")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    with pytest.raises(UserError, match="it: it gives all tokens the same probability"):
        check_logits(model, "it")
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="it: its logits are not finite"):
        check_logits(model, "it")


def test_broken_weights_are_not_blamed_on_the_cache():
    model = stlm()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] = float("nan")
    with pytest.raises(UserError, match="its logits are not finite numbers: its weights are broken"):
        evaluate_recall(model, byte_level(), bank())
    with pytest.raises(UserError, match="is not a finite number: its weights are broken"):
        evaluate_recall(model, byte_level(), bank(), check_model=False)


def test_a_model_that_does_not_read_gives_no_figures():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2)
    deaf = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        deaf.transformer.ln_f.weight.zero_()
        deaf.transformer.ln_f.bias.normal_()
    with pytest.raises(UserError, match="it says the same whatever it reads"):
        evaluate_recall(deaf, byte_level(), bank())
