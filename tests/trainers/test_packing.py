"""Documents kept apart: which models can, found by trying it out, and what their batches hold."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import modeling_stlm  # noqa: F401  registers its model types
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json
from tidy_stlms.configs.schema import STLMTrainingArguments
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.packing import (
    DIFFERS_FROM_ALONE,
    SCALES_WITH_LENGTH,
    SEES_OTHERS,
    SPLIT_BY_GPU,
    Packing,
    choose_packing,
    document_positions,
)

EOS, WINDOW = 2, 24
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": EOS,
}
LLAMA = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")} | {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
APART = {
    "stlm": LLAMA,
    "stlm learned": {**LLAMA, "position_embedding_type": "learned"},
    "stlm sinusoidal": {**LLAMA, "position_embedding_type": "sinusoidal"},
    "stlm_byte": {
        **LLAMA,
        "vocab_size": 258,
        "byte_hidden_size": 16,
        "byte_intermediate_size": 24,
        "num_byte_attention_heads": 2,
    },
    "llama": LLAMA,
    "gpt2": SHAPE,
    "gpt_neox": {**SHAPE, "intermediate_size": 48},
    "mistral": {**LLAMA, "sliding_window": 4},
    "qwen2": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 8},
    "qwen3_moe": {**LLAMA, **EXPERTS, "head_dim": 8},
    "phi": {**LLAMA, "num_key_value_heads": 4},
    "olmo2": LLAMA,
    "gemma2": {**LLAMA, "head_dim": 8, "sliding_window": 4},
    "gemma3_text": {**LLAMA, "head_dim": 8, "sliding_window": 4},
    "granite": LLAMA,
    "cohere": LLAMA,
    "lfm2 of attention": LLAMA,  # its convolutions leak, and here it has none
}
JOINED = {
    "opt": {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "xglm": {
        "vocab_size": 64,
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "lfm2": {**LLAMA, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **LLAMA,
        **EXPERTS,
        **LINEAR,
        "head_dim": 8,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "rwkv": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "mamba": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
    },
}


def build(name, fields=None, attention=None):
    fields = {**APART, **JOINED}[name] if fields is None else fields
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name.split()[0]](**fields)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


@pytest.fixture
def args(tmp_path):
    return STLMTrainingArguments(output_dir=str(tmp_path), use_cpu=True)


def row_of_documents(length, lengths, vocabulary=64, seed=0):
    """A row (length,) in which end-of-text stands after that many tokens each."""
    row = np.random.default_rng(seed).integers(3, vocabulary, length)
    for end in np.cumsum(lengths):
        row[end] = EOS
    return row


def test_positions_restart_at_each_end_of_text():
    rows = torch.tensor([[7, 7, EOS, 7, 7, EOS, EOS], [EOS, 7, 7, 7, 7, 7, EOS], [7] * 7])
    expected = [[0, 1, 0, 1, 2, 0, 0], [0, 1, 2, 3, 4, 5, 0], [0, 1, 2, 3, 4, 5, 6]]
    assert document_positions(rows, EOS).tolist() == expected


@pytest.mark.parametrize("name", APART)
def test_these_keep_documents_apart(name, args):
    assert choose_packing(None, build(name), args, WINDOW) == Packing("apart")


@pytest.mark.parametrize("name", JOINED)
def test_these_models_leak(name, args):
    model = build(name)
    packing = choose_packing(None, model, args, WINDOW)
    assert (packing.name, packing.one_row) == ("joined", False)
    assert packing.reason is not None
    with pytest.raises(UserError, match=r"data\.packing=apart: .* set data\.packing=joined"):
        choose_packing("apart", model, args, WINDOW)
    assert choose_packing("joined", model, args, WINDOW) == Packing("joined")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["stlm", "gpt2", "gemma3_text"])
def test_every_attention_keeps_apart_and_in_half_precision_too(name, attention, args):
    for args.bf16 in (False, True):
        assert choose_packing("apart", build(name, attention=attention), args, WINDOW).name == "apart"


def test_a_leak_is_found_in_half_precision_too(args):
    args.bf16 = True
    for name in ("lfm2", "xglm", "bloom"):
        assert choose_packing(None, build(name), args, WINDOW).reason in (SEES_OTHERS, DIFFERS_FROM_ALONE)


@pytest.mark.parametrize("window", [2, 3, 5, WINDOW])
def test_a_short_row_is_enough(window, args):
    assert choose_packing(None, build("llama"), args, window).name == "apart"
    assert choose_packing(None, build("mamba"), args, window).name == "joined"


def test_a_model_whose_layers_do_nothing_yet_is_found_out(args):
    """As with a residual path that is initialised with zeros: before training no token sees another."""
    for last in (("out_proj", "fc2"), ("embed_tokens",)):  # its head is tied to the embedding
        model = build("opt")
        for name, parameter in model.named_parameters():
            if any(part in name for part in last):
                torch.nn.init.zeros_(parameter)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        assert choose_packing(None, model, args, WINDOW).name == "joined"
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
    model = build("llama")
    for name, parameter in model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            torch.nn.init.zeros_(parameter)
    assert choose_packing(None, model, args, WINDOW) == Packing("apart")


def test_a_model_that_embeds_by_itself_is_tried_all_the_same(args, monkeypatch):
    model = build("llama")
    forward = type(model).forward

    def by_itself(self, input_ids, **kwargs):
        embedded = torch.nn.functional.embedding(input_ids, self.model.embed_tokens.weight)
        return forward(self, inputs_embeds=embedded, **kwargs)

    monkeypatch.setattr(type(model), "forward", by_itself)
    assert choose_packing(None, model, args, WINDOW) == Packing("apart")


@pytest.mark.parametrize(
    "rope", [{"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "longrope", "factor": 2.0}]
)
def test_positions_that_depend_on_the_longest_document_do_not_keep_documents_apart(args, rope):
    """The rotary frequencies change where a document of the batch is longer than the model once was."""
    factors = dict.fromkeys(("short_factor", "long_factor"), [1.0] * 4)  # half the head's size
    rope = {**rope, **(factors if rope["rope_type"] == "longrope" else {})}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 32}
    model = build("llama", {**LLAMA, "rope_parameters": rope})
    assert choose_packing(None, model, args, 32) == Packing("apart")
    assert choose_packing(None, model, args, 64) == Packing("joined", reason=SCALES_WITH_LENGTH)


def test_a_model_that_masks_without_restarting_positions_leaks(args, monkeypatch):
    """Documents that do not see each other, but stand at other positions than alone."""
    model = build("gpt2")
    table = model.transformer.wpe
    monkeypatch.setattr(
        table, "forward", lambda ids: torch.nn.functional.embedding(torch.arange(ids.shape[-1]), table.weight)
    )
    packing = choose_packing(None, model, args, WINDOW)
    assert packing == Packing("joined", reason=DIFFERS_FROM_ALONE)


def test_a_model_that_refuses_position_ids_joins(args, monkeypatch):
    model = build("llama")
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids: forward(input_ids=input_ids))
    assert "position_ids" in choose_packing(None, model, args, WINDOW).reason


def test_the_cache_leaks_and_the_error_says_so(args):
    args.use_cache = True
    with pytest.raises(UserError, match=r"set training\.use_cache=false or data\.packing=joined"):
        choose_packing("apart", build("llama"), args, WINDOW)


def test_the_experiment_leaves_no_trace(args):
    model = build("stlm", {**LLAMA, "resid_dropout": 0.5}).train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    torch.manual_seed(3)
    random.seed(3)
    states = (torch.get_rng_state(), random.getstate(), model.config.use_cache)
    choose_packing(None, model, args, WINDOW)
    assert [module.training for module in model.modules()] == modes
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), model.config.use_cache) == states[1:]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


@pytest.fixture
def flash():
    """An attention that keeps documents apart in a batch of one row only, as transformers' flash."""

    def mask(batch_size, *args, **kwargs):
        return None if batch_size > 1 else sdpa_mask(batch_size, *args, **kwargs)

    AttentionInterface.register("flash_imitation", sdpa_attention_forward)
    AttentionMaskInterface.register("flash_imitation", mask)
    return "flash_imitation"


