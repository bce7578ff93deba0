"""Which forward passes a set of answers needs, and what is read off each of them.

A causal model says the same at a position whatever follows. So an answer needs no pass of its own where
its tokens begin another's, all answers to a prompt read their first token at the prompt's end, and prompts
that begin alike ("The birth city of ...") can have their beginning read once.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eval.recall.encoding import Row


class Reading(NamedTuple):
    """One answer token, and where it is predicted."""

    position: int
    """Among the inputs of its pass."""
    token: int
    row: int
    place: int
    """Among the row's scored tokens."""


@dataclass
class Pass:
    """One row of a forward pass: a prompt, a prompt with an answer, or what follows behind another pass."""

    inputs: list[int]
    readings: list[Reading] = field(default_factory=list)
    branches: list["Pass"] = field(default_factory=list)
    """Passes that go on from this one's keys and values."""

    @property
    def n_logits(self) -> int:
        """Positions at the end whose logits are kept."""
        return len(self.inputs) - min((one.position for one in self.readings), default=len(self.inputs) - 1)


def plan_whole(rows: Sequence[Row]) -> list[Pass]:
    """Passes that read prompt and answer in one go, the longest first, whatever the order of `rows`."""
    passes = [
        Pass([*stem, *inputs], _readings(rows, readers, before=len(stem)))
        for stem, indices in _by_stem(rows).items()
        for inputs, readers in _branches(rows, indices)
    ]
    return _longest_first(passes)


def plan_prompts(rows: Sequence[Row]) -> list[Pass]:
    """A pass for each prompt, with what has to be read of its answers as branches; in the same order."""
    passes = []
    for stem, indices in _by_stem(rows).items():
        first_tokens = [Reading(len(stem) - 1, rows[i].answer[0], i, 0) for i in indices]
        answers = [
            Pass(inputs, _readings(rows, readers, before=0))
            for inputs, readers in _branches(rows, indices)
            if inputs
        ]
        passes.append(Pass(list(stem), first_tokens, answers))
    return _longest_first(passes)


def join_beginnings(prompts: Sequence[Pass]) -> list[Pass]:
    """The passes of `plan_prompts` with prompts that begin alike as branches of their common beginning,
    where that leaves fewer tokens to read."""
    ordered = sorted(prompts, key=lambda one: one.inputs)
    passes: list[Pass] = []
    done = 0
    for start, stop, n_common in _common_beginnings([one.inputs for one in ordered]):
        passes += ordered[done:start]
        beginning = ordered[start].inputs[:n_common]
        passes.append(Pass(beginning, [], [_behind(one, n_common) for one in ordered[start:stop]]))
        done = stop
    return _longest_first(passes + ordered[done:])


@dataclass
class _Span:
    """Neighbours in alphabetical order, from `start` on, that begin with the same `n_common` tokens."""

    n_common: int
    start: int
    saved: int = 0
    """Tokens, by the best way to join what lies within."""
    joined: list[tuple[int, int, int]] = field(default_factory=list)


def _common_beginnings(texts: list[list[int]]) -> list[tuple[int, int, int]]:
    """Which neighbours of `texts`, sorted and all different, to join: (start, stop, common tokens).

    Spans lie within each other like the nodes of a tree of prefixes, and close one after the other as the
    texts go by: each is then either joined as a whole or left as what lies within it is.
    """
    open_spans = [_Span(0, 0)]
    for stop in range(1, len(texts) + 1):
        # of a text with which the next one begins, a token must be left to read behind the beginning
        last = texts[stop - 1]
        n_common = min(_n_common(last, texts[stop]), len(last) - 1) if stop < len(texts) else 0
        closed = _Span(n_common, stop - 1)
        while open_spans[-1].n_common > n_common:
            span = open_spans.pop()
            saved = (stop - span.start - 1) * span.n_common - 1  # the beginning itself is one more row
            if saved > span.saved:
                span.saved, span.joined = saved, [(span.start, stop, span.n_common)]
            if open_spans[-1].n_common >= n_common:
                open_spans[-1].saved += span.saved
                open_spans[-1].joined += span.joined
            else:
                closed = _Span(n_common, span.start, span.saved, span.joined)
        if n_common > open_spans[-1].n_common:
            open_spans.append(closed)
    return open_spans[0].joined


def _by_stem(rows: Sequence[Row]) -> dict[tuple[int, ...], list[int]]:
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[tuple(row.stem)].append(index)
    return members


def _branches(rows: Sequence[Row], indices: list[int]) -> list[tuple[list[int], list[int]]]:
    """What is to be read behind the prompt of `indices` (their rows have the same one): inputs that do not
    begin each other, each with the rows that are read off it. The last token is only ever predicted."""
    branches: list[tuple[list[int], list[int]]] = []
    # in this order inputs come right before those that they begin with
    for index in sorted(indices, key=lambda i: rows[i].answer[:-1], reverse=True):
        inputs = rows[index].answer[:-1]
        if branches and branches[-1][0][: len(inputs)] == inputs:
            branches[-1][1].append(index)
        else:
            branches.append((inputs, [index]))
    return branches


def _readings(rows: Sequence[Row], readers: list[int], before: int) -> list[Reading]:
    """The answer tokens of `readers` behind `before` prompt tokens; without any, all but the first."""
    first = 0 if before else 1
    return [
        Reading(before - 1 + place, token, index, place)
        for index in readers
        for place, token in enumerate(rows[index].answer[first:], first)
    ]


def _behind(one: Pass, n_common: int) -> Pass:
    """The pass without its first tokens, which stand before it now."""
    readings = [reading._replace(position=reading.position - n_common) for reading in one.readings]
    return Pass(one.inputs[n_common:], readings, one.branches)


def _n_common(left: list[int], right: list[int]) -> int:
    shorter = min(len(left), len(right))
    return next((i for i in range(shorter) if left[i] != right[i]), shorter)


def _longest_first(passes: list[Pass]) -> list[Pass]:
    return sorted(passes, key=lambda one: (len(one.inputs), one.inputs, len(one.branches)), reverse=True)
