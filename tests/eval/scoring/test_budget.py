"""Where memory runs out, batches shrink, and the numbers stay."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tests.eval import tiny
from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.inputs import cache_name
from tidy_stlms.eval.scoring import budget
from tidy_stlms.eval.scoring.budget import (
    Budget,
    default_batch_tokens,
    default_budget,
    is_out_of_memory,
    run_batches,
)
from tidy_stlms.eval.scoring.generation import generate_texts
from tidy_stlms.eval.scoring.scorer import Item
from tidy_stlms.eval.scoring.scorer import score as score_items

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LINUX = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 823410688 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1 GB)")

score = partial(score_items, share_prompts=True)  # however little there is to score

ANSWERS = ["Kuala Oslo", "Springer", "St. Chen Lopez", "Paris"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.byte_level(bos=True)


@pytest.fixture(scope="module")
def items():
    return [Item(probe.prompt, ANSWERS) for probe in tiny.bank().probes][::3]


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    """Forward passes seem expensive: few batches, and large ones."""
    monkeypatch.setattr(budget, "CPU_PASS_TOKENS", 10_000)


def limit_memory(model, error, fits):
    """Let the model read `fits` tokens at a time, cached ones included; returns the sizes of all attempts."""
    sizes = []

    def limited(_model, _args, kwargs):
        mask = kwargs.get("attention_mask")
        sizes.append((kwargs["input_ids"] if mask is None else mask).numel())
        if sizes[-1] > fits:
            raise error

    model.register_forward_pre_hook(limited, with_kwargs=True)
    return sizes


@pytest.mark.parametrize(
    "error", [CUDA, LINUX, WINDOWS, MPS, MemoryError()], ids=lambda error: str(error)[:20]
)
def test_out_of_memory_halves_batches(error, tokenizer, items, caplog):
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items)
    sizes = limit_memory(model, error, fits=150)
    found = score(model, tokenizer, items)
    assert "out of memory: going on with batches of 1024 tokens" in caplog.text
    # what is left is cut too: memory does not run out anew in every batch
    assert sum(size > 150 for size in sizes) < 10 < len(sizes)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.token_ranks == theirs.token_ranks


def test_out_of_memory_behind_prompts_reads_nothing_twice(tokenizer, items):
    """Answers are halved down to a single one, and then the prompts that they stand behind."""
    model = tiny.llama(len(tokenizer))
    expected = score(model, tokenizer, items)
    prompts, answers = [], []

    def limited(_model, _args, kwargs):
        behind = kwargs.get(cache_name(model)) is not None
        (answers if behind else prompts).append(len(kwargs["input_ids"]))
        if 2 < len(answers) < 9 and behind:  # the first two are the trial
            raise CUDA

    model.register_forward_pre_hook(limited, with_kwargs=True)
    found = score(model, tokenizer, items)
    assert 1 in answers[2:8]
    together, *halves = [n for n in prompts if n > 2]
    assert together == sum(halves)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_generation_shrinks_too(tokenizer, items, caplog):
    model = tiny.llama(len(tokenizer))
    prompts, budgets = [item.prompt for item in items], [4] * len(items)
    expected = generate_texts(model, tokenizer, prompts, budgets)
    sizes = limit_memory(model, LINUX, fits=100)
    assert generate_texts(model, tokenizer, prompts, budgets) == expected
    assert "out of memory" in caplog.text
    assert sizes[-1] <= 100


def test_a_model_that_never_fits_is_one_line(tokenizer, items):
    model = tiny.llama(len(tokenizer))
    limit_memory(model, CUDA, fits=3)
    with pytest.raises(UserError, match="out of memory on cpu: not even one text fits"):
        score(model, tokenizer, items)
    with pytest.raises(UserError, match="out of memory on cpu"):
        generate_texts(model, tokenizer, ["Ada Lopez was born in"], [3])


def test_other_errors_pass(tokenizer, items):
    model = tiny.llama(len(tokenizer))
    limit_memory(model, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), fits=3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        score(model, tokenizer, items)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_run_batches_does_all_of_the_work_once():
    done, budget = [], Budget(tokens=64, logits=1000, cache_bytes=1000, pass_tokens=48)

    def run(batch):
        if len(batch) > 2:
            raise CUDA
        done.extend(batch)

    run_batches([[1, 2, 3, 4, 5], [6, 7, 8], [9], []], run, budget)
    assert done == list(range(1, 10))
    assert budget.tokens == 16  # of 5, then of 3
    assert (budget.logits, budget.cache_bytes, budget.pass_tokens) == (250, 250, 48)
    with pytest.raises(torch.OutOfMemoryError):
        run_batches([[1]], lambda batch: run(batch * 3), budget)


@pytest.mark.parametrize(
    ("free", "least", "most"),
    [(None, 2048, 2048), (2**24, 2048, 2048), (2**27, 2049, 32767), (2**40, 32768, 32768)],
)
def test_budgets_follow_the_device(free, least, most, tokenizer, monkeypatch):
    device = torch.device("cpu" if free is None else "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**40))
    config = tiny.llama(len(tokenizer)).config
    model = SimpleNamespace(config=config, device=device, dtype=torch.float32)
    assert least <= default_batch_tokens(model) <= most
    assert default_budget(model).tokens == default_batch_tokens(model)
    assert default_budget(model, batch_tokens=7).tokens == 7
    assert (default_budget(model).pass_tokens == budget.CPU_PASS_TOKENS) == (free is None)
