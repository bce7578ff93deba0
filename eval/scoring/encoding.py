"""From a prompt and its candidate answers to token rows, with what is to be scored in each.

The text of a candidate is `prompt + joint + answer + suffix`, encoded whole. Where the answer begins is
found by character offsets, since encoding prompt and answer apart gives other tokens than a model reads
(a SentencePiece prefix space, a BOS inside), and counting the prompt's tokens misses those that straddle
the boundary. See docs/recall.md.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.text_match import join
from tidy_stlms.eval.tokens import encode_texts, encode_with_own_tokens

logger = logging.getLogger(__name__)

ITEMS_PER_CALL = 512  # offsets of all texts at once would weigh more than the model


@dataclass(frozen=True)
class Item:
    """A prompt with its candidate answers, the true one first (no score depends on the place).

    `joint` stands between prompt and answer: a space, for prompts and answers are stored without it;
    "" where none is written ("l'" + "eau"), and for pairs that bring their own. `suffix` follows the answer
    as it stands and is scored with it.
    """

    prompt: str
    candidates: Sequence[str]
    suffix: str = ""
    id: str = ""
    joint: str = " "

    def __post_init__(self) -> None:
        if not self.candidates or isinstance(self.candidates, str):
            raise ValueError(f"Item {self.id!r}: candidates must be a list of at least one answer")


@dataclass(frozen=True)
class Row:
    """The tokens of one candidate's text; the last `n_scored` of them are the answer."""

    item: int
    candidate: int
    ids: list[int]
    n_scored: int
    n_bytes: int  # UTF-8, of the text that the scored tokens cover
    straddles: bool
    truncated: bool

    @property
    def stem(self) -> list[int]:
        """What stands before the answer: at least one token, from whose place the answer's first is
        predicted."""
        return self.ids[: -self.n_scored]

    @property
    def answer(self) -> list[int]:
        """The scored tokens."""
        return self.ids[-self.n_scored :]


def encode_items(tokenizer: Any, items: Sequence[Item], context_length: int | None = None) -> list[Row]:
    """Encode every candidate of every item; rows come in order of (item, candidate).

    Raises UserError, naming the item, where nothing is left to score or an answer cannot fit.
    """
    prefix = own_prefix(tokenizer, items[0].candidates[0]) if items else []
    rows: list[Row] = []
    for first in range(0, len(items), ITEMS_PER_CALL):
        chunk = items[first : first + ITEMS_PER_CALL]
        for index, (item, encoded) in enumerate(
            zip(chunk, _encode_chunk(tokenizer, chunk), strict=True), first
        ):
            rows += _rows_of_item(tokenizer, prefix, index, item, encoded, context_length)
    n_truncated = len({row.item for row in rows if row.truncated})
    if n_truncated:
        logger.warning(
            "%d of %d probes are longer than the model's context of %d tokens: their prompts were cut "
            "from the left (flag `truncated`)",
            *(n_truncated, len(items), context_length),
        )
    return rows


def encode_prompts(
    tokenizer: Any,
    prompts: Sequence[str],
    max_lengths: Sequence[int] | None = None,
    *,
    control_tokens: bool = False,
    warn: bool = True,
) -> list[list[int]]:
    """Token ids to generate from: BOS as the tokenizer has it, each cut from the left to its own length.

    `control_tokens`: see `encode_texts`.
    """
    contexts = [join(prompt)[0] for prompt in prompts]
    prefix = own_prefix(tokenizer, next((context for context in contexts if context), "a"))
    encoded = []
    n_cut = 0
    encoding = encode_texts(tokenizer, contexts, control_tokens=control_tokens)
    for place, core in enumerate(encoding["input_ids"]):
        ids, head = _with_prefix(tokenizer, prefix, core, needs_start=not core)
        excess = len(ids) - max_lengths[place] if max_lengths is not None else 0
        if excess > 0:
            # BOS stays: models that were trained with it lean on it
            head = min(head, max(len(ids) - excess - 1, 0))
            ids = ids[:head] + ids[head + excess :]
            n_cut += 1
        encoded.append(ids)
    if n_cut and warn:
        logger.warning("%d of %d prompts were cut from the left to fit the context", n_cut, len(prompts))
    return encoded


def own_prefix(tokenizer: Any, sample: str) -> list[int]:
    """The special tokens that the tokenizer puts before a text by itself (BOS, or nothing).

    Texts are encoded without special tokens and get this prefix, so that an end-of-text that some
    tokenizers append is never scored.
    """
    [core] = encode_texts(tokenizer, [sample])["input_ids"]
    whole = encode_with_own_tokens(tokenizer, sample)
    for length in range(len(whole) - len(core) + 1):
        if whole[length : length + len(core)] == core:
            return whole[:length]
    return []


