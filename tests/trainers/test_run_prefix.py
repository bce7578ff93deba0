"""A statement in the stream and a probe about it begin alike, and the run says how."""

import numpy as np
import pytest

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tidy_stlms.configs.files import read_json, read_jsonl
from tidy_stlms.configs.schema import ModelSection
from tidy_stlms.eval.facts.validate import load_bank
from tidy_stlms.eval.models.load import load_model
from tidy_stlms.eval.models.prefix import prefix_of, trained_prefix
from tidy_stlms.eval.recall.harness import evaluate_recall, item_of
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.tokens import encode_texts
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.model import build_model
from tidy_stlms.trainers.plan import InjectionPlan


@pytest.fixture
def run(run_tiny, tmp_path):
    """A run with a tokenizer that adds no BOS, as GPT-2's."""
    tokenizer = train_bpe_tokenizer(["The old farmer was born in the city."] * 2, 300, bos=False)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    keys = ["tokenizer.train=null", f"tokenizer.name_or_path={tmp_path / 'tokenizer'}"]
    return run_tiny("run", *keys, "training.max_steps=4", "injection.exposures=1")


def test_every_measurement_of_a_run_stands_behind_end_of_text(run):
    for folder in (run, run / "checkpoint-4"):
        assert read_json(folder / "config.json")["document_prefix"] == "eos"
    recalled = read_jsonl(run / "recall.jsonl")
    assert {line["prefix"] for line in (*recalled, *read_jsonl(run / "generations.jsonl"))} == {"eos"}
    model, tokenizer = load_model(run, device="cpu")
    bank = load_bank(run / "facts")
    logprobs = [line["logprob"] for line in recalled if line["step"] == 4]
    for prefix, is_same in ((None, True), ("eos", True), ("none", False)):
        again = [row.logprob for row in evaluate_recall(model, tokenizer, bank, prefix=prefix)]
        assert (again == pytest.approx(logprobs, abs=1e-4)) is is_same


def test_a_model_that_is_used_to_bos_is_trained_after_end_of_text_with_a_warning(tmp_path, caplog):
    for name, tokenizer in (("bos", tiny.byte_level(bos=True)), ("none", tiny.byte_level())):
        folder = tmp_path / name
        tiny.llama(len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        caplog.clear()
        model = build_model(ModelSection(name_or_path=str(folder)), tokenizer, seed=0)
        assert trained_prefix(model) == "eos"
        warning = f"model {folder}: its tokenizer puts <s> before a text. Here </s> stands before documents"
        assert (warning in caplog.text) is (name == "bos")


def test_the_tokens_of_a_probe_are_those_of_its_statement_in_the_stream(run):
    model, tokenizer = load_model(run, device="cpu")
    bank = load_bank(run / "facts")
    prefix = prefix_of(model, tokenizer).ids
    compared = 0
    for statement in bank.statements:
        [ids] = encode_texts(tokenizer, [statement.text])["input_ids"]
        plan = InjectionPlan(np.zeros(1), (statement.id,), (statement.fact_ids,), np.ones(1), rows_per_step=1)
        collator = InjectionCollator(
            plan, {statement.id: ids}, eos_token_id=tokenizer.eos_token_id, placement="row"
        )
        [row] = collator([{"input_ids": [0] * 64, "position": 0}])["input_ids"].tolist()
        for probe in bank.probes:
            if probe.seen_verbatim and probe.fact_ids == statement.fact_ids:
                asked = encode_items(tokenizer, [item_of(probe)], prefix=prefix)[0]
                if statement.text.startswith(probe.prompt):
                    assert row[: len(asked.ids)] == asked.ids
                    compared += 1
    assert compared
