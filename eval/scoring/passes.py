"""Which forward passes a set of answers needs, and what is read off each of them.

A causal model says the same at a position whatever follows. So an answer needs no pass of its own where
its tokens begin another's, and all answers to a prompt read their first token at the prompt's end. Nothing
else is shared: joining prompts that begin alike, or answers, saved tokens and lost as much by small batches.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidy_stlms.eval.scoring.encoding import Row


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
        return len(self.inputs) - min(reading.position for reading in self.readings)


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


def _longest_first(passes: list[Pass]) -> list[Pass]:
    return sorted(passes, key=lambda one: (len(one.inputs), one.inputs, len(one.branches)), reverse=True)
