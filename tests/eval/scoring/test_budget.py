"""Where memory runs out, batches shrink, and the numbers stay."""

import inspect

import pytest
import torch

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import cache_name
from tidy_stlms.eval.scoring import budget, scorer
from tidy_stlms.eval.scoring.budget import Budget, default_batch_tokens, is_out_of_memory, run_batches
from tidy_stlms.eval.scoring.generation import generate_texts
from tidy_stlms.eval.scoring.scorer import Item, score

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LINUX = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 823410688 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1 GB)")

ANSWERS = ["Kuala Oslo", "Springer", "St. Chen Lopez", "Paris"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def items():
    return [Item(probe.prompt, ANSWERS) for probe in tiny.bank().probes][::3]


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch):
    """Prompts are shared, however little there is to score."""
    monkeypatch.setattr(scorer._Scoring, "_gains", lambda *_: True)
    monkeypatch.setattr(budget, "CPU_PASS_TOKENS", 10_000)  # so that few batches are large ones


def small(model, error, monkeypatch, fits):
    """A model that can read `fits` tokens at a time, cached ones included; and what it was asked to read."""
    sizes = []
    forward = model.forward

    def limited(*args, input_ids=None, attention_mask=None, **kwargs):
        sizes.append((input_ids if attention_mask is None else attention_mask).numel())
        if sizes[-1] > fits:
            raise error
        return forward(*args, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    limited.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", limited)
    return sizes


@pytest.mark.parametrize("error", [CUDA, LINUX, WINDOWS, MPS, MemoryError()], ids=lambda one: str(one)[:20])
def test_out_of_memory_halves_batches(error, tokenizer, items, monkeypatch, caplog):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items)
    sizes = small(model, error, monkeypatch, fits=150)
    found = score(model, tokenizer, items)
    assert "out of memory: going on with batches of 1024 tokens" in caplog.text
    # what is left is cut too: memory does not run out anew in every batch
    assert sum(size > 150 for size in sizes) < 10 < len(sizes)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.token_ranks == theirs.token_ranks


def test_out_of_memory_behind_prompts_reads_nothing_twice(tokenizer, items, monkeypatch):
    """Answers are halved down to a single one, and then the prompts that they stand behind."""
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items)
    forward, prompts, answers = model.forward, [], []

    def limited(*args, input_ids=None, **kwargs):
        behind = kwargs.get(cache_name(model)) is not None
        (answers if behind else prompts).append(len(input_ids))
        if 2 < len(answers) < 9 and behind:  # two were to try it out
            raise CUDA
        return forward(*args, input_ids=input_ids, **kwargs)

    limited.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", limited)
    found = score(model, tokenizer, items)
    assert 1 in answers[2:8]
    together, *halves = [n for n in prompts if n > 2]
    assert together == sum(halves)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_generation_shrinks_too(tokenizer, items, monkeypatch, caplog):
    model = tiny.llama(len(tokenizer))
    prompts, budgets = [item.prompt for item in items], [4] * len(items)
    expected = generate_texts(model, tokenizer, prompts, budgets)
    sizes = small(model, LINUX, monkeypatch, fits=100)
    assert generate_texts(model, tokenizer, prompts, budgets) == expected
    assert "out of memory" in caplog.text
    assert sizes[-1] <= 100


def test_a_model_that_never_fits_is_one_line(tokenizer, items, monkeypatch):
    model = tiny.llama(len(tokenizer))
    small(model, CUDA, monkeypatch, fits=3)
    with pytest.raises(UserError, match="out of memory on cpu: not even one text fits"):
        score(model, tokenizer, items)
    with pytest.raises(UserError, match="out of memory on cpu"):
        generate_texts(model, tokenizer, ["Ada Lopez was born in"], [3])


def test_other_errors_pass(tokenizer, items, monkeypatch):
    model = tiny.llama(len(tokenizer))
    small(model, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), monkeypatch, fits=3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        score(model, tokenizer, items)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_run_batches_does_all_of_the_work_once():
    done, budget = [], Budget(tokens=64)

    def run(batch):
        if len(batch) > 2:
            raise CUDA
        done.extend(batch)

    run_batches([[1, 2, 3, 4, 5], [6, 7, 8], [9], []], run, budget)
    assert done == list(range(1, 10))
    assert budget.tokens == 16  # of 5, then of 3
    with pytest.raises(torch.OutOfMemoryError):
        run_batches([[1]], lambda batch: run(batch * 3), budget)


@pytest.mark.parametrize(
    ("free", "least", "most"),
    [(None, 2048, 2048), (2**24, 2048, 2048), (2**27, 2049, 32767), (2**40, 32768, 32768)],
)
def test_budgets_follow_the_device(free, least, most, tokenizer, monkeypatch):
    model = tiny.llama(len(tokenizer))
    monkeypatch.setattr(budget, "_free_bytes", lambda device: free)
    assert least <= default_batch_tokens(model) <= most
