"""The scorer against brute force, and the properties that the scoring contract promises."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import RwkvConfig, RwkvForCausalLM

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import cache_name, padding_id
from tidy_stlms.eval.recall.harness import item_of
from tidy_stlms.eval.scoring import budget
from tidy_stlms.eval.scoring.encoding import encode_items
from tidy_stlms.eval.scoring.logprobs import select_positions
from tidy_stlms.eval.scoring.scorer import Item, score
from tidy_stlms.eval.scoring.sequences import plan_full_texts


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


def test_logits_are_never_kept_for_all_positions(byte_level, items, monkeypatch):
    model, shapes = tiny.llama(len(byte_level)), []

    def note(_model, _args, kwargs, output):
        behind = kwargs.get(cache_name(model)) is not None
        shapes.append((behind, kwargs["input_ids"].shape, output.logits.shape))

    model.register_forward_hook(note, with_kwargs=True)
    for answers in (slice(None), slice(1)):  # with candidates, and alone
        shapes.clear()
        score(model, byte_level, [replace(item, candidates=item.candidates[answers]) for item in items])
        assert all(behind or logits[1] < inputs[1] / 2 for behind, inputs, logits in shapes)
    monkeypatch.setattr(budget, "MAX_LOGITS", 40 * len(byte_level))
    shapes.clear()
    score(model, byte_level, items, batch_tokens=1024)
    assert all(logits[0] * logits[1] <= 40 for _, _, logits in shapes)


def test_peak_memory_and_numbers_do_not_depend_on_order(byte_level, items):
    model, shapes = tiny.llama(len(byte_level)), []
    model.register_forward_pre_hook(
        lambda _model, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    expected, first_shapes = score(model, byte_level, items, batch_tokens=200), list(shapes)
    order = random.Random(1).sample(range(len(items)), len(items))
    for places in (order, range(len(items))[::-1]):
        shapes.clear()
        found = score(model, byte_level, [items[i] for i in places], batch_tokens=200)
        assert found == [expected[i] for i in places]  # to the bit
        assert shapes == first_shapes  # the same batches


def test_prompts_are_shared_where_that_saves_something(byte_level, items, caplog):
    model, n_tokens = tiny.llama(len(byte_level)), []
    model.register_forward_pre_hook(
        lambda _model, _args, kwargs: n_tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    score(model, byte_level, [Item("Ada was born in", ["Kuala Oslo", "St. Chen Lopez"])])
    assert len(n_tokens) == 2 + 1  # padding is tried, and both answers are read
    answers = ["Kuala Oslo", "St. Chen Lopez", "Springer", "Oslo Paris Rome", "Rome Paris"]
    ranked = [Item(item.prompt, answers) for item in items]
    n_tokens.clear()
    score(model, byte_level, ranked)
    # every prompt is longer than its answers, and would be read five times
    full_texts = plan_full_texts(encode_items(byte_level, ranked))
    assert sum(n_tokens) < sum(len(text.input_ids) for text in full_texts) / 2
    assert not caplog.text


def test_top_tokens_of_where_the_answer_begins(byte_level, items):
    model = tiny.llama(len(byte_level))
    for item, result in zip(items[:9], score(model, byte_level, items[:9], top_k=4), strict=True):
        ids = [byte_level.bos_token_id, *byte_level.encode(item.prompt, add_special_tokens=False)]
        with torch.no_grad():
            best = model(torch.tensor([ids])).logits[0, -1].softmax(-1).topk(4)
        tokens, probabilities = zip(*result.top_tokens, strict=True)
        assert list(tokens) == best.indices.tolist()
        assert probabilities == pytest.approx(best.values.tolist(), abs=1e-5)
    assert score(model, byte_level, items[:1])[0].top_tokens == []
    assert len(score(model, byte_level, items[:1], top_k=10_000)[0].top_tokens) == len(byte_level)


def test_the_bar_counts_probes(byte_level, items, capsys):
    model = tiny.llama(len(byte_level))
    score(model, byte_level, items, progress=True)
    last_line = capsys.readouterr().err.split("\r")[-1]
    assert "scoring: 100%|" in last_line
    assert f" {len(items)}/{len(items)} [" in last_line
    assert "probe/s]" in last_line
    score(model, byte_level, items)
    assert capsys.readouterr().err == ""


def test_probes_with_one_prompt(byte_level):
    """Read at one place, and yet each for itself: of "Ada is in" two answers are true."""
    model = tiny.llama(len(byte_level))
    answers = [["Paris"], ["Rome", "Kuala Lumpur"], ["Kuala Oslo", "Paris"]]
    items = [Item(prompt, few) for prompt in ("Ada is in", "Bo is in", "Cleo is") for few in answers]
    for result, item in zip(score(model, byte_level, items), items, strict=True):
        [alone] = score(model, byte_level, [item])
        assert result.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert result.token_ranks == alone.token_ranks


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [1, 2], [0, 0, 2], [1, 3], [2, 1, 3]])
def test_positions_count_through_all_rows_of_the_logits(positions):
    logits = torch.arange(12.0).reshape(2, 2, 3)
    expected = logits.reshape(4, 3)[positions]
    assert torch.equal(select_positions(logits, positions), expected)
    assert torch.equal(select_positions(logits.mT.contiguous().mT, positions), expected)  # not contiguous


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
    # written in a text, it is text: the tokenizer's own stands in front of it all the same
    [written] = encode_items(tokenizer, [Item("<s>Ada is in", ["Kuala Lumpur"])])
    assert written.ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(written.ids[1:]) == "<s>Ada is in Kuala Lumpur"
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
    assert max(len(row.ids[:-1]) for row in rows) == 16
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
