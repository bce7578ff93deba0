"""Plans which token sequences go through the model, and which answer tokens each of them predicts.

The logits of a causal model at a position do not depend on the tokens after it. So an answer that is a prefix
of another answer needs no sequence of its own, and the prompt's last position predicts the first token of all
answers. Nothing else is shared. Sharing the common beginning of several prompts, or of several answers, was
tried: it saved tokens, but the batches were smaller, and it was not faster.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidy_stlms.eval.scoring.encoding import EncodedCandidate


class Target(NamedTuple):
    """An answer token, and the position that predicts it."""

    position: int
    """Index among the input ids of its sequence. The logits there predict the token."""
    token_id: int
    source: int
    """Index of its candidate in the list of encoded candidates."""
    token_index: int
    """Index among the candidate's scored tokens."""


@dataclass
class InputSequence:
    """One row of a forward pass: a prompt, a prompt with an answer, or what continues a prompt."""

    input_ids: list[int]
    targets: list[Target] = field(default_factory=list)
    continuations: list["InputSequence"] = field(default_factory=list)
    """Answers that are read after this prompt, from its keys and values. They have no continuations."""

    @property
    def n_logits(self) -> int:
        """Positions at the end whose logits are kept: from the first one that predicts a target."""
        return len(self.input_ids) - min(target.position for target in self.targets)

    @property
    def longest_continuation(self) -> list[int]:
        """The input ids of the longest continuation; empty without any."""
        return max((continuation.input_ids for continuation in self.continuations), key=len, default=[])


def plan_full_texts(candidates: Sequence[EncodedCandidate]) -> list[InputSequence]:
    """Sequences of prompt and answer together, the longest first, whatever the order of `candidates`."""
    sequences = [
        InputSequence([*prompt_ids, *answer_ids], _targets(candidates, sources, n_prompt=len(prompt_ids)))
        for prompt_ids, group in _by_prompt(candidates).items()
        for answer_ids, sources in _distinct_answers(candidates, group)
    ]
    return _longest_first(sequences)


def plan_shared_prompts(candidates: Sequence[EncodedCandidate]) -> list[InputSequence]:
    """One sequence for each prompt, with its answers as continuations; the longest prompts first."""
    sequences = []
    for prompt_ids, group in _by_prompt(candidates).items():
        first_tokens = [Target(len(prompt_ids) - 1, candidates[i].answer_ids[0], i, 0) for i in group]
        continuations = [
            InputSequence(answer_ids, _targets(candidates, sources, n_prompt=0))
            for answer_ids, sources in _distinct_answers(candidates, group)
            if answer_ids
        ]
        sequences.append(InputSequence(list(prompt_ids), first_tokens, continuations))
    return _longest_first(sequences)


def _by_prompt(candidates: Sequence[EncodedCandidate]) -> dict[tuple[int, ...], list[int]]:
    """Indices of the candidates of each prompt; probes with one prompt share it."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        groups[tuple(candidate.prompt_ids)].append(index)
    return groups


def _distinct_answers(
    candidates: Sequence[EncodedCandidate], group: list[int]
) -> list[tuple[list[int], list[int]]]:
    """Answer ids to read after a prompt, none a prefix of another, each with the candidates that it serves.

    `group` holds the candidates of one prompt. The last token of an answer is predicted and never read, so it
    is left out.
    """
    distinct: list[tuple[list[int], list[int]]] = []
    # in descending order an answer comes right after the longer ones that begin with it
    for index in sorted(group, key=lambda i: candidates[i].answer_ids[:-1], reverse=True):
        answer_ids = candidates[index].answer_ids[:-1]
        if distinct and distinct[-1][0][: len(answer_ids)] == answer_ids:
            distinct[-1][1].append(index)
        else:
            distinct.append((answer_ids, [index]))
    return distinct


def _targets(candidates: Sequence[EncodedCandidate], sources: list[int], n_prompt: int) -> list[Target]:
    """The answer tokens of `sources`, in a sequence that begins with `n_prompt` tokens of the prompt.

    If `n_prompt` is 0, the first token of each answer is left out: the prompt's own sequence predicts it.
    """
    first = 0 if n_prompt else 1
    return [
        Target(n_prompt - 1 + token_index, token_id, source, token_index)
        for source in sources
        for token_index, token_id in enumerate(candidates[source].answer_ids[first:], first)
    ]


def _longest_first(sequences: list[InputSequence]) -> list[InputSequence]:
    """Sort by length, then by content: batches, and so the last bits, do not depend on the order of items."""
    return sorted(
        sequences,
        key=lambda sequence: (len(sequence.input_ids), sequence.input_ids, len(sequence.continuations)),
        reverse=True,
    )
