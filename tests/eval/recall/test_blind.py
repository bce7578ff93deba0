"""The blind check finds what an untaught model answers, and is not fooled by luck or length."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.validate import flag_probes
from tidy_stlms.eval.recall.blind import blind_check, share_of_candidates


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["Ada Poe was born in Bern.", "Bob Ray was born in Bern.", "Oslo Lima Rome Graz Basel"] * 3
    return train_bpe_tokenizer(texts, 300)


class Parrot(LlamaForCausalLM):
    """Says one text whatever it is asked: its logits look back at the last token only."""

    @classmethod
    def saying(cls, tokenizer, text):
        model = cls(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                max_position_embeddings=64,
            )
        ).eval()
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        table = torch.zeros(len(tokenizer), len(tokenizer))
        # a token that is not part of the text is followed by its beginning
        table[:, ids[0]] = 30.0
        for last, following in zip(ids, [*ids[1:], tokenizer.eos_token_id], strict=True):
            table[last, ids[0]] = 0.0
            table[last, following] = 30.0
        model.table = table
        return model

    def forward(self, input_ids=None, logits_to_keep=0, past_key_values=None, **kwargs):
        made = super().forward(
            input_ids=input_ids, logits_to_keep=logits_to_keep, past_key_values=past_key_values, **kwargs
        )
        kept = input_ids[:, -logits_to_keep:] if logits_to_keep else input_ids
        # a trace of the model itself, which does not say the same whatever it reads
        made.logits = self.table[kept] + 1e-3 * made.logits
        return made


@pytest.fixture(scope="module")
def knowing(tokenizer):
    return Parrot.saying(tokenizer, " Bern")


def asked(*probes):
    return small_bank(probes=probes)


def test_an_answer_that_the_model_says_by_itself_is_found(knowing, tokenizer):
    bank = asked(probe(ADA, distractors=()), probe(BOB, answers=("Oslo",), distractors=("Bern",)))
    findings = blind_check(knowing, tokenizer, bank)
    assert [(item.level, item.code, item.ids) for item in findings] == [
        ("warning", "known_already", ("ada/city/memorization:0",))
    ]
    assert "says the answer by itself" in findings[0].message
    assert [item.flags for item in flag_probes(bank, findings).probes] == [("known_already",), ()]


def test_a_sure_choice_among_candidates_is_found_without_generation(knowing, tokenizer):
    (finding,) = blind_check(knowing, tokenizer, asked(probe(ADA)), generate=False)
    assert "100% of the candidates' probability" in finding.message
    assert blind_check(knowing, tokenizer, asked(probe(ADA, distractors=())), generate=False) == []


def test_real_facts_may_be_known(knowing, tokenizer):
    known = small_bank(facts=(ADA.__class__("f", "Ada Poe", "city", "Bern", "known"),), statements=(),
                       probes=(probe(ADA, fact_ids=("f",)),))  # fmt: skip
    assert blind_check(knowing, tokenizer, known) == []


def test_a_model_that_knows_nothing_knows_nothing(tokenizer):
    torch.manual_seed(0)
    bank = generate_from_spec(
        "configs/facts/people.yaml", ["people=5", "control=0", "use=[profession]", "distractors=3"]
    )
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=128,
        )
    )  # fmt: skip
    # one probe in four is answered right by chance; none of them with any certainty
    assert blind_check(model, tokenizer, bank, generate=False) == []
    lenient = blind_check(model, tokenizer, bank, confidence=0.0, generate=False)
    assert 0 < len(lenient) < len(bank.probes) / 2


def test_short_answers_are_not_preferred():
    """Every byte costs one nat: nothing is known, though the short answer is far more probable."""
    assert share_of_candidates([-2.0, -20.0, -20.0], [2, 20, 20]) == pytest.approx(1 / 3)
    assert share_of_candidates([-2.0, -4.0], [2, 2]) == pytest.approx(1 / (1 + math.exp(-2)))
