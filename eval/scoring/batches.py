"""Forms batches of input sequences within a budget, and estimates what a plan of sequences costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tidy_stlms.eval.models.inputs import fill_batches
from tidy_stlms.eval.scoring.budget import Budget
from tidy_stlms.eval.scoring.prompt_cache import PromptCache
from tidy_stlms.eval.scoring.sequences import InputSequence


class BatchRow(NamedTuple):
    """A sequence in a batch."""

    sequence: InputSequence
    prompt_row: int = 0
    """The row of the prompt cache that this sequence continues; unused without a cache."""


@dataclass(frozen=True)
class Batcher:
    """How sequences are put into batches for one model."""

    budget: Budget
    """Shared with the loop that halves it when memory runs out."""
    vocab_size: int
    keeps_last_logits: bool
    """Forward takes `logits_to_keep`. Other models return logits for every token."""
    may_pad: bool = True
    """Padding leaves the model's logits unchanged."""

    def fill(self, rows: Sequence[BatchRow], prompts: PromptCache | None = None) -> list[list[BatchRow]]:
        """Group `rows` into batches, the longest rows first. With `prompts`, the rows continue them."""
        lengths = [len(row.sequence.input_ids) for row in rows]
        batch_tokens = self.budget.tokens
        if prompts is not None:
            # each row copies the keys and values of its prompt, and has at least one token
            n_copies = self.budget.cache_bytes // max(1, prompts.bytes_per_prompt())
            batch_tokens = min(batch_tokens, max(1, n_copies))
        batches = fill_batches(
            lengths,
            [row.sequence.n_logits for row in rows] if self.keeps_last_logits else lengths,
            batch_tokens=batch_tokens,
            max_logits=self.budget.logits // self.vocab_size,
            same_length=prompts is not None or not self.may_pad,
            pass_tokens=_n_passes([row.sequence for row in rows]) * self.budget.pass_tokens,
        )
        return [[rows[index] for index in batch] for batch in batches]

    def cost(self, sequences: Sequence[InputSequence]) -> float:
        """Tokens read plus logits kept, with padding and the overhead of each forward pass, in tokens.

        A position with logits counts as much as a token: small models spend about as much on the vocabulary
        as on all their layers.
        """
        batches = self.fill([BatchRow(sequence) for sequence in sequences])
        return sum(self._cost_of_batch([row.sequence for row in batch]) for batch in batches)

    def trial_cost(self, sequences: Sequence[InputSequence]) -> float:
        """An estimate of what `can_share_prompts` costs on the longest and the shortest of `sequences`."""
        # Five passes: one for both prompts; then for each prompt its answer in two rows, and the whole text.
        # Together they read less than four times the tokens of both texts. The rest is for logits.
        return 4 * (len(sequences[0].input_ids) + len(sequences[-1].input_ids)) + 5 * self.budget.pass_tokens

    def _cost_of_batch(self, batch: list[InputSequence]) -> float:
        n_tokens = max(len(sequence.input_ids) for sequence in batch)
        n_logits = max(sequence.n_logits for sequence in batch) if self.keeps_last_logits else n_tokens
        answers = sum(
            len(continuation.input_ids) + continuation.n_logits
            for sequence in batch
            for continuation in sequence.continuations
        )
        return _n_passes(batch) * self.budget.pass_tokens + len(batch) * (n_tokens + n_logits) + answers


def _n_passes(batch: Sequence[InputSequence]) -> int:
    """Forward passes for a batch: one, and one more for each length of its continuations."""
    return 1 + len({len(each.input_ids) for sequence in batch for each in sequence.continuations})
