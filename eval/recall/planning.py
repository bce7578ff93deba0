"""Which forward passes a set of answers needs, and what is read off each of them.

A causal model says the same at a position whatever follows. So an answer needs no pass of its own where
its tokens begin another's, and all answers to a prompt read their first token at the prompt's end.
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
    """One row of a forward pass: a prompt, a prompt with an answer, or an answer behind a prompt."""

    inputs: list[int]
    readings: list[Reading] = field(default_factory=list)
    branches: list["Pass"] = field(default_factory=list)
    """Passes that go on from this one's keys and values."""

    @property
    def n_logits(self) -> int:
        """Positions at the end whose logits are read."""
        return len(self.inputs) - min(reading.position for reading in self.readings)


def plan_passes(rows: Sequence[Row], *, share: bool) -> list[Pass]:
    """The passes that `rows` need, in an order that does not depend on theirs: the longest first.

    With `share`, every prompt is a pass of its own, with what has to be read of its answers as branches;
    without, prompt and answer are read in one go.
    """
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[tuple(row.stem)].append(index)
    passes: list[Pass] = []
    for key, indices in members.items():
        stem = list(key)
        branches = _branches(rows, indices)
        if share:
            whole = Pass(stem, [Reading(len(stem) - 1, rows[i].answer[0], i, 0) for i in indices])
            whole.branches = [
                Pass(inputs, _readings(rows, readers, before=0)) for inputs, readers in branches if inputs
            ]
            passes.append(whole)
        else:
            passes += [
                Pass(stem + inputs, _readings(rows, readers, before=len(stem)))
                for inputs, readers in branches
            ]
    return sorted(passes, key=lambda one: (len(one.inputs), one.inputs, len(one.branches)), reverse=True)


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
