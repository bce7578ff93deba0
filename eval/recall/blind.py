"""The blind check: which probes a model answers that has not been taught the facts.

    findings = blind_check(model, tokenizer, bank)   # the model before any fact was injected
    bank = flag_probes(bank, findings)               # the flag known_already

Such a probe cannot show what training adds: the model has met the fact, or the wording gives it away.
"""

import math
from collections.abc import Sequence
from typing import Any

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.integrity import Finding

# a fact that should be known, and be known afterwards, is no finding
ASKED_ROLES = ("injected", "control")
CONFIDENCE = 0.9


def blind_check(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    *,
    confidence: float = CONFIDENCE,
    batch_tokens: int | None = None,
    generate: bool = True,
    progress: bool = False,
) -> list[Finding]:
    """A warning `known_already` for each probe of injected and control facts that the model answers.

    It does so if it says the answer by itself (`exact_match`; not asked for without `generate`), or if it
    picks the answer of all candidates and is sure of it: the answer is first by log-probability and by
    log-probability per byte, and has at least `confidence` of the probability that the candidates have
    among them, all taken at the answer's length in bytes and again in tokens (`share_of_candidates`). With
    10 candidates an ignorant model is right one time in ten, but seldom sure.

    Raises:
        UserError: As `tidy_stlms.eval.recall.harness.evaluate_recall` does.
    """
    from tidy_stlms.eval.recall.harness import evaluate_recall, item_of
    from tidy_stlms.eval.scoring.scorer import score

    rows = evaluate_recall(
        model,
        tokenizer,
        bank,
        batch_tokens=batch_tokens,
        generate=generate,
        progress=progress,
        roles=ASKED_ROLES,
    )
    first = {row["probe_id"] for row in rows if row["accuracy"] == row["accuracy_norm"] == 1}
    probes = {probe.id: probe for probe in bank.probes}
    items = [item_of(probes[row["probe_id"]]) for row in rows if row["probe_id"] in first]
    scores = score(model, tokenizer, items, batch_tokens=batch_tokens, progress=progress)
    shares = {
        item.id: min(
            share_of_candidates(item_scores.logprobs, lengths)
            for lengths in (item_scores.n_bytes, item_scores.n_tokens)
        )
        for item, item_scores in zip(items, scores, strict=True)
    }
    findings = []
    for row in rows:
        share = shares.get(row["probe_id"])
        how = None
        if row["exact_match"] == 1:
            how = "says the answer by itself"
        elif share is not None and share >= confidence:
            how = f"gives the answer {share:.0%} of the candidates' probability"
        if how is not None:
            ids, problem = (row["probe_id"],), f"an untaught model {how}"
            findings.append(Finding("warning", "known_already", "probes.jsonl", ids, problem))
    return findings


def share_of_candidates(logprobs: Sequence[float], lengths: Sequence[int]) -> float:
    """The first candidate's share of the candidates' probability, all at the first one's length.

    softmax of `lengths[0] * logprob / lengths`: else an answer shorter than the others would have nearly
    all of it, whatever the model knows.
    """
    levelled = [lengths[0] * logprob / size for logprob, size in zip(logprobs, lengths, strict=True)]
    highest = max(levelled)
    weights = [math.exp(value - highest) for value in levelled]
    return weights[0] / math.fsum(weights)
