"""A run in sentences of Markdown, for its report and its model card."""

from collections import Counter
from pathlib import Path
from typing import Any

from tidy_stlms.configs.markdown import markdown_code, markdown_text
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.summary import chance_in_words, chance_of, exact_match_chance
from tidy_stlms.eval.models.prefix import PREFIX_OF_RUNS
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.recall.groups import GroupKey, groups_of, treatment_groups
from tidy_stlms.eval.report.run_summary import RunSummary
from tidy_stlms.eval.run_folder import (
    count_exposures,
    has_plan,
    read_device_precision_attention,
    read_documents,
    read_packing,
    read_plan,
    read_versions,
)

FIGURES = {
    "loss.png": "Training and validation loss.",
    "recall.png": "Accuracy by probe type: injected facts solid, control facts dashed; grey: exposures.",
    "rank_and_bits.png": "Rank of the answer, and its bits per byte.",
}
PACKING_IN_WORDS = {
    "apart": "`apart`, each document is read by itself",
    "joined": "`joined`, each document of a row is read together with those before it",
}
MOST_COUNTS = 8  # numbers of exposures that are listed one by one


def reading_guide(bank: FactBank) -> str:
    """Explains the figures of a recall table."""
    chance = chance_in_words(chance_of(bank), exact_match_chance(bank))
    guess = f" ({chance})" if chance else ""
    return (
        "Accuracy: the answer is the most probable of the candidates. Exact match: greedy generation gives "
        f"the answer{guess}. Brackets: 95% bootstrap interval over subjects, within this one training run. "
        "Control facts were never injected."
    )


def facts_of_the_run(
    folder: Path, config: dict[str, Any], summary: RunSummary | None, bank: FactBank | None
) -> list[str]:
    """Lines of a list: model, data, loss, injection, seed, versions. `summary`: of a finished run."""
    versions = read_versions(folder)
    model = config["model"]["name_or_path"] or "from scratch"
    size, amount, loss = "", "", []
    if summary is not None:
        size = f", {summary.parameters:,} parameters"
        documents = read_documents(folder)
        if documents:
            amount = " ({train:,} documents, and {validation:,} held out)".format(**documents)
        amount += f", {summary.tokens:,} tokens in {summary.steps:,} steps"
        bits = summary.eval_bits_per_byte
        held_out = f" ({_number(bits)} bits per byte)" if bits is not None else ""
        loss = [
            f"- Loss: training {_number(summary.train_loss)}, validation {_number(summary.eval_loss)}"
            f"{held_out}"
        ]
    return [
        f"- Model: {markdown_text(model)}{size}",
        f"- Data: {markdown_code(config['data']['name'])}{amount}",
        f"- Packing: {PACKING_IN_WORDS[read_packing(folder)]}",
        *loss,
        f"- Prefix: `{PREFIX_OF_RUNS}` (end-of-text before each document in training and each prompt in "
        "evaluation)",
        f"- Injection: {injection_in_words(folder, config, bank)}",
        f"- Seed: {config['training']['seed']}",
        f"- Versions: torch {versions.get('torch')}, transformers {versions.get('transformers')}",
        f"- Computed on: {markdown_text(', '.join(read_device_precision_attention(folder)))}",
    ]


def injection_in_words(folder: Path, config: dict[str, Any], bank: FactBank | None) -> str:
    """One sentence: how many facts, of which arms, how often, by which strategy and placement."""
    if bank is None:
        return "none, ordinary training"
    if not has_plan(folder):
        return "switched off; the same facts were measured (twin run)"
    plan = read_plan(folder)
    exposures = count_exposures(plan)
    facts = bank.injected_facts()
    keys = [GroupKey(fact.role, fact.arm, [fact.id]) for fact in facts]
    doses = doses_of_facts(bank, [folder])
    if any(fact.arm for fact in facts) and (groups := treatment_groups(keys, doses)):
        sizes = Counter(groups_of(keys, doses))
        how = f"{len(facts):,} facts, " + ", ".join(
            f"{sizes[group]:,} of {markdown_text(group)}" for group in groups
        )
    else:
        by_count = sorted(Counter(exposures[fact.id] for fact in facts).items())
        often = ", ".join(f"{n:,} with {count:,} exposures each" for count, n in by_count[:MOST_COUNTS])
        more = f" and {len(by_count) - MOST_COUNTS} other numbers" if len(by_count) > MOST_COUNTS else ""
        how = f"{len(facts):,} facts, {often}{more}"
    section = config["injection"]
    return (
        f"{how} ({plan.num_rows:,} statements), strategy `{section['strategy']}` over the {section['span']}, "
        f"placement `{section['placement']}`"
    )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
