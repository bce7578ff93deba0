"""Encodes a prompt with its candidate answers, and finds the tokens to score.

The text of a candidate is `prompt + joint + answer + suffix`, encoded as one piece, as a model reads it.
Encoding prompt and answer apart would give other tokens: a space that SentencePiece puts before every text,
a BOS in the middle, two tokens where the whole text has one. See docs/recall.md.

Where the answer's tokens start is found by their character offsets. Counting the prompt's tokens would be
wrong when a token covers the end of the prompt and the beginning of the answer: " 20" + "03" may be the one
token " 2003". Such a token is scored, from its beginning, and the probe is flagged `straddles`: part of the
prompt is scored with the answer, and other tools may score other tokens, or none.

A text that is longer than the model's context loses the beginning of its prompt, never a part of the answer.
The probe is flagged `truncated`: the model did not see the whole question.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.models.prefix import own_prefix
from tidy_stlms.eval.tokens import encode_texts

logger = logging.getLogger(__name__)

ITEMS_PER_CALL = 512  # the offsets of all texts at once would take more memory than the model


@dataclass(frozen=True)
class Item:
    """A prompt with its candidate answers, the right one first. No score depends on their order."""

    prompt: str
    candidates: Sequence[str]
    suffix: str = ""
    """Follows the answer as it is, and is scored with it."""
    id: str = ""
    """Names the item in errors; without an id, its number is used."""
    joint: str = " "
    """Stands between prompt and answer: a space, or "" where none is written ("l'" + "eau")."""

    def __post_init__(self) -> None:
        if not self.candidates or isinstance(self.candidates, str):
            raise ValueError(f"Item {self.id!r}: candidates must be a list of at least one answer")


@dataclass(frozen=True)
class EncodedCandidate:
    """The tokens of one candidate's text. The last `n_scored` of them are the answer."""

    item: int
    """Index of its item."""
    candidate: int
    """Index among the item's candidates; 0 is the right answer."""
    ids: list[int]
    n_scored: int
    n_bytes: int
    """UTF-8 bytes of the text that the scored tokens cover."""
    straddles: bool
    truncated: bool

    @property
    def prompt_ids(self) -> list[int]:
        """All tokens before the answer: at least one, whose logits predict the answer's first token."""
        return self.ids[: -self.n_scored]

    @property
    def answer_ids(self) -> list[int]:
        """The scored tokens."""
        return self.ids[-self.n_scored :]


class _ItemTokens(NamedTuple):
    """The tokens of an item's candidates, before the prefix is added and prompts are cut."""

    ids: list[list[int]]
    """For each candidate."""
    first_scored: list[int]
    """For each candidate the index of its first scored token."""
    start: int
    """The character of the text at which scoring starts, the same for all candidates."""


def encode_items(
    tokenizer: Any,
    items: Sequence[Item],
    context_length: int | None = None,
    *,
    prefix: Sequence[int] | None = None,
) -> list[EncodedCandidate]:
    """Encode every candidate of every item, in order of (item, candidate).

    Args:
        context_length: The number of tokens that the model can read; None if it has no limit.
        prefix: Ids of the special tokens before each text; the tokenizer's own when left out.

    Raises UserError, naming the item, if an answer has no tokens or does not fit into the context.
    """
    prefix = list(own_prefix(tokenizer).ids if prefix is None else prefix)
    candidates: list[EncodedCandidate] = []
    for first in range(0, len(items), ITEMS_PER_CALL):
        chunk = items[first : first + ITEMS_PER_CALL]
        for index, (item, tokens) in enumerate(
            zip(chunk, _encode_chunk(tokenizer, chunk), strict=True), first
        ):
            candidates += _encode_candidates(tokenizer, prefix, index, item, tokens, context_length)
    n_truncated = len({candidate.item for candidate in candidates if candidate.truncated})
    if n_truncated:
        logger.warning(
            "%d of %d probes are longer than the model's context of %d tokens: their prompts were cut "
            "from the left (flag `truncated`)",
            *(n_truncated, len(items), context_length),
        )
    return candidates


def encode_prompts(
    tokenizer: Any,
    prompts: Sequence[str],
    max_lengths: Sequence[int] | None = None,
    *,
    prefix: Sequence[int] | None = None,
    control_tokens: bool = False,
    warn: bool = True,
) -> list[list[int]]:
    """Token ids to generate from.

    Args:
        prefix: Ids of the special tokens before each text; the tokenizer's own when left out.
        max_lengths: Tokens of each prompt at most; a longer one is cut from the left.
        control_tokens: See `encode_texts`.
        warn: Log how many prompts were cut.
    """
    contexts = [join(prompt)[0] for prompt in prompts]
    prefix = list(own_prefix(tokenizer).ids if prefix is None else prefix)
    encoded = []
    n_cut = 0
    encoding = encode_texts(tokenizer, contexts, control_tokens=control_tokens)
    for index, text_ids in enumerate(encoding["input_ids"]):
        ids, n_prefix = _with_prefix(tokenizer, prefix, text_ids, needs_start=not text_ids)
        excess = len(ids) - max_lengths[index] if max_lengths is not None else 0
        if excess > 0:
            # the prefix stays: models that were trained with it attend to it
            n_prefix = min(n_prefix, max(len(ids) - excess - 1, 0))
            ids = ids[:n_prefix] + ids[n_prefix + excess :]
            n_cut += 1
        encoded.append(ids)
    if n_cut and warn:
        logger.warning("%d of %d prompts were cut from the left to fit the context", n_cut, len(prompts))
    return encoded


