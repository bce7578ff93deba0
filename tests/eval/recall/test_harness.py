"""The harness on a model that knows the injected facts and has never read the others."""

import json
import math
import random
from collections import defaultdict

import msgspec
import numpy as np
import pytest
import torch
from msgspec import UNSET
from msgspec.structs import replace

from tests.eval import tiny
from tidy_stlms.configs.records import read_records, to_row, write_records
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Fact, Probe
from tidy_stlms.eval.recall import metrics
from tidy_stlms.eval.recall.control import corrected_summary
from tidy_stlms.eval.recall.harness import evaluate_recall, item_of, terminators_of
from tidy_stlms.eval.recall.metrics import METRICS, summarise
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.scoring.scorer import Item, score

ANSWER_ONLY = ("logprob", "bits_per_byte", "greedy_match", "exact_match", "perplexity", "token_rank")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def bank():
    bank = tiny.bank()
    return replace(bank, probes=[probe for probe in bank.probes if probe.type == "memorization"])


@pytest.fixture(scope="module")
def model(tokenizer, bank):
    """Trained on the injected statements alone, until it knows them by heart."""
    model = tiny.llama(len(tokenizer), attention_dropout=0.1)
    texts = [
        f"{probe.prompt} {probe.answers[0]}{probe.template[-1]}</s>"
        for probe in bank.probes
        if bank.role_of(probe) == "injected"
    ]
    rows = [tokenizer.encode(text) for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.eos_token_id] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def rows(model, tokenizer, bank):
    return evaluate_recall(model, tokenizer, bank)


def test_known_facts_are_recalled_and_others_are_not(rows):
    summary = summarise(rows)
    known, unknown = (summary[role]["memorization"] for role in ("injected", "control"))
    for metric in (
        "accuracy",
        "accuracy_norm",
        "candidate_rank",
        "mrr",
        "greedy_match",
        "exact_match",
        "token_rank",
    ):
        assert known[metric].mean == 1.0, metric
    assert known["bits_per_byte"].mean < 0.2
    assert unknown["accuracy"].mean < 0.7
    assert unknown["exact_match"].mean < 0.7
    assert unknown["bits_per_byte"].mean > 1.0
    louis = [row for row in rows if row.answer == "St. Louis" and row.role == "injected"]
    assert louis
    assert all(row.generation.startswith(" St. Louis.") for row in louis)


def test_rows_come_in_bank_order_and_are_plain(rows, bank):
    assert [row.probe_id for row in rows] == [probe.id for probe in bank.probes]
    assert (
        msgspec.convert(json.loads(json.dumps(list(map(to_row, rows)), allow_nan=False)), list[ProbeResult])
        == rows
    )
    fields = (
        "probe_id fact_ids role arm type relation subject style prefix prompt joint answer template "
        "candidates candidate_logprobs candidate_n_bytes n_tokens n_bytes generation flags"
    )
    assert msgspec.to_builtins(rows[0]).keys() == {*fields.split(), *METRICS}
    first = rows[0]
    assert (first.subject, first.relation, first.arm) == ("Ada Lopez", "born", None)
    assert first.template == "{subject} was born in {object}."
    assert first.n_bytes == len(" Paris")


def test_figures_follow_from_the_scores(model, tokenizer, bank, rows):
    probe, row = bank.probes[9], rows[9]
    [scores] = score(model, tokenizer, [Item(probe.prompt, [*probe.answers, *probe.distractors])])
    assert row.logprob == pytest.approx(scores.logprobs[0], abs=1e-4)
    assert row.perplexity == pytest.approx(math.exp(-row.logprob / row.n_tokens))
    assert row.bits_per_byte == pytest.approx(-row.logprob / math.log(2) / row.n_bytes)
    assert row.accuracy_norm == metrics.accuracy_norm(scores.logprobs, scores.n_bytes)
    assert row.mrr == 1 / row.candidate_rank


def test_rows_suffice_to_compute_figures_of_candidates(model, tokenizer, bank, rows, tmp_path):
    """What stands in recall.jsonl, read back: accuracy, ranks and binding."""
    write_records(tmp_path / "recall.jsonl", rows)
    read = read_records(tmp_path / "recall.jsonl", ProbeResult)
    for row, probe in zip(read, bank.probes, strict=True):
        assert row.candidates == (probe.answers[0], *probe.distractors)
        assert row.candidate_logprobs[0] == row.logprob
        assert row.candidate_n_bytes == tuple(len(f" {text}".encode()) for text in row.candidates)
        found = metrics.candidate_metrics(row.candidate_logprobs, row.candidate_n_bytes)
        assert found == {name: getattr(row, name) for name in found}
    means: dict = defaultdict(list)
    for row in read:
        if row.role == "control":
            for text, logprob in zip(row.candidates, row.candidate_logprobs, strict=True):
                means[row.template, text].append((logprob, row.subject))
    known = {key for key, own in means.items() if len({subject for _, subject in own}) > 1}
    differences = []
    for row in read:
        apart = {
            text: logprob - np.mean([value for value, _ in means[row.template, text]])
            for text, logprob in zip(row.candidates, row.candidate_logprobs, strict=True)
            if (row.template, text) in known
        }
        own = apart.pop(row.answer, None)
        if row.role == "injected" and own is not None and apart:
            differences.append(own - np.mean(list(apart.values())))
    summary = corrected_summary(rows)["injected"]["memorization"]
    assert summary["binding"].mean == pytest.approx(np.mean(differences))
    assert summary["binding"].n == len(differences) > 0
    assert summary["binding"].mean > 1


