"""From logits to the log-probabilities and ranks of answer tokens."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tidy_stlms.eval.scoring.encoding import Row
from tidy_stlms.eval.scoring.passes import Pass, Reading

# Lifted to float32 at a time; on a CPU few enough to stay in its cache.
LOGITS_PER_CHUNK = {"cpu": 2**20}
MOST_LOGITS_PER_CHUNK = 2**24


@dataclass
class RowScores:
    """What was read of a row's answer tokens, in their order. Ranks are asked for true answers only."""

    logprobs: list[float]
    ranks: list[float]
    greedy: list[bool]
    top_tokens: list[tuple[int, float]] = field(default_factory=list)


class Reader:
    """Collects what logits say about the answers of `rows`, in whatever order passes come.

    Args:
        top_k: How many of the most probable tokens to note where a true answer begins.
        on_items: Called with a number of items whose last answer token has just been read.
    """

    def __init__(self, rows: Sequence[Row], top_k: int, on_items: Callable[[int], object]):
        self.rows, self.top_k, self.on_items = rows, top_k, on_items
        self.scores = [
            RowScores([0.0] * row.n_scored, [0.0] * row.n_scored, [False] * row.n_scored) for row in rows
        ]
        self._unread = Counter(row.item for row in rows)
        self._read: set[int] = set()

    def read(self, logits: torch.Tensor, passes: Sequence[Pass]) -> None:
        """Read off the logits at the ends of `passes`, (passes, kept positions, vocabulary).

        May be called again for the same passes, where memory ran out on the way.
        """
        n_kept = logits.shape[1]
        wanted: dict[int, list[Reading]] = {}  # by place among all (passes x kept) positions
        for index, one in enumerate(passes):
            for reading in one.readings:
                place = (index + 1) * n_kept - len(one.inputs) + reading.position
                wanted.setdefault(place, []).append(reading)
        places = sorted(wanted)
        size = max(1, LOGITS_PER_CHUNK.get(logits.device.type, MOST_LOGITS_PER_CHUNK) // logits.shape[-1])
        for first in range(0, len(places), size):
            chunk = places[first : first + size]
            self._read_chunk(_rows_at(logits, chunk).float(), [wanted[place] for place in chunk])
        self._count(passes)

    def _read_chunk(self, logits: torch.Tensor, wanted: list[list[Reading]]) -> None:
        """Logits (positions, vocabulary), and what is wanted at each position."""
        readings = [reading for at_position in wanted for reading in at_position]
        positions = [index for index, at_position in enumerate(wanted) for _ in at_position]
        places = torch.tensor([positions, [reading.token for reading in readings]], device=logits.device)
        logprobs = logits.log_softmax(-1)  # (positions, vocabulary)
        for reading, logprob in zip(readings, logprobs[*places].tolist(), strict=True):
            self.scores[reading.row].logprobs[reading.place] = logprob

        gold = [i for i, reading in enumerate(readings) if self.rows[reading.row].candidate == 0]
        if gold:
            self._rank(logits, places[:, gold], [readings[i] for i in gold])
        first = [i for i in gold if readings[i].place == 0] if self.top_k else []
        if first:
            best = logprobs[places[0, first]].topk(min(self.top_k, logprobs.shape[-1]))
            for i, tokens, values in zip(
                first, best.indices.tolist(), best.values.exp().tolist(), strict=True
            ):
                self.scores[readings[i].row].top_tokens = list(zip(tokens, values, strict=True))

    def _rank(self, logits: torch.Tensor, places: torch.Tensor, readings: list[Reading]) -> None:
        positions, tokens = places
        picked = _rows_at(logits[None], positions.tolist())  # (readings, vocabulary)
        own = picked.gather(-1, tokens[:, None])  # (readings, 1)
        # sums of floats, which are exact up to 2**24, took a third of the time that sums of booleans took
        compared = torch.empty_like(picked)
        above = torch.gt(picked, own, out=compared).sum(-1)
        equal = torch.eq(picked, own, out=compared).sum(-1)  # the token itself among them
        ranks = (above + (equal + 1) / 2).tolist()
        greedy = (picked.argmax(-1) == tokens).tolist()
        for reading, rank, is_best in zip(readings, ranks, greedy, strict=True):
            self.scores[reading.row].ranks[reading.place] = rank
            self.scores[reading.row].greedy[reading.place] = is_best

    def _count(self, passes: Sequence[Pass]) -> None:
        read = {
            reading.row
            for one in passes
            for reading in one.readings
            if reading.place == self.rows[reading.row].n_scored - 1
        }
        complete = 0
        for row in read - self._read:
            item = self.rows[row].item
            self._unread[item] -= 1
            complete += not self._unread[item]
        self._read |= read
        self.on_items(complete)


def _rows_at(logits: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Of logits (passes, positions, vocabulary) those at some places of (passes x positions), without
    copying neighbours: they are large."""
    first, last = places[0], places[-1]
    if logits.is_contiguous() and places == list(range(first, last + 1)):
        return logits.view(-1, logits.shape[-1])[first : last + 1]
    index = torch.tensor(places, device=logits.device)
    return logits[index // logits.shape[1], index % logits.shape[1]]
