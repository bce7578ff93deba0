"""Counts and examples of a bank for the terminal."""

from typing import Any

from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.guesser_tests import best_guesser_in_words, guesser_tests
from tidy_stlms.eval.facts.summary import (
    Counts,
    Example,
    bank_summary,
    chance_in_words,
    chance_of,
    exact_match_chance,
    examples,
    token_lengths,
)
from tidy_stlms.scripts.tables import print_rows
from tidy_stlms.scripts.terminal import Terminal, literal


def print_bank(bank: FactBank, title: str, n_examples: int) -> None:
    """Print counts by role, arm, relation and type, and examples: facts with their statements and probes."""
    console = Terminal()
    summary = bank_summary(bank)
    console.print(f"{title}  sha256 {bank.sha256[:16]}", soft_wrap=True)
    settings = _arm_settings(bank)
    totals = {
        "subjects": _listed(summary.subjects),
        "facts": _listed(summary.facts),
        "facts by arm": ", ".join(f"{arm} {n:,}{settings.get(arm, '')}" for arm, n in summary.arms.items()),
        "probes by flag": _listed(summary.flags),
    }
    for heading, listed in totals.items():
        if listed:
            console.print(f"{heading}: {listed}", soft_wrap=True)
    sections = {
        "facts by relation": summary.relations,
        "statements by form": summary.forms,
        "probes by type": summary.types,
    }
    roles = sorted(summary.facts)
    rows = [
        [
            heading if index == 0 else "",
            name,
            *(f"{counts[role]:,}" if role in counts else "" for role in roles),
        ]
        for heading, section in sections.items()
        for index, (name, counts) in enumerate(section.items())
    ]
    print_rows(console, "", ["", "", *roles], [[literal(cell) for cell in row] for row in rows], 2)
    if chance := chance_in_words(chance_of(bank), exact_match_chance(bank)):
        console.print(literal(chance))
    if tests := guesser_tests(bank):
        console.print(literal(best_guesser_in_words(tests)))
    for example in examples(bank, n_examples):
        _print_example(console, example)


def _listed(counts: Counts) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _arm_settings(bank: FactBank) -> dict[str, str]:
    """Exposures and form of each arm, in brackets; only arms for which the bank has them."""
    return {
        arm: f" ({', '.join(f'{key} {value}' for key, value in settings.items())})"
        for arm, settings in bank.meta.get("arms", {}).items()
    }


def print_token_lengths(bank: FactBank, tokenizer_name: str) -> None:
    """Print how many tokens statements, prompts and answers take."""
    lengths_of = token_lengths(bank, tokenizer_of(tokenizer_name))
    console = Terminal()
    console.print(f"\ntokens under {tokenizer_name}:")
    for name, lengths in lengths_of.items():
        spread = ", ".join(f"{what} {value:g}" for what, value in lengths.items())
        console.print(f"  {name}: {spread}")


def tokenizer_of(name: str) -> Any:
    """What `--tokenizer` names."""
    from tidy_stlms.configs.errors import UserError
    from tidy_stlms.eval.models.read import load_tokenizer

    try:
        return load_tokenizer(name)
    except UserError as error:
        raise UserError(f"--tokenizer {error}") from error


def _print_example(console: Terminal, example: Example) -> None:
    fact = example.fact
    arm = f", arm {fact.arm}" if fact.arm else ""
    lines = [f"\n{fact.id} ({fact.role}{arm}): {fact.subject} | {fact.relation} | {fact.object}"]
    lines += [f"  stated ({statement.form}): {statement.text}" for statement in example.statements]
    for probe in example.probes:
        question = probe.text("__")
        flags = f" [{', '.join(probe.flags)}]" if probe.flags else ""
        answer = f"{probe.answers[0]} (of {1 + len(probe.distractors)}){flags}"
        lines.append(f"  asked ({probe.type}): {question} -> {answer}")
    for line in lines:
        console.print(line, soft_wrap=True)
