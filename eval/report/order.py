"""Order of models, groups of facts and probe types in a study, and what may be compared."""

from collections.abc import Iterable, Mapping, Sequence

from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.recall.groups import CONTROL, in_order
from tidy_stlms.eval.study.study import Study

# The names of metrics in tables. These mean the same for all tokenizers.
SHOWN = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "containment": "containment",
    "candidate_rank": "rank",
    "bits_per_byte": "bits/byte",
}
# These are compared within one tokenizer only.
TOKEN_METRICS = {
    "perplexity": "perplexity",
    "token_rank": "token rank",
    "logprob": "log-probability",
    "greedy_match": "greedy match",
}
CORRECTED = {
    "accuracy_over_control": "accuracy over control",
    "binding": "binding (nats)",
    "subject_shift": "subject shift (nats)",
    "answer_familiarity": "answer familiarity (nats)",
}
NAMES = {**SHOWN, **TOKEN_METRICS, **CORRECTED}
DIGITS = {"perplexity": 1, "token_rank": 1}  # all others: 2
LOWER_IS_BETTER = {"candidate_rank", "bits_per_byte", "perplexity", "token_rank"}
NO_MERIT = {CONTROL, UNSEEN}  # groups of facts for which more recall is not better


def models_of(study: Study) -> list[str]:
    return [info.model for info in study.models]


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """The names without repetitions: those of `order` first, then the others in order of appearance."""
    unique = list(dict.fromkeys(names))
    return [name for name in order if name in unique] + [name for name in unique if name not in order]


def rank_in(order: Sequence[str], name: str) -> tuple[int, str]:
    """A sorting key: names of `order` come first, in that order, then the others by name."""
    return (order.index(name), "") if name in order else (len(order), name)


def groups_of(section: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The groups of facts in a section by model and group, in the order of tables."""
    return in_order(group for by_group in section.values() for group in by_group)


def tokenizer_groups(study: Study) -> dict[str, list[str]]:
    """Models by tokenizer. Metrics that are not `is_comparable` are compared within a group only."""
    groups: dict[str, list[str]] = {}
    for info in study.models:
        if info.tokenizer:
            groups.setdefault(info.tokenizer, []).append(info.model)
    return groups
