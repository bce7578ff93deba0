from msgspec.structs import replace

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval.facts.bank_files import ADA, BOB, probe, small_bank, statement
from tidy_stlms.eval.facts.summary import bank_summary, token_lengths


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
