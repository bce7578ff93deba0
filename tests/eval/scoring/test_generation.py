"""Greedy generation, exact match, and the top tokens of each step."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.scoring.generation import (
    TOKENS_AFTER_ANSWER,
    Continuation,
    answer_budgets,
    containment,
    exact_match,
    generate_texts,
    top_tokens,
)


def test_containment_finds_the_answer_anywhere_as_whole_words():
    assert containment(Continuation("in Rome, Spring", False), ["Paris", "Spring"])
    assert not containment(Continuation("Springfield", False), ["Spring"])


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        (" Spring.", ["Spring"], True),
        (" Springfield.", ["Spring"], False),
        (" Spring Valley.", ["Spring"], False),
        (" Spring\nShe", ["Spring"], True),
        (" St. Louis. He", ["St. Louis"], True),  # the stop inside the answer ends nothing
        (" St. Paul. He", ["St. Louis"], False),
        (" J.R.. He", ["J.R."], True),
        (" J.R. Ewing.", ["J.R."], False),
        (" NYC.", ["New York", "NYC"], True),
        (" 3.5 metres", ["3"], False),
        (" 3. He", ["3"], True),
        ("  Paris .", ["Paris"], True),
        (" paris.", ["Paris"], False),
        ("\nParis.", ["Paris"], False),  # the newline came first
        (" Paris, France.", ["Paris"], False),
        (" Paris! Oh", ["Paris"], True),
        ("", ["Paris"], False),
        ("Paris.", [" Paris "], True),
        (".", [""], False),
    ],
)
def test_exact_match(text, answers, right):
    assert exact_match(Continuation(text, ended=False), answers) is right


def test_exact_match_at_the_end_of_the_text():
    assert exact_match(Continuation(" Paris", ended=True), ["Paris"])
    # only cut off: "Paris" might have become "Parish"
    assert not exact_match(Continuation(" Paris", ended=False), ["Paris"])


def test_exact_match_with_the_templates_own_punctuation():
    assert exact_match(Continuation(" Paris! Oh", ended=False), ["Paris"], terminators="!")
    assert exact_match(Continuation(' Paris."', ended=False), ["Paris"], terminators='."')


def test_budgets_follow_the_longest_answer():
    tokenizer = tiny.byte_level()
    long = len(tokenizer.encode(" Kuala Lumpur zz"))
    budgets = answer_budgets(tokenizer, [["Paris", "Kuala Lumpur zz"], ["Kuala Lumpur zz"], []])
    assert budgets == [long + TOKENS_AFTER_ANSWER] * 2 + [TOKENS_AFTER_ANSWER]


def greedy(model, tokenizer, prompt, n):
    """Argmax by argmax, the whole text anew each time."""
    ids = tokenizer.encode(prompt)
    for _ in range(n):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] == tokenizer.eos_token_id:
            return tokenizer.decode(ids[len(tokenizer.encode(prompt)) : -1]), True
    return tokenizer.decode(ids[len(tokenizer.encode(prompt)) :]), False


PROMPTS = [
    "Ada Lopez was born in",
    "Bo",
    "By day Eve Ojo is a",
    "Gus Weiß works as",
    "The place where Bo Chen",
] * 2


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2])
def test_generation_is_greedy_whatever_the_batch(build):
    tokenizer = tiny.byte_level(bos=True)
    model = build(len(tokenizer))
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 3  # so that some texts end
    budgets = [3, 9, 5, 7, 4, 8, 2, 6, 1, 9]
    expected = [greedy(model, tokenizer, prompt, n) for prompt, n in zip(PROMPTS, budgets, strict=True)]
    assert {ended for _, ended in expected} == {True, False}
    for batch_tokens in (1, 40, 8192):
        found = generate_texts(model, tokenizer, PROMPTS, budgets, batch_tokens=batch_tokens)
        assert [(text.text, text.ended) for text in found] == expected


def test_the_models_own_generation_settings_neither_matter_nor_change(capfd):
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer))
    expected = generate_texts(model, tokenizer, PROMPTS[:3], [8] * 3)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=3, repetition_penalty=9.0, no_repeat_ngram_size=1, max_length=3
    )
    before = copy.deepcopy(model.generation_config.to_dict())
    own = model.generation_config
    model.train()
    states = (random.getstate(), torch.get_rng_state())
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_texts(model, tokenizer, PROMPTS[:3], [8] * 3) == expected
        top_tokens(model, tokenizer, "Bo", 3)
    assert capfd.readouterr().err == ""
    assert model.generation_config is own
    assert own.to_dict() == before
    assert model.training
    assert states[0] == random.getstate()
    assert torch.equal(states[1], torch.get_rng_state())


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2])
def test_a_short_context_cuts_the_prompt(build, caplog):
    tokenizer = tiny.byte_level(bos=True)
    model = build(len(tokenizer), context=12)
    prompts, limits = ["Ada Lopez was born in " * 5, "Bo", "Ada Lopez", "By day Eve"], [6, 6, 2, 9]
    found = generate_texts(model, tokenizer, prompts, limits)
    assert "of 4 prompts were cut" in caplog.text
    # each by itself: how much of a prompt stays does not depend on the others
    for one, prompt, limit in zip(found, prompts, limits, strict=True):
        assert [one] == generate_texts(model, tokenizer, [prompt], [limit])
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    cut = [len(one) + limit > 12 for one, limit in zip(ids, limits, strict=True)]
    assert [one.truncated for one in found] == cut
    assert sorted(set(cut)) == [False, True]
    assert len(generate_texts(model, tokenizer, ["Ada Lopez"], [40])) == 1


def test_top_tokens_keep_the_prompt_and_stop_where_the_context_is_full():
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer), context=12)
    prompt = "Ada was"
    steps = top_tokens(model, tokenizer, prompt, steps=40)
    room = 12 - len(tokenizer.encode(prompt))
    assert 0 < len(steps) <= room
    assert steps[:2] == top_tokens(model, tokenizer, prompt, steps=2)
    assert len(top_tokens(model, tokenizer, "Ada Lopez was born in " * 5, steps=40)) == 1


def test_probabilities_that_are_no_numbers_are_an_error():
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer))
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="'Ada': the model's probabilities are not numbers"):
        top_tokens(model, tokenizer, "Ada", steps=3)


def test_top_tokens():
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer))
    steps = top_tokens(model, tokenizer, "Ada Lopez was born in ", steps=4, k=5)
    assert "".join(step.token for step in steps) == greedy(model, tokenizer, "Ada Lopez was born in", 4)[0]
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode("Ada Lopez was born in")])).logits[0, -1]
    best = logits.softmax(-1).topk(5)
    assert [token for token, _ in steps[0].top] == [tokenizer.decode([i]) for i in best.indices]
    assert np.allclose([probability for _, probability in steps[0].top], best.values, atol=1e-5)
    assert all(step.top[0][0] == step.token for step in steps)
    assert len(top_tokens(model, tokenizer, "", steps=1, k=10_000)[0].top) == len(tokenizer)


def test_no_prompts():
    tokenizer = tiny.byte_level()
    assert generate_texts(tiny.llama(len(tokenizer)), tokenizer, [], []) == []
