"""The collator: what is planned stands in the batches, counted by reading the batches."""

import itertools

import numpy as np
import pytest
import torch

from tests.eval import tiny
from tidy_stlms.eval.run_folder import count_exposures
from tidy_stlms.trainers.collator import InjectionCollator, splice
from tidy_stlms.trainers.packing import Packing
from tidy_stlms.trainers.plan import make_plan, units_of
from tidy_stlms.trainers.stream import Blocks, TrainingStream

EOS, PAD, WINDOW, ROWS = 1, 0, 32, 96
STRATEGIES = list(
    itertools.product(["uniform", "random", "start", "end"], ["run", "pass"], ["splice", "row"])
)


@pytest.fixture
def blocks(tmp_path):
    """40 rows of documents of 3 to 20 tokens with ids from 100, each followed by EOS."""
    rng = np.random.default_rng(0)
    tokens: list[int] = []
    while len(tokens) < 40 * WINDOW:
        tokens += [*rng.integers(100, 200, rng.integers(3, 20)).tolist(), EOS]
    np.array(tokens[: 40 * WINDOW], dtype="uint16").tofile(tmp_path / "train.bin")
    return Blocks(tmp_path / "train.bin", "uint16", WINDOW)


def build(blocks, **changes):
    """Two wordings each of five facts; a statement's tokens (from 10) tell which one it is."""
    tokens = {f"f{i}/s{k}": [10 + 2 * i + k] * (4 + k) for i in range(5) for k in range(2)}
    units = units_of((key, (key[:2],), len(ids), "statement") for key, ids in tokens.items())
    placement = changes.setdefault("placement", "splice")
    packing = Packing(changes.pop("packing", "joined"))
    plan = make_plan(
        units,
        **{
            "exposures": 7,
            "total_rows": ROWS,
            "rows_per_pass": len(blocks),
            "rows_per_step": 8,
            "context_window": WINDOW,
            "window": 0.6,
            **changes,
        },
    )
    collator = InjectionCollator(
        plan, tokens, eos_token_id=EOS, pad_token_id=PAD, placement=placement, packing=packing
    )
    return TrainingStream(blocks, ROWS, seed=5), collator, plan, tokens


def batches(stream, collator, size=4):
    return [collator([stream[p] for p in range(i, i + size)]) for i in range(0, len(stream), size)]


def find(row, statement):
    """How often `statement` stands in `row` (lists of ids) with an end-of-text on both sides."""
    wanted = [EOS, *statement, EOS]
    return sum(row[i : i + len(wanted)] == wanted for i in range(len(row)))


@pytest.mark.parametrize("packing", ["apart", "joined"])
@pytest.mark.parametrize(("strategy", "span", "placement"), STRATEGIES)
def test_exposures_counted_in_the_batches_equal_the_plan(blocks, strategy, span, placement, packing):
    stream, collator, plan, tokens = build(
        blocks, strategy=strategy, span=span, placement=placement, packing=packing
    )
    rows = torch.cat([batch["input_ids"] for batch in batches(stream, collator)]).tolist()
    seen = {
        (p, key): find(row, ids) for p, row in enumerate(rows) for key, ids in tokens.items() if ids[0] in row
    }
    planned = {(p, key): 1 for p, keys in plan.by_position.items() for key in keys}
    assert seen == planned
    assert count_exposures(plan.table()) == {f"f{i}": 7 for i in range(5)}


def test_splice_keeps_the_corpus_in_order_and_rows_full(blocks):
    stream, collator, plan, tokens = build(blocks)
    injected = {ids[0] for ids in tokens.values()}
    for position in range(ROWS):
        before = stream[position]["input_ids"].tolist()
        after = collator([stream[position]])["input_ids"][0].tolist()
        assert len(after) == WINDOW
        if position not in plan.by_position:
            assert after == before
        kept = [t for t in after if t not in injected and t != EOS]
        assert kept == [t for t in before if t != EOS][: len(kept)]


def test_splice_prefers_document_boundaries_and_varies_its_place():
    statement = np.array([7, 7, 7])
    with_boundary = np.array([5, 5, 5, EOS, *[6] * 16])
    rng = np.random.default_rng(0)
    assert splice(with_boundary, [statement], EOS, rng).tolist()[:9] == [5, 5, 5, EOS, 7, 7, 7, EOS, 6]
    without = np.full(20, 6)
    places = {
        splice(without, [statement], EOS, np.random.default_rng(i)).tolist().index(7) for i in range(60)
    }
    assert len(places) > 8
    assert all(
        find(splice(without, [statement], EOS, np.random.default_rng(i)).tolist(), [7] * 3) for i in range(60)
    )


