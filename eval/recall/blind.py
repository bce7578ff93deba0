"""The blind check: finds probes that a model answers before it was trained on the facts.

    findings = blind_check(model, tokenizer, bank)   # the model before any fact was injected
    bank = flag_probes(bank, findings)               # the flag known_already

Such a probe cannot show what training adds: the model knows the fact already, or the prompt gives the answer
away.
"""

import math
from collections.abc import Sequence
from typing import Any

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.integrity import Finding
from tidy_stlms.eval.recall.results import ProbeResult

# neighbour and known facts are real, and a model may know them
CHECKED_ROLES = ("injected", "control")
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
    """Warn of each probe of injected and control facts that the model answers (`known_already`).

    A model answers a probe if it generates the answer (`exact_match`; only with `generate`), or if it is sure
    of the answer: the answer is first by log-probability and by log-probability per byte, and has at least
    `confidence` of the candidates' probability, by bytes and by tokens (`share_of_candidates`). Being first
    is not enough: with 10 candidates, a model that guesses is right one time in ten.

    Raises:
        UserError: As `tidy_stlms.eval.recall.harness.evaluate_recall` does.
    """
    from tidy_stlms.eval.recall.harness import evaluate_recall

    results = evaluate_recall(
        model,
        tokenizer,
        bank,
        batch_tokens=batch_tokens,
        generate=generate,
        progress=progress,
        roles=CHECKED_ROLES,
    )
    shares = _shares(model, tokenizer, bank, results, batch_tokens, progress)
    findings = []
    for result in results:
        share = shares.get(result.probe_id)
        what_it_does = None
        if result.exact_match == 1:
            what_it_does = "says the answer by itself"
        elif share is not None and share >= confidence:
            what_it_does = f"gives the answer {share:.0%} of the candidates' probability"
        if what_it_does is not None:
            ids, problem = (result.probe_id,), f"an untaught model {what_it_does}"
            findings.append(Finding("warning", "known_already", "probes.jsonl", ids, problem))
    return findings


def _shares(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    results: Sequence[ProbeResult],
    batch_tokens: int | None,
    progress: bool,
) -> dict[str, float]:
    """The answer's share of the candidates' probability, by probe id, for answers that are first."""
    from tidy_stlms.eval.recall.harness import item_of
    from tidy_stlms.eval.scoring.scorer import score

    probes = {probe.id: probe for probe in bank.probes}
    items = [
        item_of(probes[result.probe_id]) for result in results if result.accuracy == result.accuracy_norm == 1
    ]
    scores = score(model, tokenizer, items, batch_tokens=batch_tokens, progress=progress)
    return {
        item.id: min(
            share_of_candidates(item_scores.logprobs, lengths)
            for lengths in (item_scores.n_bytes, item_scores.n_tokens)
        )
        for item, item_scores in zip(items, scores, strict=True)
    }


def share_of_candidates(logprobs: Sequence[float], lengths: Sequence[int]) -> float:
    """The first candidate's share of the candidates' probability, with all scaled to the first one's length.

    softmax of `lengths[0] * logprob / lengths`. Without the scaling, an answer that is shorter than the
    distractors would have nearly the whole probability, whatever the model knows.
    """
    scaled = [lengths[0] * logprob / size for logprob, size in zip(logprobs, lengths, strict=True)]
    highest = max(scaled)
    weights = [math.exp(value - highest) for value in scaled]
    return weights[0] / math.fsum(weights)
