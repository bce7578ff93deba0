"""Rows in batches, and the padding that stands before them."""

import torch

from tidy_stlms.eval.models.inputs import fill_batches, left_pad, same_logits


def test_batches_keep_to_their_budgets():
    lengths, n_logits = [9, 3, 9, 5, 4, 50, 5], [1, 1, 2, 1, 4, 1, 1]
    batches = fill_batches(lengths, n_logits, batch_tokens=20, max_logits=6)
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    for batch in batches[1:]:
        assert len(batch) * max(lengths[row] for row in batch) <= 20
        assert len(batch) * max(n_logits[row] for row in batch) <= 6
    assert batches[0] == [5]  # larger than the budget: alone
    equal = fill_batches(lengths, n_logits, batch_tokens=100, max_logits=100, same_length=True)
    assert [sorted(batch) for batch in equal] == [[5], [0, 2], [3, 6], [4], [1]]


def test_padding_that_outweighs_a_pass_is_not_read():
    lengths = [9] * 4 + [8] * 20 + [3] * 20
    whole = {"batch_tokens": 1000, "max_logits": 1000}
    assert [len(batch) for batch in fill_batches(lengths, [1] * 44, **whole)] == [44]
    # 1 token of padding for each of 40 rows, then 5 or 6 for each of 20
    assert [len(batch) for batch in fill_batches(lengths, [1] * 44, **whole, pass_tokens=100)] == [24, 20]
    assert [len(batch) for batch in fill_batches(lengths, [1] * 44, **whole, pass_tokens=39)] == [4, 20, 20]
    # a batch that is full but for one row has that one at most to pad
    assert [
        len(batch) for batch in fill_batches([9, 9, 8], [1] * 3, batch_tokens=27, max_logits=9, pass_tokens=1)
    ] == [3]


def test_rows_are_flush_right_and_positions_count_from_their_first_token():
    padded = left_pad([[5, 6, 7], [8]], 0, "cpu")
    assert padded["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert padded["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_same_logits():
    logits = torch.tensor([[3.0, -40.0]])
    assert same_logits(logits, logits + 1e-3)  # of 40
    assert not same_logits(logits, logits + 1e-2)
    assert same_logits(logits.bfloat16(), logits.bfloat16() + 1)
    assert not same_logits(logits, logits * torch.nan)
    assert not same_logits(logits * torch.nan, logits * torch.nan)
