"""Which passes are needed: the fewest that hold every answer token once."""

import pytest

from tests.eval import tiny
from tidy_stlms.eval.scoring.encoding import Item, Row, encode_items
from tidy_stlms.eval.scoring.passes import plan_prompts, plan_whole


def row(prompt, answer, item=0, candidate=0):
    return Row(item, candidate, prompt + answer, len(answer), n_bytes=1, straddles=False, truncated=False)


def read_tokens(passes, before=()):
    """What the readings say, by row: the tokens before each answer token, and the token."""
    found = {}
    for one in passes:
        inputs = [*before, *one.inputs]
        for reading in one.readings:
            place = len(before) + reading.position
            found.setdefault(reading.row, {})[reading.place] = (inputs[: place + 1], reading.token)
        for number, tokens in read_tokens(one.branches, inputs).items():
            assert not found.get(number, {}).keys() & tokens.keys()  # nothing is read twice
            found.setdefault(number, {}).update(tokens)
    return found


ROWS = [
    row([1, 2], [3]),
    row([1, 2], [3, 4, 5]),
    row([1, 2], [3, 4]),
    row([1, 2], [6, 7]),
    row([1, 2], [6, 7, 8, 9], item=1),  # another probe with the same prompt
    row([1], [2, 3], item=2),  # a text inside another, with a shorter prompt
    row([1, 2, 3, 4, 5], [6], item=3),
]


@pytest.mark.parametrize("plan", [plan_whole, plan_prompts])
def test_every_answer_token_is_read_once_behind_what_stands_before_it(plan):
    found = read_tokens(plan(ROWS))
    for number, one in enumerate(ROWS):
        given = len(one.stem)
        assert found[number] == {
            place: (one.ids[: given + place], token) for place, token in enumerate(one.answer)
        }


def test_answers_that_begin_alike_share_a_pass():
    assert [one.inputs for one in plan_whole(ROWS)] == [
        [1, 2, 6, 7, 8],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4],
        [1, 2],
    ]
    shared = plan_prompts(ROWS)
    assert [one.inputs for one in shared] == [[1, 2, 3, 4, 5], [1, 2], [1]]
    assert [sorted(branch.inputs for branch in one.branches) for one in shared] == [
        [],
        [[3, 4], [6, 7, 8]],
        [[2]],
    ]
    assert all(one.n_logits == 1 for one in shared)
    # a short text inside a long one would have the logits of all the long one kept
    assert all(one.n_logits <= 4 for one in plan_whole(ROWS))


def test_answers_of_one_token_need_the_prompt_alone():
    rows = [row([1, 2], [token], candidate=token) for token in range(3, 9)]
    for plan in (plan_whole, plan_prompts):
        [one] = plan(rows)
        assert (one.inputs, one.n_logits, one.branches) == ([1, 2], 1, [])
        assert [reading.token for reading in one.readings] == list(range(3, 9))


@pytest.mark.parametrize("plan", [plan_whole, plan_prompts])
def test_the_plan_does_not_depend_on_the_order(plan):
    def inputs(passes):
        return [(one.inputs, inputs(one.branches)) for one in passes]

    assert inputs(plan(ROWS)) == inputs(plan(ROWS[::-1]))


def test_answers_that_straddle_the_boundary():
    # "in" + " a" is one piece for the first candidate; both are scored from "in" on
    tokenizer = tiny.whole_words(["▁in▁a", "▁in", "▁a", "▁b", "▁c"], split=False)
    rows = encode_items(tokenizer, [Item("c in", ["a", "b"])])
    assert [one.stem for one in rows] == [rows[0].stem] * 2
    assert [len(found) for _, found in sorted(read_tokens(plan_prompts(rows)).items())] == [1, 2]
