"""Bits per byte of held-out text: how well a model predicts ordinary language.

    documents = read_documents(["held_out.txt"])
    scores = score_documents(model, tokenizer, documents)
    heldout_summary(scores).bits_per_byte

A document is scored from its beginning. The model's prefix stands before it (`eval/models/prefix.py`); if
there is none, BOS or end-of-text, because a token must predict the first one. Each token is scored once.
-log2 of the document's probability is divided by its UTF-8 bytes, so the figure can be compared across
tokenizers. A document that is longer than the window is read in one of two styles:

- `overlap` (default): windows overlap by half or more. So every token, except in the first window, has at
  least half a window before it. A prefix other than end-of-text stands before each window. End-of-text
  stands before the document only: training rows that continue a document have none.
- `rolling`: as in lm-eval (`loglikelihood_rolling`). A window begins with the last token of the window before
  it, so the first tokens of each window have little before them. Only the last one reaches back as far as it
  can. The window is the model's whole context, and BOS, if the tokenizer adds it, is scored too.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tidy_stlms.configs.errors import UserError, shown
from tidy_stlms.configs.records import Output
from tidy_stlms.eval.models.inputs import (
    context_length,
    fill_batches,
    forward_parameters,
    last_logits,
    padding_id,
    pads_safely,
    text_config,
)
from tidy_stlms.eval.models.prefix import own_prefix, prefix_of
from tidy_stlms.eval.recall.metrics import bits_per_byte
from tidy_stlms.eval.recall.results import DocumentScore
from tidy_stlms.eval.recall.statistics import N_BOOT, bootstrap_interval
from tidy_stlms.eval.scoring.budget import (
    MAX_LOGITS,
    Budget,
    default_budget,
    memory_errors,
    run_batches,
)
from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched
from tidy_stlms.eval.styles import OVERLAP, ROLLING
from tidy_stlms.eval.texts import TextFormat, expand_files, refuse_unused, texts_of, told
from tidy_stlms.eval.tokens import encode_texts, encode_with_own_tokens

MAX_WINDOW = 2048  # tokens of `overlap`; more context costs more and changes little
WINDOW_WITHOUT_LIMIT = 2048  # tokens of `rolling` if neither model nor tokenizer has a limit, as in lm-eval
NO_LIMIT = 10**18  # transformers writes 10^30 into `model_max_length` if a tokenizer has no limit
LOGITS_PER_CHUNK = 2**22  # converted to float32 at a time


Row = tuple[list[int], int]
"""The tokens of an input, whose last token is only predicted, and how many at its end are scored."""


class HeldoutEstimate(Output, frozen=True, omit_defaults=True, kw_only=True):
    """Bits per byte of held-out text with its 95% bootstrap interval over documents; or only `error`, if the
    text could not be scored."""

    bits_per_byte: float | None = None
    """-log2 P(documents) / n_bytes; null after an error, like the next four."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    n_bytes: int | None = None
    """UTF-8 bytes of all documents."""
    n_documents: int | None = None
    """The number of documents."""
    style: str | None = None
    """How documents longer than the window were read, `overlap` or `rolling`; if missing, `overlap`."""
    error: str | None = None
    """Why the text could not be scored, in one line."""


def read_documents(files: Sequence[str | Path], form: TextFormat | None = None) -> list[str]:
    """Read the documents of files. Without `form`, blank lines separate the documents of .txt files.

    Raises UserError for a file that cannot be read, or holds no documents.
    """
    documents: list[str] = []
    form = form or TextFormat()
    paths = expand_files(list(map(str, files)), "--heldout") if files else []
    refuse_unused(paths, form, {"column": "--text-column", "separator": "--separator"})
    for file in paths:
        of_file = list(told(texts_of(file, form), str(file)))
        if not of_file:
            raise UserError(f"{file}: holds no text")
        documents += of_file
    return documents


def score_documents(
    model: Any,
    tokenizer: Any,
    documents: Sequence[str],
    *,
    batch_tokens: int | None = None,
    prefix: str | None = None,
    style: str = OVERLAP,
) -> list[DocumentScore]:
    """Score each document. `prefix` is what stands before it, as for `prefix_of`; `style` is one of
    HELDOUT_STYLES.

    Raises UserError if a number is not finite, or if no token can stand before a document's first token.
    """
    encoded = encode_texts(tokenizer, documents)["input_ids"]
    read = _rolling_rows if style == ROLLING else _overlapping_rows
    rows, n_scored, document_of_row = [], [], []
    for number, windows in enumerate(read(model, tokenizer, documents, encoded, prefix)):
        for tokens, n in windows:
            rows.append(tokens)
            n_scored.append(n)
            document_of_row.append(number)
    budget = default_budget(model, batch_tokens)
    with rng_untouched(model), torch.no_grad(), eval_mode(model), memory_errors(model):
        scored = _nats(model, padding_id(model, tokenizer), rows, n_scored, budget)
    nats = [0.0] * len(documents)
    for number, value in zip(document_of_row, scored, strict=True):
        nats[number] += value
    broken = [text for text, value in zip(documents, nats, strict=True) if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"held-out text {shown(broken[0])}: its probability is not a finite number: the model's "
            "weights are broken, or the dtype too narrow (try float32)"
        )
    return [
        DocumentScore(nats=value, n_bytes=len(document.encode()), n_tokens=len(ids))
        for value, document, ids in zip(nats, documents, encoded, strict=True)
    ]