def test_top_tokens(model, tokenizer, bank, rows):
    found = evaluate_recall(model, tokenizer, bank, generate=False, top_k=3)
    for row, plain in zip(found, rows, strict=True):
        probabilities = [probability for _, probability in row.top_tokens]
        assert len(probabilities) == 3
        assert 1 >= probabilities[0] >= probabilities[1] >= probabilities[2] > 0
        assert replace(row, top_tokens=UNSET) == replace(
            plain, exact_match=None, containment=None, generation=None
        )
        if row.greedy_match:
            assert f" {row.answer}".startswith(row.top_tokens[0][0])


def test_roles_and_generation_can_be_left_out(model, tokenizer, bank, rows):
    some = evaluate_recall(model, tokenizer, bank, roles=["control"], generate=False)
    expected = [row for row in rows if row.role == "control"]
    assert [row.probe_id for row in some] == [row.probe_id for row in expected]
    assert all(row.exact_match is row.generation is None for row in some)
    assert "exact_match" not in summarise(some)["control"]["memorization"]


def test_nulls(model, tokenizer):
    fact = Fact("f", "Ada Lopez", "born", "Paris", role="injected", object_aliases=("Lutetia",))
    passage = Fact("g", None, None, "Rome", role="injected")
    probes = [
        Probe("alone", ("f",), "memorization", "Ada Lopez was born in", ("Paris",), flags=("case",)),
        Probe("suffix", ("f",), "semantic", "In", ("Paris",), ("Rome",), suffix=" Ada Lopez was born."),
        Probe("long", ("g",), "semantic", "Ada Lopez was born in" * 40, ("Rome",), ("Paris",)),
    ]
    alone, suffix, long = evaluate_recall(model, tokenizer, FactBank({}, (), (fact, passage), (), probes))
    assert [getattr(alone, name) for name in ("accuracy", "accuracy_norm", "candidate_rank", "mrr")] == [
        None
    ] * 4
    assert alone.flags == ("case",)
    assert all(getattr(alone, name) is not None for name in ANSWER_ONLY)
    assert (alone.candidates, alone.candidate_logprobs) == (("Paris",), (alone.logprob,))

    assert all(getattr(suffix, name) is None for name in (*ANSWER_ONLY, "generation", "n_tokens", "n_bytes"))
    assert item_of(probes[1]) == Item("In", ("Paris", "Rome"), suffix=" Ada Lopez was born.", id="suffix")
    candidates = [Item("In", [f"{city} Ada Lopez was born." for city in ("Paris", "Rome")])]
    [whole] = score(model, tokenizer, candidates)
    assert suffix.candidate_rank == metrics.candidate_rank(whole.logprobs)
    assert suffix.candidate_logprobs == pytest.approx(whole.logprobs, abs=1e-4)
    assert suffix.accuracy_norm == metrics.accuracy_norm(whole.logprobs, whole.n_bytes)

    assert long.flags == ("truncated",)
    assert (long.subject, long.relation) == ("g", None)


def test_straddling_probes_are_flagged():
    tokenizer = tiny.metaspace(split=False)
    bank = tiny.bank()
    rows = evaluate_recall(tiny.llama(len(tokenizer)), tokenizer, bank, generate=False)
    assert any("straddles" in row.flags for row in rows)


def test_terminators():
    forward = Probe("p", ("f",), "semantic", "Ada is from", ("New York", "New York City"))
    for template, terminators in [
        (None, "."),
        ("{subject} was born in {object}.", "."),
        ("By day {subject} is a {object}!", "!"),
        ('He said: "{subject} is from {object}."', '."'),
        ("{subject} is from {object}", "."),
    ]:
        assert terminators_of(replace(forward, template=template)) == terminators


def draw_numbers(*_):
    random.random(), np.random.rand(), torch.rand(1)


def test_evaluation_leaves_no_trace(model, tokenizer, bank, rows):
    model.train()
    # some models draw random numbers even in eval mode
    handle = model.register_forward_hook(draw_numbers)
    states = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    assert evaluate_recall(model, tokenizer, bank) == rows
    handle.remove()
    assert model.training
    assert model.model.layers[0].self_attn.training
    assert states[0] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(states[2], torch.get_rng_state())
