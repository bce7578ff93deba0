"""The scorer against brute force, and the properties that the scoring contract promises."""

import inspect
import math
import random

import numpy as np
import pytest
import torch
from transformers import RwkvConfig, RwkvForCausalLM

from configs.errors import UserError
from eval.recall import scorer
from eval.recall.batching import fill_batches, padding_id
from eval.recall.encoding import encode_items
from eval.recall.harness import item_of
from eval.recall.scorer import Item, score
from tests.eval.recall import tiny


@pytest.fixture(scope="module")
def byte_level():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def items():
    return [item_of(probe) for probe in tiny.bank().probes]


def brute_force(model, tokenizer, prompt, answer, bos=True):
    """One forward pass a token, nothing padded: log-probabilities and ranks by sorting the vocabulary."""
    given = ([tokenizer.bos_token_id] if bos else []) + tokenizer.encode(prompt, add_special_tokens=False)
    logprobs, ranks = [], []
    for token in tokenizer.encode(" " + answer, add_special_tokens=False):
        with torch.no_grad():
            logits = model(torch.tensor([given])).logits[0, -1]
        logprobs.append(logits.double().log_softmax(-1)[token].item())
        ranks.append(1 + sorted(logits.tolist(), reverse=True).index(logits[token].item()))
        given.append(token)
    return logprobs, ranks


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2])
def test_equals_one_forward_pass_a_token(build, byte_level, items):
    model = build(len(byte_level))
    for item, result in zip(items[::9], score(model, byte_level, items[::9]), strict=True):
        logprobs, ranks = brute_force(model, byte_level, item.prompt, item.candidates[0])
        assert result.token_logprobs == pytest.approx(logprobs, abs=1e-4)
        assert result.token_ranks == ranks
        assert result.greedy_match == all(rank == 1 for rank in ranks)
        for candidate, logprob in zip(item.candidates, result.logprobs, strict=True):
            expected = brute_force(model, byte_level, item.prompt, candidate)[0]
            assert logprob == pytest.approx(sum(expected), abs=1e-4)


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_numbers_do_not_depend_on_batch_or_order(build, attention, byte_level, items, caplog):
    model = build(len(byte_level), attn_implementation=attention)
    items = items[::2]
    one_by_one = score(model, byte_level, items, batch_tokens=1)
    assert any(len(set(result.n_tokens)) > 1 for result in one_by_one)
    shuffled = list(range(len(items)))
    random.Random(0).shuffle(shuffled)
    in_disorder = score(model, byte_level, [items[i] for i in shuffled], batch_tokens=700)
    for runs in (
        score(model, byte_level, items),
        [in_disorder[shuffled.index(i)] for i in range(len(items))],
    ):
        for ours, reference in zip(runs, one_by_one, strict=True):
            assert ours.logprobs == pytest.approx(reference.logprobs, abs=1e-4)
            assert ours.token_ranks == reference.token_ranks
    assert not caplog.text  # rows of unequal length did share batches


def test_a_model_that_reads_padding_gets_none(byte_level, items, caplog):
    torch.manual_seed(0)
    config = RwkvConfig(vocab_size=len(byte_level), hidden_size=16, num_hidden_layers=2, context_length=64)
    model = RwkvForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    together = score(model, byte_level, items[:8])
    assert "only rows of equal length" in caplog.text
    for ours, reference in zip(together, score(model, byte_level, items[:8], batch_tokens=1), strict=True):
        assert ours.logprobs == pytest.approx(reference.logprobs, abs=1e-4)


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


def test_logits_are_never_kept_for_all_positions(byte_level, items, monkeypatch):
    model, shapes = tiny.llama(len(byte_level)), []
    forward = model.forward

    def spy(*args, input_ids=None, logits_to_keep=0, **kwargs):
        output = forward(*args, input_ids=input_ids, logits_to_keep=logits_to_keep, **kwargs)
        shapes.append((input_ids.shape, output.logits.shape))
        return output

    spy.__signature__ = inspect.signature(forward)  # the scorer asks what forward takes
    monkeypatch.setattr(model, "forward", spy)
    score(model, byte_level, items)
    assert all(logits[1] < inputs[1] / 2 for inputs, logits in shapes)
    monkeypatch.setattr(scorer, "MAX_LOGITS", 40 * len(byte_level))
    shapes.clear()
    score(model, byte_level, items)
    assert all(logits[0] * logits[1] <= 40 for _, logits in shapes)


