"""The records of recall: the result of one probe, the score of one document, and the estimate over many.

`ProbeResult` is a line of two files. A run appends to `recall.jsonl`, a line for each evaluation and probe
(`trainers/callbacks.py`). A study writes `results.jsonl`, a line for each model and probe (`study/study.py`).

    results = read_records("outputs/quickstart/recall.jsonl", ProbeResult)
    at_the_end = [result for result in results if result.step == 400]
"""

from collections.abc import Hashable

from msgspec import UNSET, UnsetType

from tidy_stlms.configs.records import Output


class ProbeResult(Output, frozen=True, kw_only=True):
    """What one model gives for one probe.

    Metrics that the probe does not have are null, and written as such: metrics that compare candidates if
    there are no distractors, metrics of the answer alone if the probe has a suffix, and metrics of generation
    if nothing was generated. Of the metrics, BEAR's style has only `accuracy`,
    `candidate_rank` and `mrr`.
    """

    step: int | UnsetType = UNSET
    """In `recall.jsonl` only: the optimizer steps before the evaluation."""
    model: str | UnsetType = UNSET
    """In `results.jsonl` only: the label of the model."""

    probe_id: str
    """The id of the probe in its bank."""
    fact_ids: tuple[str, ...]
    """The facts that the probe is about."""
    role: str
    """The probe's role: `injected`, `control`, `neighbour` or `known`."""
    arm: str | None = None
    """The arm of the first fact; null if it is in none."""
    type: str
    """What the probe asks, such as `memorization` or `reversal`."""
    relation: str | None = None
    """The relation of the first fact; null for a fact that is a passage."""
    subject: str | None = None
    """The subject of the first fact, or the fact's id if it is a passage; bootstrap intervals resample it."""
    style: str | UnsetType = UNSET
    """How the probe was asked, one of STYLES: `bear` is the style of BEAR's client. Missing in old files."""
    prefix: str | UnsetType = UNSET
    """The special token before the prompt: `bos`, `eos` (end-of-text) or `none`; `own` for other tokens that
    the tokenizer adds. Missing in old files."""
    prompt: str
    """The text before the answer."""
    joint: str = " "
    """What stands between prompt and answer: a space or nothing. Missing in old files: there a space."""
    answer: str
    """The first of the probe's answers, the one that is scored."""
    template: str | None = None
    """The probe's template; null if the bank does not have it."""

    n_tokens: int | None = None
    """Tokens of the answer that are scored; null with a suffix, like the next three."""
    n_bytes: int | None = None
    """UTF-8 bytes of the text of these tokens, the space before the answer included."""
    logprob: float | None = None
    """ln P(answer | prompt), nats."""
    bits_per_byte: float | None = None
    """-logprob / (ln 2 * n_bytes)."""

    candidates: tuple[str, ...] = ()
    """The answer, then the distractors. Old files lack it and the next two."""
    candidate_logprobs: tuple[float, ...] = ()
    """ln P(candidate + suffix | prompt) of each candidate, nats; in BEAR's style, ln P(sentence | BOS)."""
    candidate_n_bytes: tuple[int, ...] = ()
    """UTF-8 bytes of the scored text of each candidate."""

    choice: str | UnsetType = UNSET
    """In BEAR's style only: the candidate of the largest logprob, in a tie the first of the answer space."""
    accuracy: float | None = None
    """1 if the answer has the largest logprob of the candidates, 1/k in a tie of k, else 0. In BEAR's style 1
    if `choice` is the answer."""
    accuracy_norm: float | None = None
    """`accuracy` by logprob per byte."""
    candidate_rank: float | None = None
    """Rank of the answer among the candidates, from 1; the mid-rank in a tie."""
    mrr: float | None = None
    """1 / candidate_rank."""
    greedy_match: float | None = None
    """1 if every token of the answer is the most probable one after the true tokens before it, else 0."""
    exact_match: float | None = None
    """1 if greedy generation gives a right answer and ends it, else 0."""
    containment: float | None = None
    """1 if the generated text holds a right answer anywhere, as whole words, else 0."""
    perplexity: float | None = None
    """exp(-logprob / n_tokens)."""
    token_rank: float | None = None
    """Mean rank of the answer's tokens in the vocabulary, from 1."""
    generation: str | None = None
    """The text that greedy generation gives after the prompt."""

    flags: tuple[str, ...] = ()
    """The flags of the bank's probe, and `straddles` and `truncated` of the scorer; sorted."""
    top_tokens: tuple[tuple[str, float], ...] | UnsetType = UNSET
    """The most probable tokens where the answer begins, with their probabilities. Left out unless the caller
    asks for them."""

    @property
    def cluster(self) -> Hashable:
        """What resampling draws as a whole: the probe's subject, or its first fact if it has none."""
        return ("subject", self.subject) if self.subject is not None else ("fact", self.fact_ids[0])


class DocumentScore(Output, frozen=True):
    """What one model gives for one document of held-out text."""

    nats: float
    """-ln P(document)."""
    n_bytes: int
    """UTF-8 bytes of the document."""
    n_tokens: int
    """Tokens of the document."""


class Estimate(Output, frozen=True):
    """The mean of a metric over probes, with its 95% bootstrap interval."""

    mean: float
    """In the metric's unit. For bits per byte and perplexity, the ratio of sums over the probes."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """The number of probes that have the metric."""
    n_facts: int
    """The number of facts that these probes are about."""


Summary = dict[str, dict[str, dict[str, Estimate]]]
"""Estimates by group of facts, probe type (or relation) and metric."""
