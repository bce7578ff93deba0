"""Which sequences are read: the fewest that predict every answer token once."""

import pytest

from tests.eval import tiny
from tidy_stlms.eval.scoring.encoding import EncodedCandidate, Item, encode_items
from tidy_stlms.eval.scoring.sequences import plan_full_texts, plan_shared_prompts


def encoded(prompt, answer, item=0, candidate=0):
    ids = prompt + answer
    return EncodedCandidate(item, candidate, ids, len(answer), n_bytes=1, straddles=False, truncated=False)


def predicted_tokens(sequences, before=()):
    """By candidate and index of an answer token: the tokens that it is predicted from, and the token."""
    predicted = {}
    for sequence in sequences:
        ids = [*before, *sequence.input_ids]
        for target in sequence.targets:
            end = len(before) + target.position + 1
            predicted.setdefault(target.source, {})[target.token_index] = (ids[:end], target.token_id)
        for source, tokens in predicted_tokens(sequence.continuations, ids).items():
            assert not predicted.get(source, {}).keys() & tokens.keys()  # nothing is predicted twice
            predicted.setdefault(source, {}).update(tokens)
    return predicted


CANDIDATES = [
    encoded([1, 2], [3]),
    encoded([1, 2], [3, 4, 5]),
    encoded([1, 2], [3, 4]),
    encoded([1, 2], [6, 7]),
    encoded([1, 2], [6, 7, 8, 9], item=1),  # another probe with the same prompt
    encoded([1], [2, 3], item=2),  # a text inside another, with a shorter prompt
    encoded([1, 2, 3, 4, 5], [6], item=3),
]


@pytest.mark.parametrize("plan", [plan_full_texts, plan_shared_prompts])
def test_every_answer_token_is_read_once_behind_what_stands_before_it(plan):
    predicted = predicted_tokens(plan(CANDIDATES))
    for source, candidate in enumerate(CANDIDATES):
        n_prompt = len(candidate.prompt_ids)
        assert predicted[source] == {
            index: (candidate.ids[: n_prompt + index], token_id)
            for index, token_id in enumerate(candidate.answer_ids)
        }


def test_answers_that_begin_alike_share_a_sequence():
    assert [sequence.input_ids for sequence in plan_full_texts(CANDIDATES)] == [
        [1, 2, 6, 7, 8],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4],
        [1, 2],
    ]
    shared = plan_shared_prompts(CANDIDATES)
    assert [prompt.input_ids for prompt in shared] == [[1, 2, 3, 4, 5], [1, 2], [1]]
    assert [sorted(answer.input_ids for answer in prompt.continuations) for prompt in shared] == [
        [],
        [[3, 4], [6, 7, 8]],
        [[2]],
    ]
    assert all(prompt.n_logits == 1 for prompt in shared)
    # a short text inside a long one would have the logits of all the long one kept
    assert all(sequence.n_logits <= 4 for sequence in plan_full_texts(CANDIDATES))


def test_answers_of_one_token_need_the_prompt_alone():
    candidates = [encoded([1, 2], [token_id], candidate=token_id) for token_id in range(3, 9)]
    for plan in (plan_full_texts, plan_shared_prompts):
        [prompt] = plan(candidates)
        assert (prompt.input_ids, prompt.n_logits, prompt.continuations) == ([1, 2], 1, [])
        assert [target.token_id for target in prompt.targets] == list(range(3, 9))


@pytest.mark.parametrize("plan", [plan_full_texts, plan_shared_prompts])
def test_the_plan_does_not_depend_on_the_order(plan):
    def inputs(sequences):
        return [(sequence.input_ids, inputs(sequence.continuations)) for sequence in sequences]

    assert inputs(plan(CANDIDATES)) == inputs(plan(CANDIDATES[::-1]))


def test_answers_that_straddle_the_boundary():
    # "in" + " a" is one piece for the first candidate; both are scored from "in" on
    tokenizer = tiny.whole_words(["▁in▁a", "▁in", "▁a", "▁b", "▁c"], split=False)
    candidates = encode_items(tokenizer, [Item("c in", ["a", "b"])])
    assert [candidate.prompt_ids for candidate in candidates] == [candidates[0].prompt_ids] * 2
    predicted = predicted_tokens(plan_shared_prompts(candidates))
    assert [len(tokens) for _, tokens in sorted(predicted.items())] == [1, 2]