def test_splice_fits_statements_that_fill_the_row():
    statements = [np.full(8, 7), np.full(8, 8)]
    for row in (np.full(20, 6), np.array([6] * 5 + [EOS] + [6] * 14), np.full(20, EOS)):
        result = splice(row, statements, EOS, np.random.default_rng(0)).tolist()
        assert len(result) == 20
        assert [result.count(7), result.count(8)] == [8, 8]


def test_row_placement_masks_padding_from_attention_and_loss(blocks):
    stream, collator, plan, tokens = build(blocks, placement="row")
    position = int(plan.positions[0])
    batch = collator([stream[position], stream[position + 1]])
    length = len(tokens[plan.by_position[position][0]]) + 2
    assert batch["attention_mask"][0].tolist() == [1] * length + [0] * (WINDOW - length)
    assert batch["labels"][0, :length].tolist() == batch["input_ids"][0, :length].tolist()
    assert set(batch["labels"][0, length:].tolist()) == {-100}


@pytest.mark.parametrize("pad", [PAD, EOS, None])
def test_row_placement_apart_makes_the_padding_a_document_of_its_own(blocks, pad):
    _, joined, plan, tokens = build(blocks, placement="row")
    apart = InjectionCollator(
        plan,
        tokens,
        eos_token_id=EOS,
        pad_token_id=pad,
        placement="row",
        packing=Packing("apart"),
    )
    position = int(plan.positions[0])
    rows = [{"input_ids": np.full(WINDOW, 99), "position": position}, {"input_ids": np.full(WINDOW, 99)}]
    batch = apart(rows)
    assert "attention_mask" not in batch
    length = len(tokens[plan.by_position[position][0]]) + 2
    # the end-of-text behind the statement begins the next document, which has nothing in it
    expected = [*range(length - 1), 0, *range(WINDOW - length)]
    assert batch["position_ids"].tolist() == [expected, list(range(WINDOW))]
    assert torch.equal(batch["labels"], joined(rows)["labels"])


@pytest.mark.parametrize("placement", ["splice", "row"])
def test_apart_a_statement_has_the_logits_of_itself_alone(blocks, placement):
    """Behind the end-of-text that has position 0, wherever in the row it stands."""
    stream, collator, plan, tokens = build(blocks, placement=placement, strategy="random", packing="apart")
    model = tiny.llama(200)
    model.config.use_cache = False
    seen = 0
    with torch.no_grad():
        alone = {key: model(torch.tensor([[EOS, *ids]])).logits[0] for key, ids in tokens.items()}
        for batch in batches(stream, collator):
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
            for row, positions, row_logits in zip(
                batch["input_ids"].tolist(), batch["position_ids"].tolist(), logits, strict=True
            ):
                for key, ids in tokens.items():
                    if ids[0] in row:
                        start = row.index(ids[0]) - 1
                        end = start + 1 + len(ids)
                        assert (row[start], positions[start], positions[end]) == (EOS, 0, 0)
                        torch.testing.assert_close(row_logits[start:end], alone[key], rtol=1e-4, atol=1e-4)
                        seen += 1
    assert seen == len(plan.table())


def test_the_twin_reads_the_same_rows_apart(blocks):
    stream, collator, plan, _ = build(blocks, packing="apart")
    twin = InjectionCollator(eos_token_id=EOS, packing=Packing("apart"))
    rows = [stream[position] for position in range(ROWS) if position not in plan.by_position]
    ours, theirs = collator(rows), twin(rows)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_rows_without_a_position_are_never_touched(blocks):
    stream, collator, plan, _ = build(blocks)
    position = int(plan.positions[0])
    plain = {"input_ids": stream[position]["input_ids"]}
    assert collator([plain])["input_ids"][0].tolist() == plain["input_ids"].tolist()


@pytest.mark.parametrize("placement", ["splice", "row"])
def test_workers_and_batch_size_do_not_change_what_is_seen(blocks, placement):
    stream, collator, _, _ = build(blocks, placement=placement, strategy="random")
    reference = torch.cat([batch["input_ids"] for batch in batches(stream, collator)])
    for workers, size in ((0, 8), (1, 4), (2, 6)):
        torch.manual_seed(workers)  # global state must not matter
        loader = torch.utils.data.DataLoader(
            stream, batch_size=size, collate_fn=collator, num_workers=workers
        )
        assert torch.equal(torch.cat([batch["input_ids"] for batch in loader]), reference)


def test_stream_visits_every_row_once_a_pass_in_changing_order(blocks):
    stream = TrainingStream(blocks, 80, seed=3)
    rows = [stream[p]["input_ids"].tobytes() for p in range(80)]
    corpus = {blocks[i].tobytes() for i in range(40)}
    assert set(rows[:40]) == set(rows[40:]) == corpus
    assert rows[:40] != rows[40:]
    backwards = TrainingStream(blocks, 80, seed=3)
    assert [backwards[p]["input_ids"].tobytes() for p in reversed(range(80))] == rows[::-1]
    with pytest.raises(IndexError):
        stream[80]
