"""The harness: every probe of a bank asked of a model, one plain dict for each.

rows = evaluate_recall(model, tokenizer, load_bank("banks/people"))
summarise(rows)["injected"]["memorization"]["accuracy"]["mean"]
"""

from collections.abc import Collection, Sequence
from typing import Any

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.text_match import closing_punctuation, folded
from tidy_stlms.eval.models.checks import check_logits
from tidy_stlms.eval.recall.metrics import bits_per_byte, candidate_metrics, perplexity, token_rank
from tidy_stlms.eval.scoring.generation import (
    Continuation,
    answer_budgets,
    containment,
    exact_match,
    generate_texts,
)
from tidy_stlms.eval.scoring.generation_check import check_generation
from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched
from tidy_stlms.eval.scoring.processes import process_rank
from tidy_stlms.eval.scoring.processes import spread as spread_over_processes
from tidy_stlms.eval.scoring.scorer import Item, Scores, score


def evaluate_recall(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    *,
    batch_tokens: int | None = None,
    generate: bool = True,
    progress: bool = False,
    roles: Collection[str] | None = None,
    top_k: int = 0,
    spread: bool = False,
    self_check: bool = True,
) -> list[dict[str, Any]]:
    """Ask the probes of `bank` (of those `roles`, or all); one JSON-serialisable dict each, in bank order.

    A figure that a probe does not have is None: those that compare candidates without distractors, those
    of the answer alone with a suffix, `exact_match`, `containment` and `generation` without
    `generate`. `candidates` are the answer and then the distractors, `candidate_logprobs` ln P(candidate +
    suffix | prompt) of each in nats, `candidate_n_bytes` the UTF-8 bytes of the text that was scored: what
    the figures of candidates are computed from. With `top_k` a row
    has `top_tokens`, that many [text, probability] pairs of what the model finds most probable where the
    answer begins. Neither the random generators nor the model's train/eval modes are touched.

    With `self_check` the model is tried first: `check_logits`, and `check_generation` with `generate`.

    With `spread` the processes of `torchrun` share the probes, and each gets all rows. Every one
    of them must call this, with the whole model.

    Raises:
        UserError: As `score` does, naming the probe; where the model fails the self-check.
    """
    probes = [probe for probe in bank.probes if roles is None or bank.role_of(probe) in roles]

    def ask(share: list[Probe]) -> list[dict[str, Any]]:
        shown = progress and process_rank() == 0
        if self_check and share:
            with eval_mode(model):
                check_logits(model, "the model")
            if generate:
                check_generation(model, tokenizer, [probe.prompt for probe in share])
        scores = score(
            model,
            tokenizer,
            [item_of(probe) for probe in share],
            batch_tokens=batch_tokens,
            top_k=top_k,
            progress=shown,
        )
        said = _generations(model, tokenizer, bank, share, batch_tokens, shown) if generate else {}
        rows = []
        for probe, result in zip(share, scores, strict=True):
            row = _row(bank, probe, result, said.get(probe.id))
            if top_k:
                row["top_tokens"] = [[tokenizer.decode([i]), p] for i, p in result.top_tokens]
            rows.append(row)
        return rows

    with rng_untouched(model):
        return spread_over_processes(probes, ask) if spread else ask(probes)


def item_of(probe: Probe) -> Item:
    """What the scorer reads of a probe: the first answer against the distractors."""
    candidates = (probe.answers[0], *probe.distractors)
    return Item(probe.prompt, candidates, suffix=probe.suffix, id=probe.id, joint=probe.joint)


def right_answers(bank: FactBank, probe: Probe) -> list[str]:
    """Whatever counts as the answer in free generation: the probe's answers and, where it asks for a
    fact's object, in whatever case, the object's aliases."""
    facts = [bank.fact_by_id[fact_id] for fact_id in probe.fact_ids]
    asked = {folded(answer) for answer in probe.answers}
    aliases = [alias for fact in facts if folded(fact.object) in asked for alias in fact.object_aliases]
    return list(dict.fromkeys([*probe.answers, *aliases]))


def terminators_of(probe: Probe) -> str:
    """The punctuation that ends the probe's wording; a full stop where it says nothing."""
    return closing_punctuation(probe.template or "") or "."


def _generations(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    probes: Sequence[Probe],
    batch_tokens: int | None,
    progress: bool,
) -> dict[str, tuple[Continuation, bool, bool]]:
    """By probe id, what the model says, whether it is right, and whether the answer stands in it at all. With
    a suffix there is no telling."""
    asked = [probe for probe in probes if not probe.suffix]
    answers = [right_answers(bank, probe) for probe in asked]
    continuations = generate_texts(
        model,
        tokenizer,
        [probe.prompt for probe in asked],
        answer_budgets(tokenizer, answers, [probe.joint for probe in asked]),
        batch_tokens=batch_tokens,
        progress=progress,
    )
    return {
        probe.id: (
            continuation,
            exact_match(continuation, right, terminators_of(probe)),
            containment(continuation, right),
        )
        for probe, continuation, right in zip(asked, continuations, answers, strict=True)
    }


def _row(
    bank: FactBank, probe: Probe, scores: Scores, said: tuple[Continuation, bool, bool] | None
) -> dict[str, Any]:
    fact = bank.fact_by_id[probe.fact_ids[0]]
    row: dict[str, Any] = {
        "probe_id": probe.id,
        "fact_ids": list(probe.fact_ids),
        "role": bank.role_of(probe),
        "arm": fact.arm,
        "type": probe.type,
        "relation": fact.relation,
        "subject": bank.subject_of(probe),
        "prompt": probe.prompt,
        "joint": probe.joint,
        "answer": probe.answers[0],
        "template": probe.template,
        **dict.fromkeys(("n_tokens", "n_bytes", "logprob", "bits_per_byte")),
        "candidates": list(item_of(probe).candidates),
        "candidate_logprobs": list(scores.logprobs),
        "candidate_n_bytes": list(scores.n_bytes),
        **candidate_metrics(scores.logprobs, scores.n_bytes),
        **dict.fromkeys(
            ("greedy_match", "exact_match", "containment", "perplexity", "token_rank", "generation")
        ),
    }
    if not probe.suffix:
        logprob, n_tokens, n_bytes = scores.logprobs[0], scores.n_tokens[0], scores.n_bytes[0]
        row |= {
            "n_tokens": n_tokens,
            "n_bytes": n_bytes,
            "logprob": logprob,
            "bits_per_byte": bits_per_byte([logprob], [n_bytes]),
            "greedy_match": float(scores.greedy_match),
            "perplexity": perplexity([logprob], [n_tokens]),
            "token_rank": token_rank(scores.token_ranks),
        }
    if said is not None:
        continuation, is_right, is_there = said
        row |= {"exact_match": float(is_right), "containment": float(is_there)}
        row["generation"] = continuation.text
    flags = set(probe.flags)
    if said is not None and said[0].truncated:
        flags.add("truncated")
    flags |= {name for name in ("straddles", "truncated") if getattr(scores, name)}
    return row | {"flags": sorted(flags)}