def heldout_summary(
    scores: Sequence[DocumentScore], *, style: str = OVERLAP, n_boot: int = N_BOOT, seed: int = 0
) -> HeldoutEstimate:
    """Bits per byte over all documents; the bootstrap resamples documents. `style` is that of the scores."""
    nats, sizes = [score.nats for score in scores], [score.n_bytes for score in scores]
    denominators = [math.log(2) * size for size in sizes]
    low, high = bootstrap_interval(nats, denominators, range(len(scores)), n_boot=n_boot, seed=seed)
    return HeldoutEstimate(
        bits_per_byte=bits_per_byte([-value for value in nats], sizes),
        low=low,
        high=high,
        n_bytes=sum(sizes),
        n_documents=len(scores),
        style=style,
    )


def _overlapping_rows(
    model: Any, tokenizer: Any, documents: Sequence[str], encoded: Sequence[list[int]], prefix: str | None
) -> Iterator[list[Row]]:
    """The rows of each document in the style `overlap`."""
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    start = list(prefix_ids) or [_start_id(tokenizer)]
    n_kept = 0 if prefix_ids == (tokenizer.eos_token_id,) else len(prefix_ids)
    window = min(context_length(model) or MAX_WINDOW, MAX_WINDOW)
    most = _most_logits(model, window)
    return (_overlapping_windows(start, ids, n_kept, window, most) for ids in encoded)


def _rolling_rows(
    model: Any, tokenizer: Any, documents: Sequence[str], encoded: Sequence[list[int]], prefix: str | None
) -> Iterator[list[Row]]:
    """The rows of each document in the style `rolling`.

    lm-eval encodes a document as the tokenizer does by itself, and puts BOS or else end-of-text before it. So
    BOS is scored after BOS if the tokenizer adds one. With another prefix than the tokenizer's own, this is
    lm-eval with the arguments `add_bos_token=False,prefix_token_id=ID`, and only the text is scored.
    """
    prefix_ids = prefix_of(model, tokenizer, prefix).ids
    if prefix_ids == own_prefix(tokenizer).ids:
        encoded = [encode_with_own_tokens(tokenizer, document) for document in documents]
        prefix_ids = ()
    start = prefix_ids[-1] if prefix_ids else _start_id(tokenizer)
    limit = tokenizer.model_max_length
    window = context_length(model) or (limit if limit < NO_LIMIT else WINDOW_WITHOUT_LIMIT)
    most = _most_logits(model, window)
    return (_rolling_windows(start, ids, window, most) for ids in encoded)


def _most_logits(model: Any, window: int) -> int:
    """The most tokens of a window whose logits are kept at once."""
    return max(1, min(window, MAX_LOGITS // text_config(model).vocab_size))


def _start_id(tokenizer: Any) -> int:
    """The token before a document if there is no prefix. It makes the first token scorable."""
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    start = next((token for token in ids if token is not None), None)
    if start is None:
        raise UserError(
            "held-out text needs a token to start from, and the tokenizer has neither BOS nor end-of-text"
        )
    return start


def _overlapping_windows(start: list[int], ids: list[int], n_kept: int, window: int, most: int) -> list[Row]:
    """Split a document into inputs of at most `window` + 1 tokens, whose last token is only predicted.

    Returns each with the number of tokens at its end that are scored, at most `most`. The first `n_kept` of
    the start tokens stand before each.
    """
    whole = [*start, *ids]
    windows = []
    done = len(start)
    while done < len(whole):
        end = min(done + (most if done == len(start) else min(most, max(1, window // 2))), len(whole))
        if end <= window + 1:
            tokens = whole[:end]
        else:
            tokens = start[:n_kept] + whole[end - window - 1 + n_kept : end]
        windows.append((tokens, end - done))
        done = end
    return windows


def _rolling_windows(start: int, ids: list[int], window: int, most: int) -> list[Row]:
    """lm-eval's windows of a document (`get_rolling_token_windows`), as in `_overlapping_windows`.

    Each scores the next `window` tokens and begins as far back as it can. A window with more than `most`
    scored tokens is split into rows that begin alike.
    """
    whole = [start, *ids]
    rows = []
    for done in range(1, len(whole), window):
        end = min(done + window, len(whole))
        first = max(0, end - window - 1)
        for begin in range(done, end, most):
            stop = min(begin + most, end)
            rows.append((whole[first:stop], stop - begin))
    return rows


def _nats(model: Any, pad_id: int, rows: list[list[int]], n_scored: list[int], budget: Budget) -> list[float]:
    """-ln P of the last `n_scored` tokens of each row."""
    if not rows:
        return []
    inputs = [row[:-1] for row in rows]
    lengths = [len(row) for row in inputs]
    nats = [0.0] * len(rows)

    def run(batch: list[int]) -> None:
        keep = max(n_scored[i] for i in batch)
        logits = last_logits(model, [inputs[i] for i in batch], pad_id, keep)  # (batch, keep, vocabulary)
        for row, i in enumerate(batch):
            nats[i] = _cross_entropy(logits[row, -n_scored[i] :], rows[i][-n_scored[i] :])

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
    """-ln P of tokens from the logits that predict them, (tokens, vocabulary); in float32, part by part."""
    targets = torch.tensor(ids, device=logits.device)
    size = max(1, LOGITS_PER_CHUNK // logits.shape[-1])
    parts = zip(logits.split(size), targets.split(size), strict=True)
    return sum(torch.nn.functional.cross_entropy(x.float(), y, reduction="sum").item() for x, y in parts)
