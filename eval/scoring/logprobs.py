"""Reads the log-probabilities and ranks of answer tokens from logits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tidy_stlms.eval.scoring.encoding import EncodedCandidate
from tidy_stlms.eval.scoring.sequences import InputSequence, Target

# Logits that are converted to float32 at a time. On a CPU few enough to stay in its cache.
LOGITS_PER_CHUNK = {"cpu": 2**20}
MOST_LOGITS_PER_CHUNK = 2**24


@dataclass
class TokenScores:
    """What the model says about each scored token of a candidate. Only right answers get ranks."""

    logprobs: list[float]
    """ln P(token | all tokens before it), in nats."""
    ranks: list[float]
    """In the vocabulary, from 1; the mid-rank among equal logits."""
    greedy: list[bool]
    """The token is the most probable one."""
    top_tokens: list[tuple[int, float]] = field(default_factory=list)
    """The most probable (token id, probability) pairs at the first scored token."""


class ScoreCollector:
    """Collects the scores of all answer tokens from logits, in whatever order the sequences come.

    Args:
        candidates: What is scored. `scores` has one `TokenScores` for each of them, in their order.
        top_k: How many of the most probable tokens to keep where a right answer begins.
        on_items_done: Called with the number of items whose last answer token was just read.
    """

    def __init__(
        self,
        candidates: Sequence[EncodedCandidate],
        top_k: int,
        on_items_done: Callable[[int], object],
    ):
        self.candidates, self.top_k, self.on_items_done = candidates, top_k, on_items_done
        self.scores = [
            TokenScores([0.0] * each.n_scored, [0.0] * each.n_scored, [False] * each.n_scored)
            for each in candidates
        ]
        self._n_unread = Counter(candidate.item for candidate in candidates)
        self._read: set[int] = set()

    def add(self, logits: torch.Tensor, sequences: Sequence[InputSequence]) -> None:
        """Read the targets of `sequences` from their last logits, (sequences, kept positions, vocabulary).

        May be called again for the same sequences, when memory ran out on the way.
        """
        n_kept = logits.shape[1]
        targets_at: dict[int, list[Target]] = {}  # by index among all (sequences x kept positions)
        for row, sequence in enumerate(sequences):
            for target in sequence.targets:
                # sequences are padded on the left, so that positions count from the right
                position = (row + 1) * n_kept - len(sequence.input_ids) + target.position
                targets_at.setdefault(position, []).append(target)
        positions = sorted(targets_at)
        size = max(1, LOGITS_PER_CHUNK.get(logits.device.type, MOST_LOGITS_PER_CHUNK) // logits.shape[-1])
        for first in range(0, len(positions), size):
            chunk = positions[first : first + size]
            # log-softmax in float32: bfloat16 has two to three digits, and would round the log-probabilities
            # of different candidates to the same number
            chunk_logits = select_positions(logits, chunk).float()  # (chunk, vocabulary)
            self._add_chunk(chunk_logits, [targets_at[position] for position in chunk])
        self._count_done(sequences)

    def _add_chunk(self, logits: torch.Tensor, targets_at: list[list[Target]]) -> None:
        """`logits` are (positions, vocabulary), `targets_at` the targets of each position."""
        targets = [target for at_position in targets_at for target in at_position]
        positions = [index for index, at_position in enumerate(targets_at) for _ in at_position]
        # (2, targets): the position and the token id of each target
        indices = torch.tensor([positions, [target.token_id for target in targets]], device=logits.device)
        logprobs = logits.log_softmax(-1)  # (positions, vocabulary)
        for target, logprob in zip(targets, logprobs[*indices].tolist(), strict=True):
            self.scores[target.source].logprobs[target.token_index] = logprob

        right = [i for i, target in enumerate(targets) if self.candidates[target.source].candidate == 0]
        if right:
            self._add_ranks(logits, indices[:, right], [targets[i] for i in right])
        first = [i for i in right if targets[i].token_index == 0] if self.top_k else []
        if first:
            top = logprobs[indices[0, first]].topk(min(self.top_k, logprobs.shape[-1]))
            for i, token_ids, probabilities in zip(
                first, top.indices.tolist(), top.values.exp().tolist(), strict=True
            ):
                self.scores[targets[i].source].top_tokens = list(zip(token_ids, probabilities, strict=True))

    def _add_ranks(self, logits: torch.Tensor, indices: torch.Tensor, targets: list[Target]) -> None:
        """`logits` are (positions, vocabulary), `indices` (2, targets): position and token id of each."""
        positions, token_ids = indices
        rows = select_positions(logits[None], positions.tolist())  # (targets, vocabulary)
        target_logits = rows.gather(-1, token_ids[:, None])  # (targets, 1)
        # sums of floats (exact up to 2**24) took a third of the time of sums of booleans
        compared = torch.empty_like(rows)
        n_above = torch.gt(rows, target_logits, out=compared).sum(-1)  # (targets,)
        n_equal = torch.eq(rows, target_logits, out=compared).sum(-1)  # (targets,), the token included
        ranks = (n_above + (n_equal + 1) / 2).tolist()
        greedy = (rows.argmax(-1) == token_ids).tolist()
        for target, rank, is_greedy in zip(targets, ranks, greedy, strict=True):
            self.scores[target.source].ranks[target.token_index] = rank
            self.scores[target.source].greedy[target.token_index] = is_greedy

    def _count_done(self, sequences: Sequence[InputSequence]) -> None:
        """Report items whose candidates have all been read to their last token, each item once."""
        complete = {
            target.source
            for sequence in sequences
            for target in sequence.targets
            if target.token_index == self.candidates[target.source].n_scored - 1
        }
        n_done = 0
        for source in complete - self._read:
            item = self.candidates[source].item
            self._n_unread[item] -= 1
            n_done += not self._n_unread[item]
        self._read |= complete
        self.on_items_done(n_done)


def select_positions(logits: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """The logits at `positions`, (positions, vocabulary), from logits (sequences, kept, vocabulary).

    Positions count through all (sequences x kept). Neighbours in contiguous logits are a view: copies of
    logits are large.
    """
    first, last = positions[0], positions[-1]
    if logits.is_contiguous() and positions == list(range(first, last + 1)):
        return logits.view(-1, logits.shape[-1])[first : last + 1]
    index = torch.tensor(positions, device=logits.device)
    return logits[index // logits.shape[1], index % logits.shape[1]]
