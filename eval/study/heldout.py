"""Bits per byte of held-out text: what a model still knows of ordinary language.

    documents = read_documents(["held_out.txt"])
    rows = score_documents(model, tokenizer, documents)
    heldout_summary(rows)["bits_per_byte"]

A document is read from its beginning: after the tokenizer's own BOS, else after BOS or end-of-text, every
token of it is scored once, and -log2 of the joint probability is divided by the UTF-8 bytes. So the figure
can be compared across tokenizers. A document that is longer than the window is read in windows that overlap
by half or more, so that every token but the first ones has at least half a window before it; the tokenizer's
own BOS stays in front of each.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_text, split_at_blank_lines
from tidy_stlms.eval.models.inputs import (
    context_length,
    fill_batches,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.recall.metrics import bits_per_byte, bootstrap_interval
from tidy_stlms.eval.recall.statistics import N_BOOT
from tidy_stlms.eval.scoring.budget import (
    MAX_LOGITS,
    Budget,
    default_budget,
    memory_errors,
    run_batches,
)
from tidy_stlms.eval.scoring.encoding import own_prefix
from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched
from tidy_stlms.eval.tokens import encode_texts

MAX_WINDOW = 2048  # tokens; more context costs more and changes little
LOGITS_PER_CHUNK = 2**22  # lifted to float32 at a time


def read_documents(files: Sequence[str | Path]) -> list[str]:
    """The documents of text files, separated by blank lines; UserError for a file without any."""
    documents = []
    for file in files:
        lines = (line.rstrip("\r") for line in read_text(file).split("\n"))
        documents_of_file = list(split_at_blank_lines(lines))
        if not documents_of_file:
            raise UserError(f"{file}: holds no text")
        documents += documents_of_file
    return documents


def score_documents(
    model: Any, tokenizer: Any, documents: Sequence[str], *, batch_tokens: int | None = None
) -> list[dict[str, Any]]:
    """`{"nats", "n_bytes", "n_tokens"}` of each document: -ln of its probability, and its size.

    Raises UserError where a number is not finite, or nothing can stand before a document's first token.
    """
    encoded = encode_texts(tokenizer, documents)["input_ids"]
    prefix = own_prefix(tokenizer, documents[0]) if documents else []
    start = prefix or [_start_id(tokenizer)]
    rows, n_scored, owner = [], [], []
    for number, ids in enumerate(encoded):
        for row, n in _windows(start, ids, len(prefix), *_window(model)):
            rows.append(row)
            n_scored.append(n)
            owner.append(number)
    budget = default_budget(model, batch_tokens)
    with rng_untouched(model), torch.no_grad(), eval_mode(model), memory_errors(model):
        scored = _nats(model, padding_id(model, tokenizer), rows, n_scored, budget)
    nats = [0.0] * len(documents)
    for number, value in zip(owner, scored, strict=True):
        nats[number] += value
    broken = [text for text, value in zip(documents, nats, strict=True) if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"held-out text {broken[0][:30]!r}: its probability is not a finite number: the model's "
            "weights are broken, or the dtype too narrow (try float32)"
        )
    return [
        {"nats": value, "n_bytes": len(document.encode()), "n_tokens": len(ids)}
        for value, document, ids in zip(nats, documents, encoded, strict=True)
    ]


def heldout_summary(
    rows: Sequence[dict[str, Any]], *, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, float | int]:
    """`{"bits_per_byte", "low", "high", "n_bytes", "n_documents"}`, documents resampled."""
    nats, sizes = [row["nats"] for row in rows], [row["n_bytes"] for row in rows]
    bits = [math.log(2) * size for size in sizes]
    low, high = bootstrap_interval(nats, bits, range(len(rows)), n_boot=n_boot, seed=seed)
    return {
        "bits_per_byte": bits_per_byte([-value for value in nats], sizes),
        "low": low,
        "high": high,
        "n_bytes": sum(sizes),
        "n_documents": len(rows),
    }


def _window(model: Any) -> tuple[int, int]:
    """How many tokens the model reads at once, and of how many of them logits are kept at most."""
    window = min(context_length(model) or MAX_WINDOW, MAX_WINDOW)
    return window, max(1, min(window, MAX_LOGITS // text_config(model).vocab_size))


def _start_id(tokenizer: Any) -> int:
    """What stands before a document where the tokenizer puts nothing there, so that its first token can be
    scored too."""
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    start = next((token for token in ids if token is not None), None)
    if start is None:
        raise UserError(
            "held-out text needs a token to start from, and the tokenizer has neither BOS nor end-of-text"
        )
    return start


def _windows(
    start: list[int], ids: list[int], n_kept: int, window: int, most: int
) -> list[tuple[list[int], int]]:
    """Rows of at most `window` + 1 tokens, and how many at the end of each are scored: at most `most`.

    The last token of a row is only ever predicted. `n_kept` of the start tokens stand before every row.
    """
    whole = [*start, *ids]
    found = []
    done = len(start)
    while done < len(whole):
        end = min(done + (most if done == len(start) else min(most, max(1, window // 2))), len(whole))
        if end <= window + 1:
            row = whole[:end]
        else:
            row = start[:n_kept] + whole[end - window - 1 + n_kept : end]
        found.append((row, end - done))
        done = end
    return found


def _nats(model: Any, pad_id: int, rows: list[list[int]], n_scored: list[int], budget: Budget) -> list[float]:
    """-ln P of the last `n_scored` tokens of each row."""
    if not rows:
        return []
    inputs = [row[:-1] for row in rows]
    lengths = [len(row) for row in inputs]
    nats = [0.0] * len(rows)

    def run(batch: list[int]) -> None:
        keep = max(n_scored[i] for i in batch)
        logits = last_logits(model, [inputs[i] for i in batch], pad_id, keep)  # (rows, keep, vocabulary)
        for place, i in enumerate(batch):
            nats[i] = _cross_entropy(logits[place, -n_scored[i] :], rows[i][-n_scored[i] :])

    batches = fill_batches(
        lengths,
        n_scored if "logits_to_keep" in forward_parameters(model) else lengths,
        batch_tokens=budget.tokens,
        max_logits=budget.logits // text_config(model).vocab_size,
        same_length=not pads_safely(model, inputs, pad_id),
    )
    run_batches(batches, run, budget)
    return nats


def _cross_entropy(logits: torch.Tensor, ids: list[int]) -> float:
    """-ln P of tokens, from the (tokens, vocabulary) logits that predict them; float32 a part at a time."""
    targets = torch.tensor(ids, device=logits.device)
    size = max(1, LOGITS_PER_CHUNK // logits.shape[-1])
    parts = zip(logits.split(size), targets.split(size), strict=True)
    return sum(torch.nn.functional.cross_entropy(x.float(), y, reduction="sum").item() for x, y in parts)
