"""What `stlm facts import` prints: what it took of the source, what it left out, and what the bank lacks."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tidy_stlms.configs.errors import counted
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.imports.builder import BankBuilder, listed
from tidy_stlms.eval.facts.warnings import WARNINGS, states_none

TABLES = ("csv", "jsonl")  # formats with --column
REPORTED = 30  # records left out that are printed; import.json has all of them


def source_lines(builder: BankBuilder, report: Path) -> Iterator[str]:
    """What was read, taken, not taken and left out. `report` is the file that has all of it."""
    for file, records in builder.records_read.items():
        yield f"read: {file}: {counted(records, 'record', 'records')}"
    for line in builder.mapped:
        yield f"taken: {line}"
    if builder.not_taken:
        remedy = " (--column FIELD=NAME takes a column)" if builder.format in TABLES else ""
        yield f"not taken: {listed(builder.not_taken)}{remedy}"
    for where, reason in builder.left_out[:REPORTED]:
        yield f"left out: {where}: {reason}"
    if len(builder.left_out) > REPORTED:
        yield f"left out: {len(builder.left_out) - REPORTED:,} more, all in {report}"


def bank_lines(bank: FactBank, builder: BankBuilder, folder: str) -> Iterator[str]:
    """What the bank in `folder` cannot be used for, and the flags of its probes."""
    if states_none(bank):
        facts = counted(len(bank.injected_facts()), "injected fact", "injected facts")
        column = ""
        if builder.format in TABLES:
            unused = f" (not taken: {listed(builder.not_taken)})" if builder.not_taken else ""
            column = f"--column statement=NAME takes them from a column{unused}, and "
        yield (
            f"{facts} can be asked, not injected: the source has no statements; {column}--role known is for "
            "facts that are only asked"
        )
    asked = {fact_id for probe in bank.probes for fact_id in probe.fact_ids}
    if n_unasked := sum(fact.id not in asked for fact in bank.injected_facts()):
        yield f"{counted(n_unasked, 'injected fact has', 'injected facts have')} no probe, so no recall"
    if n_bare := sum(not probe.distractors for probe in bank.probes):
        for_them = "it" if n_bare == 1 else "them"
        probes = counted(n_bare, "probe has", "probes have")
        yield f"{probes} no distractors: no accuracy is measured for {for_them}"
    flags = Counter(flag for probe in bank.probes for flag in probe.flags)
    if flags:
        n_flagged = sum(bool(probe.flags) for probe in bank.probes)
        names = ", ".join(f"{flag} {count:,}" for flag, count in sorted(flags.items()))
        yield (
            f"{counted(n_flagged, 'probe has', 'probes have')} flags: {names} (explained in "
            f"docs/exchange.md){_where_listed(flags, folder)}"
        )


def _where_listed(flags: Counter[str], folder: str) -> str:
    warnings = [flag for flag in sorted(flags) if flag in WARNINGS]
    if not warnings:
        return ""
    which = "them" if len(warnings) == len(flags) else ", ".join(warnings)
    return f"; `stlm facts validate {folder}` lists {which}"