def test_candidates_that_begin_alike_share_a_pass(byte_level):
    model = tiny.llama(len(byte_level))
    candidates = ["Oslo", "Kuala Lumpur", "Rome", "Kuala", "Kuala Lumpur baker", "Rome"]
    item = Item("Ada is in", candidates)
    rows = encode_items(byte_level, [item, Item("Bo is in", ["Oslo"])])
    lengths = [row.n_scored for row in rows]
    assert lengths[0] == lengths[2] == 1
    assert lengths[3] < lengths[1] < lengths[4]
    passes = scorer._plan_passes(rows)
    assert sorted(sorted(row for row, _ in one.readings) for one in passes) == [[0, 1, 2, 3, 4, 5], [6]]
    # not across items: a short text inside a long one would have the logits of all the long one kept
    rows = encode_items(byte_level, [Item("Ada is", ["in"]), Item("Ada is in Rome and in", ["Oslo"])])
    assert rows[1].inputs[: len(rows[0].inputs)] == rows[0].inputs
    assert [one.n_logits for one in scorer._plan_passes(rows)] == [1, 1]
    [together] = score(model, byte_level, [item])
    apart = score(model, byte_level, [Item("Ada is in", [answer]) for answer in candidates])
    assert together.logprobs == pytest.approx([one.logprobs[0] for one in apart], abs=1e-5)
    assert together.token_ranks == apart[0].token_ranks


