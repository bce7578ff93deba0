"""The byte-pooled model in use: generated from, scored by the harness, saved and loaded."""

import json
import os
import subprocess
import sys

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM

from modeling_stlm import STLMByteForCausalLM, STLMByteModel
from modeling_stlm.tokenization_stlm import byte_tokenizer
from tests.modeling_stlm.byte_examples import END, FAMILY, PAD, TEXTS, ids_of, make_byte_model
from tidy_stlms.eval.models.inputs import pads_safely
from tidy_stlms.eval.scoring.generation import generate_texts
from tidy_stlms.eval.scoring.scorer import Item, score


@pytest.fixture(scope="module")
def model() -> STLMByteForCausalLM:
    return make_byte_model()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@torch.no_grad()
def argmax_loop(model, ids: list[int], n_new: int) -> list[int]:
    for _ in range(n_new):
        ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_generation_equals_an_argmax_loop(model, use_cache):
    rows = [ids_of("The cat"), ids_of("naïve 東")]
    width = max(map(len, rows))
    generated = model.generate(
        torch.tensor([[PAD] * (width - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        max_new_tokens=8,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
    )
    for row, own in zip(rows, generated.tolist(), strict=True):
        assert own[width - len(row) :] == argmax_loop(model, row, 8)


def test_sampling_and_beams(model):
    input_ids = torch.tensor([ids_of("The cat"), ids_of("A dog's")])

    def generate(**options) -> torch.Tensor:
        torch.manual_seed(3)
        return model.generate(input_ids, max_new_tokens=6, eos_token_id=None, **options)

    for options in ({"do_sample": True}, {"do_sample": False, "num_beams": 3}):
        assert torch.equal(generate(use_cache=True, **options), generate(use_cache=False, **options))

    def logprob(sequences: torch.Tensor) -> torch.Tensor:
        logprobs = model(sequences).logits[:, :-1].log_softmax(-1).gather(-1, sequences[:, 1:, None])[..., 0]
        return logprobs[:, input_ids.shape[1] - 1 :].sum(dim=-1)

    output = generate(do_sample=False, num_beams=20, return_dict_in_generate=True, output_scores=True)
    torch.testing.assert_close(logprob(output.sequences) / 6, output.sequences_scores, atol=1e-4, rtol=0)
    assert (logprob(output.sequences) > logprob(generate(do_sample=False)) - 1e-4).all()


def test_scored_by_the_harness(model, tokenizer, caplog):
    items = [
        Item("Zoë Müller was born in", ["Århus", "Paris", "St. John's"]),
        Item("東京 is in", ["日本", "日本国"], suffix="!"),
        Item("", ["Ada", "supercalifragilistic"]),
        Item("The number is ", ["42", "4"]),
    ]
    for batch_tokens in (64, 100_000):
        for item, scores in zip(
            items, score(model, tokenizer, items, batch_tokens=batch_tokens), strict=True
        ):
            context = item.prompt.rstrip()
            for answer, logprob, n_tokens in zip(
                item.candidates, scores.logprobs, scores.n_tokens, strict=True
            ):
                scored = ((" " if context else "") + answer + item.suffix).encode()
                ids = torch.tensor([[END, *context.encode(), *scored]])
                with torch.no_grad():
                    logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
                expected = logprobs.gather(-1, ids[0, 1:, None])[-len(scored) :].sum().item()
                assert n_tokens == len(scored)
                assert logprob == pytest.approx(expected, abs=1e-4)
            assert not scores.straddles
            assert scores.n_bytes == scores.n_tokens
    rows = [ids_of("a"), ids_of(TEXTS[1])]
    assert pads_safely(model, rows, PAD)
    assert not caplog.records  # the harness, too, found that padding is safe


def test_texts_generated_by_the_harness(model, tokenizer):
    prompts = ["The cat", "Zoë", "supercalifragilistic", "x"]
    together = generate_texts(model, tokenizer, prompts, [4, 6, 8, 3])
    for prompt, limit, continuation in zip(prompts, [4, 6, 8, 3], together, strict=True):
        row = ids_of(prompt)
        new = argmax_loop(model, row, limit)[len(row) :]
        new = new[: new.index(END)] if END in new else new
        assert continuation.text == tokenizer.decode(new)


CODE = {
    "configuration_stlm.py",
    "configuration_stlm_byte.py",
    "modeling_stlm.py",
    "modeling_stlm_byte.py",
}


def assert_complete(folder):
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_stlm_byte.STLMByteConfig",
        "AutoModel": "modeling_stlm_byte.STLMByteModel",
        "AutoModelForCausalLM": "modeling_stlm_byte.STLMByteForCausalLM",
    }
    assert {path.name for path in folder.glob("*.py")} == CODE


@pytest.mark.parametrize("overrides", FAMILY)
@torch.no_grad()
def test_load_gives_equal_outputs(tmp_path, overrides):
    model, input_ids = make_byte_model(**overrides), torch.tensor([ids_of(TEXTS[1])])
    model.save_pretrained(tmp_path / "causal")
    model.model.save_pretrained(tmp_path / "base")
    for folder in (tmp_path / "causal", tmp_path / "base"):
        assert_complete(folder)
        causal, base = (cls.from_pretrained(folder) for cls in (AutoModelForCausalLM, AutoModel))
        assert (type(causal), type(base)) == (STLMByteForCausalLM, STLMByteModel)
        if folder.name == "causal" or (model.config.tie_word_embeddings and not model.config.lm_head_bias):
            assert torch.equal(causal(input_ids).logits, model(input_ids).logits)
        assert torch.equal(base(input_ids).last_hidden_state, model.model(input_ids).last_hidden_state)
        tied = causal.lm_head.weight is causal.model.embed_tokens.weight
        assert tied is model.config.tie_word_embeddings


def test_lora_adapter_saves_loads_and_merges(model, tmp_path):
    input_ids = torch.tensor([ids_of(TEXTS[0])])
    model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2, init_lora_weights=False)
    adapted = get_peft_model(base, lora).eval()
    # layers x projections, and the two between bytes and words: the tied head is left alone
    assert len(adapted.targeted_module_names) == (2 + 2 + 2) * 7 + 2
    expected = adapted(input_ids).logits
    assert not torch.allclose(expected, model(input_ids).logits)

    adapted.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(loaded(input_ids).logits, expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(input_ids).logits, expected, atol=1e-4, rtol=1e-4)


# Hides the project's packages, loads the folder by every Auto class, and saves it again.
STRANGER = """
import sys
for room in ("modeling_stlm", "configs", "eval", "trainers", "scripts"):
    sys.modules[room] = None  # any import of it now fails
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

folder, again, out = map(Path, sys.argv[1:])
trust = {"trust_remote_code": True}
assert AutoConfig.from_pretrained(folder, **trust).model_type == "stlm_byte"
tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
causal = AutoModelForCausalLM.from_pretrained(folder, **trust)
base = AutoModel.from_pretrained(folder, **trust)
assert type(causal).__module__.startswith("transformers_modules.")
input_ids = tokenizer("ein fremder Text: ça va 東京", return_tensors="pt").input_ids
outputs = {
    "input_ids": input_ids,
    "logits": causal(input_ids).logits,
    "hidden": base(input_ids).last_hidden_state,
    "generated": causal.generate(input_ids, max_new_tokens=3, do_sample=False),
}
causal.save_pretrained(again)
reloaded = AutoModelForCausalLM.from_pretrained(again, **trust)
assert torch.equal(reloaded(input_ids).logits, outputs["logits"])
torch.save(outputs, out)
"""


def test_opens_where_the_project_is_not_installed(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    arguments = [tmp_path / "model", tmp_path / "again", tmp_path / "outputs.pt"]
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, *map(str, arguments)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    outputs = torch.load(tmp_path / "outputs.pt")
    input_ids = outputs["input_ids"]
    assert input_ids[0].tolist() == [END, *"ein fremder Text: ça va 東京".encode()]
    assert torch.equal(outputs["logits"], model(input_ids).logits)
    assert torch.equal(outputs["hidden"], model.model(input_ids).last_hidden_state)
    assert torch.equal(outputs["generated"], model.generate(input_ids, max_new_tokens=3, do_sample=False))
    assert_complete(tmp_path / "again")