@pytest.mark.parametrize("name", ["llama", "stlm"])
def test_flash_attention_is_given_one_row(name, flash, args):
    model = build(name)
    model.config._attn_implementation = flash
    assert choose_packing(None, model, args, WINDOW) == Packing("apart", one_row=True)
    args._n_gpu = 2
    assert choose_packing(None, model, args, WINDOW) == Packing("joined", reason=SPLIT_BY_GPU)


def test_a_recurrent_model_leaks_in_one_row_too(flash, args):
    model = build("lfm2")
    model.config._attn_implementation = flash
    assert choose_packing(None, model, args, WINDOW) == Packing("joined", reason=SEES_OTHERS)


def test_one_row_has_the_loss_of_the_batch(flash):
    rows = [{"input_ids": row_of_documents(WINDOW, lengths)} for lengths in ([5, 9], [11], [0, 3, 8])]
    batch = InjectionCollator(eos_token_id=EOS, packing=Packing("apart"))(rows)
    flat = InjectionCollator(eos_token_id=EOS, packing=Packing("apart", one_row=True))(rows)
    assert set(flat) == {"input_ids", "labels", "position_ids"}
    assert {tuple(tensor.shape) for tensor in flat.values()} == {(1, 3 * WINDOW)}
    predicted = [int((b["labels"][:, 1:] != -100).sum()) for b in (batch, flat)]
    assert predicted == [3 * (WINDOW - 1)] * 2
    model = build("llama")
    model.config.use_cache = False
    with torch.no_grad():
        expected = model(**batch).loss
        model.config._attn_implementation = flash
        actual = model(**flat).loss
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["stlm", "stlm_byte", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_document_of_a_batch_has_the_logits_of_itself_alone(name, checkpointing):
    """In train mode, in a batch and in a row by itself; a document behind its end-of-text alone."""
    model = build(name).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.config.use_cache = False
    rows = [{"input_ids": row_of_documents(WINDOW, lengths)} for lengths in ([5, 9], [11])]
    collator = InjectionCollator(eos_token_id=EOS, packing=Packing("apart"))
    batch = collator(rows)
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    logits = model(**batch).logits
    for number, row in enumerate(rows):
        alone_in_batch = model(**collator([row])).logits
        torch.testing.assert_close(alone_in_batch[0], logits[number], rtol=1e-4, atol=1e-5)
        starts = [0, *np.flatnonzero(row["input_ids"] == EOS).tolist(), WINDOW]
        for start, end in itertools.pairwise(starts):
            alone = model(input_ids=batch["input_ids"][number : number + 1, start:end]).logits[0]
            torch.testing.assert_close(logits[number, start:end], alone, rtol=1e-4, atol=1e-5)


def test_a_run_of_a_model_that_leaks_joins_and_says_so_once(run_tiny, caplog):
    model = ["model.config=null", "model.type=mpt", "model.config={d_model: 32, n_layers: 1, n_heads: 2}"]
    short = ["data.context_window=64", "training.max_steps=1", "injection.enabled=false"]
    folder = run_tiny("run", *model, *short, "evaluation.recall_steps=0", "evaluation.prompts=[]")
    notices = [record.getMessage() for record in caplog.records if "packing" in record.getMessage()]
    assert len(notices) == 1
    assert "a model of type mpt cannot keep documents apart" in notices[0]
    assert read_json(folder / "environment.json")["stream"]["packing"] == "joined"
    assert "`joined`, each document of a row" in (folder / "report.md").read_text()