# What a tokenizer says about one item: for each candidate its ids and the index of the first scored
# token, and the character at which scoring starts.
_Encoded = tuple[list[list[int]], list[int], int]


def _encode_chunk(tokenizer: Any, items: Sequence[Item]) -> Iterator[_Encoded]:
    contexts, texts = [], []
    for item in items:
        context, space = join(item.prompt, item.joint)
        contexts.append(context)
        texts += [context + space + answer + item.suffix for answer in item.candidates]
    # slow tokenizers say nothing when asked for offsets, and return none
    fast = tokenizer.is_fast
    encoding = encode_texts(tokenizer, texts, offsets=fast)
    alone = None if fast else encode_texts(tokenizer, contexts)["input_ids"]
    at = 0
    for index, (item, context) in enumerate(zip(items, contexts, strict=True)):
        own = slice(at, at + len(item.candidates))
        at = own.stop
        ids = encoding["input_ids"][own]
        if alone is None:
            yield ids, *_start_by_offsets(encoding["offset_mapping"][own], len(context))
        else:
            yield ids, *_start_by_tokens(tokenizer, ids, alone[index], context)


def _start_by_offsets(offsets: list[list[tuple[int, int]]], boundary: int) -> tuple[list[int], int]:
    """The first scored token of each candidate, and the character from which all of them are scored.

    A token that straddles the boundary moves the start to its own first character, for every candidate;
    there another candidate's token may straddle, so this goes on until nothing moves.
    """
    start = boundary
    while True:
        # byte-level tokenizers may trim the space off a token's span: only its end is to be trusted
        firsts = [
            0 if start == 0 else next((i for i, (_, end) in enumerate(spans) if end > start), len(spans))
            for spans in offsets
        ]
        begins = [spans[i][0] for spans, i in zip(offsets, firsts, strict=True) if i < len(spans)]
        earliest = min([start, *begins])
        if earliest == start:
            return firsts, start
        start = earliest


def _start_by_tokens(
    tokenizer: Any, ids: list[list[int]], context_ids: list[int], context: str
) -> tuple[list[int], int]:
    """The same without offsets: scoring starts where the tokens stop being those of the context alone."""
    common = min(_common_length(context_ids, candidate) for candidate in ids)
    start = len(context)
    if common < len(context_ids):
        begun = tokenizer.decode(context_ids[:common], clean_up_tokenization_spaces=False)
        # a tokenizer that does not give its text back leaves the boundary as the best that is known
        start = len(begun) if context.startswith(begun) else start - 1
    return [common] * len(ids), start


def _common_length(left: list[int], right: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )


def _rows_of_item(
    tokenizer: Any, prefix: list[int], index: int, item: Item, encoded: _Encoded, context_length: int | None
) -> list[Row]:
    candidates_ids, firsts, start = encoded
    context, space = join(item.prompt, item.joint)
    whole, scored, heads = [], [], []
    for answer, core, first in zip(item.candidates, candidates_ids, firsts, strict=True):
        if first >= len(core):
            raise UserError(
                f"probe {item.id or index}: the tokenizer makes no token of the answer {answer!r}"
            )
        ids, head = _with_prefix(tokenizer, prefix, core, needs_start=first == 0)
        whole.append(ids)
        scored.append(len(core) - first)
        heads.append(head)

    # every candidate loses the same part of the prompt, or they would not be asked the same question
    excess = max(len(ids) - 1 for ids in whole) - context_length if context_length is not None else 0
    rows = []
    for candidate, (answer, ids, n_scored, head) in enumerate(
        zip(item.candidates, whole, scored, heads, strict=True)
    ):
        if excess > 0:
            if len(ids) - n_scored - excess < max(head, 1):
                raise UserError(
                    f"probe {item.id or index}: an answer of {max(scored)} tokens does not fit into the "
                    f"model's context of {context_length} tokens"
                )
            ids = ids[:head] + ids[head + excess :]
        text = (context + space + answer + item.suffix)[start:]
        rows.append(
            Row(
                item=index,
                candidate=candidate,
                ids=ids,
                n_scored=n_scored,
                n_bytes=len(text.encode()),
                straddles=start < len(context),
                truncated=excess > 0,
            )
        )
    return rows


def _with_prefix(
    tokenizer: Any, prefix: list[int], core: list[int], needs_start: bool
) -> tuple[list[int], int]:
    """Put the tokenizer's own BOS before `core`, once; returns the ids and how many begin them.

    `needs_start`: nothing of the text stands before the first scored token, so that a start token is
    needed even where the tokenizer adds none.
    """
    if prefix:
        ids = core if core[: len(prefix)] == prefix and not needs_start else prefix + core
        return ids, len(prefix)
    if not needs_start:
        return core, 0
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError(
            "an empty prompt needs a start token, and the tokenizer has neither BOS nor end-of-text: "
            "set one of them, or give the probe a prompt"
        )
    return [start, *core], 1
