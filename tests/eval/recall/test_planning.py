"""Which passes are needed: the fewest that hold every answer token once."""

import random

import pytest

from eval.recall.encoding import Item, Row, encode_items
from eval.recall.planning import join_beginnings, plan_prompts, plan_whole
from tests.eval.recall import tiny


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


def plan_joined(rows):
    return join_beginnings(plan_prompts(rows))


@pytest.mark.parametrize("plan", [plan_whole, plan_prompts, plan_joined])
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
    for plan in (plan_whole, plan_prompts, plan_joined):
        [one] = plan(rows)
        assert (one.inputs, one.n_logits, one.branches) == ([1, 2], 1, [])
        assert [reading.token for reading in one.readings] == list(range(3, 9))


@pytest.mark.parametrize("plan", [plan_whole, plan_prompts, plan_joined])
def test_the_plan_does_not_depend_on_the_order(plan):
    def inputs(passes):
        return [(one.inputs, inputs(one.branches)) for one in passes]

    assert inputs(plan(ROWS)) == inputs(plan(ROWS[::-1]))


def test_prompts_that_begin_alike_are_joined():
    prompts = [[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 3], [1, 7], [8, 9], [8, 9, 9]]
    passes = plan_joined([row(prompt, [0, 0]) for prompt in prompts])
    # something is left to read of [1, 2, 3]; one token less for [8, 9] is the beginning's own
    assert [(one.inputs, [branch.inputs for branch in one.branches]) for one in passes] == [
        ([8, 9, 9], [[0]]),
        ([8, 9], [[0]]),
        ([1, 7], [[0]]),
        ([1, 2], [[3], [3, 4], [3, 5, 6]]),
    ]
    assert [[leaf.inputs for leaf in branch.branches] for branch in passes[-1].branches] == [[[0]]] * 3


def most_saved(texts, depth=0):
    """Tokens, where texts with a common beginning are joined, or else split by their next token."""
    longer = [text for text in texts if len(text) > depth]
    split = {}
    for text in longer:
        split.setdefault(text[depth], []).append(text)
    return max((len(longer) - 1) * depth - 1, sum(most_saved(part, depth + 1) for part in split.values()), 0)


def test_joining_saves_the_most_tokens():
    generator = random.Random(0)
    for _ in range(300):
        sizes = [generator.randint(1, 6) for _ in range(generator.randint(1, 12))]
        texts = sorted({tuple(generator.choices(range(3), k=size)) for size in sizes})
        prompts = plan_prompts([row(list(text), [0]) for text in texts])
        joined = join_beginnings(prompts)
        saved = sum((len(one.branches) - 1) * len(one.inputs) - 1 for one in joined if not one.readings)
        assert saved == most_saved(texts)
        assert sorted(
            (*one.inputs, *branch.inputs) for one in joined if not one.readings for branch in one.branches
        ) == sorted(set(texts) - {tuple(one.inputs) for one in joined if one.readings})


def test_answers_that_straddle_the_boundary():
    # "in" + " a" is one piece for the first candidate; both are scored from "in" on
    tokenizer = tiny.whole_words(["▁in▁a", "▁in", "▁a", "▁b", "▁c"], split=False)
    rows = encode_items(tokenizer, [Item("c in", ["a", "b"])])
    assert [one.stem for one in rows] == [rows[0].stem] * 2
    assert [len(found) for _, found in sorted(read_tokens(plan_prompts(rows)).items())] == [1, 2]
