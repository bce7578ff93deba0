"""The harness: measures a model on the probes of a bank, with one `ProbeResult` for each probe.

results = evaluate_recall(model, tokenizer, load_bank("banks/people"))
summarise(results)["injected"]["memorization"]["accuracy"].mean
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.right_answers import right_answers
from tidy_stlms.eval.facts.text_match import closing_punctuation
from tidy_stlms.eval.models.checks import check_logits
from tidy_stlms.eval.models.prefix import prefix_of
from tidy_stlms.eval.recall.metrics import bits_per_byte, candidate_metrics, perplexity, token_rank
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.recall.style import bear_items, prefix_for_style, to_bear_results
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
from tidy_stlms.eval.styles import BEAR_STYLE, SUITE_STYLE


def evaluate_recall(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    *,
    batch_tokens: int | None = None,
    generate: bool = True,
    progress: bool = False,
    prefix: str | None = None,
    style: str = SUITE_STYLE,
    roles: Collection[str] | None = None,
    top_k: int = 0,
    spread: bool = False,
    check_model: bool = True,
) -> list[ProbeResult]:
    """Measure a model on the probes of `bank`; the results stand in the bank's order.

    The random generators and the model's train/eval modes stay as they were.

    Args:
        generate: Generate freely after each prompt too, for `exact_match`, `containment` and `generation`.
        prefix: What stands before each prompt, as for `prefix_of`; None for the model's own.
        style: One of STYLES. In BEAR's, nothing is generated and there are no `top_tokens`.
        roles: Only probes of these roles.
        top_k: The number of `top_tokens` in each result; none with 0.
        spread: Share the probes among the processes of `torchrun`; each process gets all results. All
            processes must call this, with the whole model.
        check_model: Try the model first, by `check_logits` and, with `generate`, by `check_generation`.

    Raises:
        UserError: As `score` does, naming the probe; if the model fails the checks; for a prefix that the
            style forbids.
    """
    prefix = prefix_for_style(style, prefix)
    if style == BEAR_STYLE:
        generate, top_k = False, 0
    probes = [probe for probe in bank.probes if roles is None or bank.role_of(probe) in roles]

    def measure(share: list[Probe]) -> list[ProbeResult]:
        show_progress = progress and process_rank() == 0
        if check_model and share:
            _check_model(model, tokenizer, share, generate, prefix)
        scores = score(
            model,
            tokenizer,
            bear_items(bank, share) if style == BEAR_STYLE else list(map(item_of, share)),
            batch_tokens=batch_tokens,
            top_k=top_k,
            # whole sentences have nothing but the prefix in common
            share_prompts=False if style == BEAR_STYLE else None,
            prefix=prefix,
            progress=show_progress,
        )
        options: dict[str, Any] = {"batch_tokens": batch_tokens, "prefix": prefix, "progress": show_progress}
        generated = _generate(model, tokenizer, bank, share, **options) if generate else {}
        name = prefix_of(model, tokenizer, prefix).name
        results = [
            _result(bank, probe, of_probe, generated.get(probe.id), name, tokenizer if top_k else None)
            for probe, of_probe in zip(share, scores, strict=True)
        ]
        return to_bear_results(bank, share, scores, results) if style == BEAR_STYLE else results

    with rng_untouched(model):
        return spread_over_processes(probes, measure) if spread else measure(probes)


def item_of(probe: Probe) -> Item:
    """The scorer's input for a probe: its first answer and its distractors."""
    return Item(probe.prompt, probe.candidates, suffix=probe.suffix, id=probe.id, joint=probe.joint)


def terminators_of(probe: Probe) -> str:
    """The punctuation that ends the probe's wording; a full stop if there is none."""
    return closing_punctuation(probe.template or "") or "."


def _check_model(
    model: Any, tokenizer: Any, probes: Sequence[Probe], generate: bool, prefix: str | None
) -> None:
    with eval_mode(model):
        check_logits(model, "the model")
    if generate:
        check_generation(model, tokenizer, [probe.prompt for probe in probes], prefix=prefix)


class _Generated(NamedTuple):
    """What a model generates after a prompt."""

    continuation: Continuation
    exact_match: bool
    containment: bool


def _generate(
    model: Any,
    tokenizer: Any,
    bank: FactBank,
    probes: Sequence[Probe],
    **options: Any,
) -> dict[str, _Generated]:
    """Generate after the prompts of probes without a suffix; by probe id. `options` are for `generate_texts`.

    A suffix follows the answer, and generation cannot be forced to end with it.
    """
    probes = [probe for probe in probes if not probe.suffix]
    answers = [right_answers(bank, probe) for probe in probes]
    continuations = generate_texts(
        model,
        tokenizer,
        [probe.prompt for probe in probes],
        answer_budgets(tokenizer, answers, [probe.joint for probe in probes]),
        **options,
    )
    return {
        probe.id: _Generated(
            continuation,
            exact_match(continuation, right, terminators_of(probe)),
            containment(continuation, right),
        )
        for probe, continuation, right in zip(probes, continuations, answers, strict=True)
    }


def _result(
    bank: FactBank,
    probe: Probe,
    scores: Scores,
    generated: _Generated | None,
    prefix: str,
    tokenizer: Any | None,
) -> ProbeResult:
    """Make the result of one probe from its scores and generated text; with a tokenizer, `top_tokens` too."""
    fact = bank.fact_by_id[probe.fact_ids[0]]
    flags = set(probe.flags) | {name for name in ("straddles", "truncated") if getattr(scores, name)}
    if generated is not None and generated.continuation.truncated:
        flags.add("truncated")
    # with a suffix the scores are those of answer and suffix together
    has_answer = not probe.suffix
    logprob, n_tokens, n_bytes = scores.logprobs[0], scores.n_tokens[0], scores.n_bytes[0]
    return ProbeResult(
        probe_id=probe.id,
        fact_ids=tuple(probe.fact_ids),
        role=bank.role_of(probe),
        arm=fact.arm,
        type=probe.type,
        relation=fact.relation,
        subject=bank.subject_of(probe),
        style=SUITE_STYLE,
        prefix=prefix,
        prompt=probe.prompt,
        joint=probe.joint,
        answer=probe.answers[0],
        template=probe.template,
        n_tokens=n_tokens if has_answer else None,
        n_bytes=n_bytes if has_answer else None,
        logprob=logprob if has_answer else None,
        bits_per_byte=bits_per_byte([logprob], [n_bytes]) if has_answer else None,
        candidates=tuple(item_of(probe).candidates),
        candidate_logprobs=tuple(scores.logprobs),
        candidate_n_bytes=tuple(scores.n_bytes),
        **candidate_metrics(scores.logprobs, scores.n_bytes),
        greedy_match=float(scores.greedy_match) if has_answer else None,
        exact_match=None if generated is None else float(generated.exact_match),
        containment=None if generated is None else float(generated.containment),
        perplexity=perplexity([logprob], [n_tokens]) if has_answer else None,
        token_rank=token_rank(scores.token_ranks) if has_answer else None,
        generation=None if generated is None else generated.continuation.text,
        flags=tuple(sorted(flags)),
        top_tokens=UNSET
        if tokenizer is None
        else tuple((tokenizer.decode([token_id]), p) for token_id, p in scores.top_tokens),
    )
