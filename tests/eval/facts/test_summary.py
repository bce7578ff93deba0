from collections import Counter

import pytest
from msgspec.structs import replace

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank, statement
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.summary import bank_summary, chance_in_words, exact_match_chance, token_lengths


def test_arms_and_flags_are_counted():
    facts = (replace(ADA, arm="once"), replace(BOB, arm="unseen"))
    bank = small_bank(facts=facts, probes=(probe(ADA, flags=("odd",)), probe(BOB)))
    summary = bank_summary(bank)
    assert summary.arms == {"once": 1, "unseen": 1}
    assert summary.flags == {"odd": 1}
    assert summary.forms == {"original": {"control": 1, "injected": 1}}


def test_token_lengths_are_those_of_the_tokenizer():
    tokenizer = train_bpe_tokenizer(["Ada Poe was born in Bern."] * 5, 400)
    long = statement(BOB, text="Bob Ray was born in Bern, and never left it again.", spans={})
    bank = small_bank(
        statements=(statement(ADA), long), probes=(probe(ADA), probe(BOB, answers=("Bernina",)))
    )

    def length(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    lengths = token_lengths(bank, tokenizer)
    texts = [length(item.text) for item in bank.statements]
    assert lengths["statements"] == {"min": texts[0], "median": sum(texts) / 2, "max": texts[1]}
    assert lengths["prompts"]["max"] == max(length(p.prompt) for p in bank.probes)
    # an answer is read with the space before it
    assert lengths["answers"]["min"] == length(" Bern")
    assert lengths["answers"]["max"] == length(" Bernina")


def test_what_the_bank_has_none_of_is_left_out():
    tokenizer = train_bpe_tokenizer(["Ada"], 300)
    assert set(token_lengths(small_bank(statements=()), tokenizer)) == {"prompts", "answers"}


def test_exact_match_by_chance_is_that_of_an_answer_drawn_from_the_injected_ones():
    bank = generate_from_spec(
        "configs/facts/tidy.yaml", ["people=20", "use=[birth_date,profession,company]", "distractors=3"]
    )
    chances = exact_match_chance(bank)
    # 20 people, each with a date and a name of their own
    assert chances["memorization"] == pytest.approx(1 / 20)
    assert chances["reversal"] == pytest.approx(1 / 20)
    # some conclusions are more frequent: a sign that n people have is drawn n times in 20 and asked n times
    expected = []
    for ending in ("in the year", "2010", "sign"):
        counts = Counter(
            p.answers[0]
            for p in bank.probes
            if p.type == "inferential" and ending in p.prompt and bank.role_of(p) == "injected"
        )
        assert counts.total() == 20
        expected.append(sum(n * n for n in counts.values()) / 400)
    assert chances["inferential"] == pytest.approx(sum(expected) / 3)


def test_answers_that_several_people_have_are_drawn_more_often():
    facts = (
        ADA,
        replace(ADA, id="c", subject="Cy Low"),
        replace(ADA, id="d", subject="Di May", object="Rome"),
    )
    bank = small_bank(facts=(*facts, BOB), probes=tuple(probe(fact) for fact in facts))
    assert exact_match_chance(bank) == {"memorization": pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)}
    assert exact_match_chance(small_bank(facts=(BOB,), statements=(), probes=(probe(BOB),))) == {}


def test_chance_in_words():
    assert chance_in_words(0.1, {"memorization": 1 / 16, "semantic": 1 / 16}) == (
        "chance: accuracy 0.10, exact match 0.06"
    )
    assert chance_in_words(0.1, {"memorization": 0.051, "inferential": 0.06, "reversal": 0.049}) == (
        "chance: accuracy 0.10, exact match 0.05 (memorization, reversal), 0.06 (inferential)"
    )
    assert chance_in_words(None, {}) == ""