def _encode_chunk(tokenizer: Any, items: Sequence[Item]) -> Iterator[_ItemTokens]:
    contexts, texts = [], []
    for item in items:
        context, space = join(item.prompt, item.joint)
        contexts.append(context)
        texts += [context + space + answer + item.suffix for answer in item.candidates]
    # slow tokenizers ignore the request for offsets without an error
    has_offsets = tokenizer.is_fast
    encoding = encode_texts(tokenizer, texts, offsets=has_offsets)
    context_ids = None if has_offsets else encode_texts(tokenizer, contexts)["input_ids"]
    first_text = 0
    for index, (item, context) in enumerate(zip(items, contexts, strict=True)):
        item_texts = slice(first_text, first_text + len(item.candidates))
        first_text = item_texts.stop
        ids = encoding["input_ids"][item_texts]
        if context_ids is None:
            first_scored, start = _start_by_offsets(encoding["offset_mapping"][item_texts], len(context))
        else:
            first_scored, start = _start_by_tokens(tokenizer, ids, context_ids[index], context)
        yield _ItemTokens(ids, first_scored, start)


def _start_by_offsets(offsets: list[list[tuple[int, int]]], boundary: int) -> tuple[list[int], int]:
    """The first scored token of each candidate, and the character at which scoring starts for all of them.

    Candidates are only comparable if the same characters of the prompt are scored with each. A token that
    covers the boundary moves the start to its own first character, for every candidate. A token of another
    candidate may cover the new start. So this is repeated until the start stays where it is.
    """
    start = boundary
    while True:
        # the first token that ends after the start. Where a token begins is unreliable: byte-level
        # tokenizers may leave the space out of its span. With an empty prompt (start 0) all tokens are
        # scored, even one with an empty span
        first_scored = [
            0 if start == 0 else next((i for i, (_, end) in enumerate(spans) if end > start), len(spans))
            for spans in offsets
        ]
        begins = [spans[i][0] for spans, i in zip(offsets, first_scored, strict=True) if i < len(spans)]
        earliest = min([start, *begins])
        if earliest == start:
            return first_scored, start
        start = earliest


def _start_by_tokens(
    tokenizer: Any, ids: list[list[int]], context_ids: list[int], context: str
) -> tuple[list[int], int]:
    """`_start_by_offsets` for tokenizers without offsets.

    Tokens are scored from the first index at which a candidate's tokens differ from those of the context
    alone. The index is the same for all candidates, as in `_start_by_offsets`.
    """
    n_common = min(_common_length(context_ids, candidate_ids) for candidate_ids in ids)
    start = len(context)
    if n_common < len(context_ids):
        common_text = tokenizer.decode(context_ids[:n_common], clean_up_tokenization_spaces=False)
        # if decoding changes the text, the character is unknown: one before the boundary marks it as
        # straddling
        start = len(common_text) if context.startswith(common_text) else start - 1
    return [n_common] * len(ids), start


def _common_length(left: list[int], right: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )


def _encode_candidates(
    tokenizer: Any,
    prefix: list[int],
    index: int,
    item: Item,
    tokens: _ItemTokens,
    context_length: int | None,
) -> list[EncodedCandidate]:
    context, space = join(item.prompt, item.joint)
    texts, n_scored, n_prefixes = [], [], []
    for answer, text_ids, first in zip(item.candidates, tokens.ids, tokens.first_scored, strict=True):
        if first >= len(text_ids):
            raise UserError(
                f"probe {item.id or index}: the tokenizer makes no token of the answer {answer!r}"
            )
        ids, n_prefix = _with_prefix(tokenizer, prefix, text_ids, needs_start=first == 0)
        texts.append(ids)
        n_scored.append(len(text_ids) - first)
        n_prefixes.append(n_prefix)

    # The last token is only predicted, so a text may be one token longer than the context. All candidates
    # lose the same part of the prompt: otherwise they would answer different prompts.
    excess = max(len(ids) - 1 for ids in texts) - context_length if context_length is not None else 0
    candidates = []
    for candidate, answer in enumerate(item.candidates):
        ids, n_prefix = texts[candidate], n_prefixes[candidate]
        if excess > 0:
            if len(ids) - n_scored[candidate] - excess < max(n_prefix, 1):
                what = "an answer" if item.prompt else "a text"
                raise UserError(
                    f"probe {item.id or index}: {what} of {max(n_scored)} tokens does not fit into the "
                    f"model's context of {context_length} tokens"
                )
            ids = ids[:n_prefix] + ids[n_prefix + excess :]
        scored_text = (context + space + answer + item.suffix)[tokens.start :]
        candidates.append(
            EncodedCandidate(
                item=index,
                candidate=candidate,
                ids=ids,
                n_scored=n_scored[candidate],
                n_bytes=len(scored_text.encode()),
                straddles=tokens.start < len(context),
                truncated=excess > 0,
            )
        )
    return candidates


def _with_prefix(
    tokenizer: Any, prefix: list[int], text_ids: list[int], needs_start: bool
) -> tuple[list[int], int]:
    """Put the prefix before a text, once; returns the ids and the length of the prefix.

    `needs_start`: the first scored token is the text's first, so that a start token must predict it, even if
    there is no prefix.
    """
    if prefix:
        ids = text_ids if text_ids[: len(prefix)] == prefix and not needs_start else prefix + text_ids
        return ids, len(prefix)
    if not needs_start:
        return text_ids, 0
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError(
            "an empty prompt needs a start token, and the tokenizer has neither BOS nor end-of-text: "
            "set one of them, or give the probe a prompt"
        )
    return [start, *text_ids], 1
