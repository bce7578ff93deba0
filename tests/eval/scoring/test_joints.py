"""Prompts and answers that no space stands between: what is scored and generated is what was trained."""

import json

import pytest
import torch
from msgspec.structs import replace

from modeling_stlm.tokenization_stlm import train_bpe_tokenizer
from tests.eval import tiny
from tests.eval.facts.joint_examples import EXAMPLES, joint_bank
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.recall.harness import evaluate_recall, item_of
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.scoring.generation import TOKENS_AFTER_ANSWER, answer_budgets
from tidy_stlms.eval.scoring.scorer import score
from tidy_stlms.eval.study.prompts import load_prompts, watch_prompt

STATEMENTS = [statement.text for statement in joint_bank().statements]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(STATEMENTS, 300)  # so few that no token reaches over a joint


@pytest.fixture(scope="module")
def model(tokenizer):
    """A tiny STLM that has learnt the statements by heart."""
    return tiny.trained_stlm(tokenizer, STATEMENTS, steps=80)


@pytest.mark.parametrize("kind", ["trained", "merging", "byte level", "metaspace"])
def test_the_tokens_scored_are_those_of_the_trained_text(tokenizer, kind):
    kinds = {
        "trained": lambda: tokenizer,
        "merging": lambda: train_bpe_tokenizer(STATEMENTS, 420),
        "byte level": tiny.byte_level,
        "metaspace": tiny.metaspace,
    }
    tokens = kinds[kind]()
    bank = joint_bank()
    rows = encode_items(tokens, [item_of(probe) for probe in bank.probes])
    of_answers = [row for row in rows if row.candidate == 0]
    assert any(row.straddles for row in of_answers) == (kind in ("merging", "metaspace"))
    for row, probe, statement in zip(of_answers, bank.probes, bank.statements, strict=True):
        assert probe.text() == statement.text[: len(probe.text())]
        ids = tokens.encode(probe.text(), add_special_tokens=False)
        assert row.ids[-len(ids) :] == ids
        if kind != "metaspace":  # whose one piece for all that is unknown swallows 。 too
            whole = tokens.encode(statement.text, add_special_tokens=False)
            assert ids == whole[: len(ids)]


def test_a_space_that_was_not_trained_makes_other_tokens(tokenizer, model):
    right, wrong = (
        [item_of(probe) for probe in bank.probes] for bank in (joint_bank(), joint_bank(joint=" "))
    )
    for one, other, (_, joint, *_) in zip(
        score(model, tokenizer, right), score(model, tokenizer, wrong), EXAMPLES, strict=True
    ):
        if joint == "":
            assert one.logprobs[0] > other.logprobs[0] + 1
            assert one.n_bytes[0] == other.n_bytes[0] - 1
        else:
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_the_score_is_that_of_the_tokens_of_the_statement(tokenizer, model):
    bank = joint_bank()
    scores = score(model, tokenizer, [item_of(probe) for probe in bank.probes])
    rows = [r for r in encode_items(tokenizer, [item_of(p) for p in bank.probes]) if r.candidate == 0]
    for probe, row, found in zip(bank.probes, rows, scores, strict=True):
        ids = torch.tensor([tokenizer.encode(probe.text())])
        assert row.ids == ids[0].tolist()
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(-1, ids[0, 1:, None])[-row.n_scored :].sum().item()
        assert found.logprobs[0] == pytest.approx(own, abs=1e-4)


def test_what_was_learnt_is_said_and_counts_as_the_answer(tokenizer, model):
    rows = evaluate_recall(model, tokenizer, joint_bank())
    assert not any(row.flags for row in rows)
    assert [row.joint for row in rows] == [joint for _, joint, *_ in EXAMPLES]
    for row, (prompt, *_) in zip(rows, EXAMPLES, strict=True):
        assert (row.accuracy, row.exact_match, row.containment) == (1, 1, 1), (prompt, row)


def test_budgets_have_the_joint():
    tokens = tiny.byte_level()
    answers = [["Paris"], ["Paris"], ["Kuala Lumpur", "Paris"]]
    expected = [len(tokens.encode(text)) for text in (" Paris", "Paris", "Kuala Lumpur")]
    assert expected[0] != expected[1]
    found = answer_budgets(tokens, answers, [" ", "", ""])
    assert found == [length + TOKENS_AFTER_ANSWER for length in expected]


def test_the_probes_own_punctuation_of_any_script():
    """A bank without templates, and a continuation in Chinese."""
    from tidy_stlms.eval.recall.harness import terminators_of
    from tidy_stlms.eval.scoring.generation import Continuation, exact_match

    probes = {probe.template: probe for probe in joint_bank().probes}
    assert [terminators_of(probe) for probe in probes.values()][:3] == [".", "。", "."]
    bare = replace(joint_bank().probes[1], template=None)
    assert exact_match(Continuation("北京。它", ended=False), bare.answers, terminators_of(bare))


# ---- watched prompts ---------------------------------------------------------------------------------


def test_prompts_say_their_joint(tmp_path, tokenizer, model):
    path = tmp_path / "prompts.yaml"
    path.write_text(
        '- {sentence: "La formule H2O est celle de l\'", answer: eau, joint: ""}\n'
        "- {sentence: 中国的首都是, answer: 北京}\n"
        "- {sentence: Dan was born in, answer: Oslo, joint: ' '}\n"
        "- {sentence: Dan was born in, answer: Oslo}\n",
        encoding="utf-8",
    )
    prompts = load_prompts(path)
    assert [prompt.joint for prompt in prompts] == ["", None, " ", None]
    rows = [watch_prompt(model, tokenizer, prompt, max_new_tokens=4, top_k=2) for prompt in prompts]
    assert [row.joint for row in rows] == ["", "", " ", " "]
    bank = joint_bank()
    asked = [bank.probes[place] for place in (0, 1, 6, 6)]
    scores = score(model, tokenizer, [item_of(probe) for probe in asked])
    for row, expected in zip(rows, scores, strict=True):
        assert row.answer_logprob == pytest.approx(expected.logprobs[0], abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"sentence": "a", "answer": "b", "joint": "-"}, "'a': the joint must be \"\" or \" \", got '-'"),
        ({"sentence": "a", "answer": "b", "joint": None}, 'the joint must be "" or " ", got null'),
        ({"sentence": "a", "answer": "b", "jiont": ""}, "jiont: no such key"),
    ],
)
def test_a_joint_that_is_none_is_named(tmp_path, prompt, message):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([prompt]))
    with pytest.raises(UserError) as caught:
        load_prompts(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