def test_a_pad_token_outside_the_embedding_is_not_used(byte_level, items):
    tokenizer = tiny.byte_level(bos=True)
    model = tiny.llama(len(tokenizer))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= model.config.vocab_size
    assert padding_id(model, tokenizer) == tokenizer.eos_token_id
    expected = score(model, byte_level, items[:6])
    for ours, theirs in zip(score(model, tokenizer, items[:6]), expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_spaces_and_newlines_at_the_boundary(byte_level):
    model = tiny.llama(len(byte_level))
    plain, trailing = score(model, byte_level, [Item("Ada is in", ["Paris"]), Item("Ada is in ", ["Paris"])])
    assert plain == trailing
    assert plain.n_bytes == [len(" Paris")]

    def texts(item):
        return [byte_level.decode(row.ids[-row.n_scored :]) for row in encode_items(byte_level, [item])]

    assert texts(Item("Where is Ada?\n", ["Paris", "Oslo"])) == ["Paris", "Oslo"]
    assert texts(Item("", ["Paris"])) == ["Paris"]
    assert texts(Item("Ada is in", ["Paris"], suffix=" now.")) == [" Paris now."]
    [row] = encode_items(byte_level, [Item("Ada is in", ["Zürich"])])
    assert row.n_bytes == 8  # in UTF-8


@pytest.mark.parametrize("trim", [True, False])
def test_bos_stands_once_and_an_added_end_of_text_is_not_scored(trim):
    tokenizer = tiny.byte_level(bos=True, eos=True, trim=trim)
    assert tokenizer("Ada").input_ids[-1] == tokenizer.eos_token_id
    model = tiny.llama(len(tokenizer))
    [row] = encode_items(tokenizer, [Item("Ada is in", ["Kuala Lumpur"])])
    assert row.ids == tokenizer("Ada is in Kuala Lumpur").input_ids[:-1]
    assert row.n_bytes == len(" Kuala Lumpur")
    [with_own] = encode_items(tokenizer, [Item("<s>Ada is in", ["Kuala Lumpur"])])
    assert with_own.ids == row.ids
    # as if the tokenizer did not add it
    [ours] = score(model, tokenizer, [Item("Ada is in", ["Paris"])])
    [plain] = score(model, tiny.byte_level(bos=True), [Item("Ada is in", ["Paris"])])
    assert ours == plain


def test_an_empty_prompt_starts_from_a_start_token():
    for tokenizer, start in ((tiny.byte_level(bos=True), "<s>"), (tiny.byte_level(), "</s>")):
        [row] = encode_items(tokenizer, [Item("", ["Paris"])])
        assert row.ids == [
            tokenizer.convert_tokens_to_ids(start),
            *tokenizer.encode("Paris", add_special_tokens=False),
        ]
        assert row.n_scored == len(row.ids) - 1
        assert row.n_bytes == len("Paris")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither BOS nor end-of-text"):
        encode_items(tokenizer, [Item("", ["Paris"])])


def test_all_candidates_are_scored_from_one_place():
    # "in" + " a": one piece across the boundary for one candidate only
    tokenizer = tiny.whole_words(["▁in▁a", "▁in", "▁a", "▁b", "▁c"], split=False)
    rows = encode_items(tokenizer, [Item("c in", ["a", "b"])])
    scored = [tokenizer.convert_ids_to_tokens(row.ids[-row.n_scored :]) for row in rows]
    assert scored == [["▁in▁a"], ["▁in", "▁b"]]
    assert [row.n_bytes for row in rows] == [len(" in a"), len(" in b")]
    assert all(row.straddles for row in rows)
    # alone, the candidate that straddles nothing is not flagged
    [alone] = encode_items(tokenizer, [Item("c in", ["b"])])
    assert (alone.n_scored, alone.straddles) == (1, False)


@pytest.mark.parametrize("build", [tiny.llama, tiny.gpt2])
def test_truncation_cuts_the_prompt_from_the_left_and_warns(build, byte_level, caplog):
    model = build(len(byte_level), context=16)
    prompt = " ".join(["Ada Lopez was born in"] * 6)
    item = Item(prompt, ["Paris", "Kuala Lumpur Kuala Lumpur"], id="long")
    short = Item("Ada Lopez was born in", ["Paris"])
    cut, whole = score(model, byte_level, [item, short])
    assert (cut.truncated, whole.truncated) == (True, False)
    assert "1 of 2 probes" in caplog.text

    rows = encode_items(byte_level, [item], 16)
    kept = [byte_level.decode(row.ids[: -row.n_scored]) for row in rows]
    assert kept[0] == kept[1]  # all candidates see the same prompt
    assert kept[0].startswith("<s>")  # and BOS with it
    assert prompt.endswith(kept[0].removeprefix("<s>"))
    assert max(len(row.inputs) for row in rows) == 16
    logprobs, _ = brute_force(model, byte_level, kept[0].removeprefix("<s>"), "Paris")
    assert cut.token_logprobs == pytest.approx(logprobs, abs=1e-4)

    with pytest.raises(UserError, match=r"probe long: an answer of .* does not fit"):
        score(model, byte_level, [Item("Ada", ["Paris " * 30], id="long")])


def test_a_slow_tokenizer_falls_back_to_the_common_token_prefix():
    tokenizer = tiny.SlowTokenizer()
    assert not tokenizer.is_fast
    model = tiny.llama(len(tokenizer))
    items = [Item("Ada Lopez was born in", ["Paris", "Roma"]), Item("", ["Paris"])]
    rows = encode_items(tokenizer, items)
    assert [tokenizer.convert_ids_to_tokens(row.ids[-row.n_scored :]) for row in rows] == [
        [" Paris"],
        [" ", "R", "o", "m", "a"],
        list("Paris"),
    ]
    assert all(row.ids[0] == tokenizer.bos_token_id and row.ids[1] != tokenizer.bos_token_id for row in rows)
    assert [row.n_bytes for row in rows] == [6, 5, 5]
    assert not any(row.straddles for row in rows)
    logprobs, ranks = brute_force(model, tokenizer, items[0].prompt, "Paris")
    [result, _] = score(model, tokenizer, items)
    assert result.token_logprobs == pytest.approx(logprobs, abs=1e-4)
    assert result.token_ranks == ranks

    # " Sp" + "ring": the tokens of the prompt alone are not those of the whole
    [row] = encode_items(tokenizer, [Item("born in Sp", ["ring"], joint="")])
    assert tokenizer.convert_ids_to_tokens(row.ids[-row.n_scored :]) == [" Spring"]
    assert (row.straddles, row.n_bytes) == (True, len(" Spring"))
    # and if that holds for one candidate, the others start where it does
    ring, in_ = encode_items(tokenizer, [Item("born in Sp", ["ring", "in"], joint="")])
    assert (ring.n_scored, in_.n_scored) == (1, len(" Spin"))
    assert (ring.n_bytes, in_.n_bytes) == (len(" Spring"), len(" Spin"))
    assert ring.straddles
    assert in_.straddles


def test_an_answer_without_tokens_is_refused():
    tokenizer = tiny.byte_level()
    with pytest.raises(UserError, match="probe p7: the tokenizer makes no token"):
        encode_items(tokenizer, [Item("Where?\n", [""], id="p7")])


def test_a_nan_is_an_error_that_names_the_probe(byte_level):
    model = tiny.llama(len(byte_level))
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(UserError, match=r"probe p7: .*'Paris' is not a finite number"):
        score(model, byte_level, [Item("Ada is in", ["Paris", "Oslo"], id="p7")])


def test_ties_are_mid_ranks(byte_level):
    model = tiny.llama(len(byte_level))
    torch.nn.init.zeros_(model.lm_head.weight)
    [result] = score(model, byte_level, [Item("Ada is in", ["Kuala Lumpur"])])
    assert set(result.token_ranks) == {(1 + len(byte_level)) / 2}
    assert result.logprobs[0] == pytest.approx(-result.n_tokens[0] * math.log(len(byte_level)), abs=1e-4)


def test_nothing_is_left_behind(byte_level, items):
    model = tiny.llama(len(byte_level), attention_dropout=0.5)
    model.train()
    model.model.layers[0].eval()  # a part that somebody froze
    modes = [module.training for module in model.modules()]
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    first = score(model, byte_level, items[:5])
    assert [module.training for module in model.modules()] == modes
    assert states[0] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(states[1], np.random.get_state(), strict=True))
    assert torch.equal(states[2], torch.get_rng_state())
    # nor is the state read: other seeds, same numbers
    torch.manual_seed(99)
    assert score(model, byte_level, items[:5]) == first
    # and training goes on afterwards
    model(torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()


def test_no_items(byte_level):
    assert score(tiny.llama(len(byte_level)), byte_level, []) == []
    with pytest.raises(ValueError, match="at least one answer"):
        Item("Ada is in", [])
