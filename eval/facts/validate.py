"""Reads, checks and flags a bank.

    bank = load_bank("banks/people")
    validate(bank)                      # [Finding(level="warning", code="case_differs", ...), ...]

Errors make a bank unusable (`integrity.py`). Warnings (`warnings.py`) become flags on the probes that they
concern, and reports count them: imported datasets have such probes, and must still be read whole. Two
warnings are about the whole bank and flag no probe: `none_stated` and `guessable` (`guesser_tests.py`). A
*generated* bank with warnings is refused, since its spec can be changed.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.facts.bank import FactBank, read_bank
from tidy_stlms.eval.facts.guesser_tests import guessable, guesser_tests
from tidy_stlms.eval.facts.integrity import Finding, integrity_errors
from tidy_stlms.eval.facts.records import Probe
from tidy_stlms.eval.facts.warnings import OF_FACTS, OF_RELATIONS, WARNINGS, warnings_of

logger = logging.getLogger(__name__)

FORMER_NEW_WORDS = "unseen_words"  # what banks of earlier versions call new_words


def load_bank(folder: str | Path, *, check: bool = True, flag: bool = True) -> FactBank:
    """Read, check and flag a bank.

    Args:
        folder: The bank's folder.
        check: False to read it only, so that `validate` can list all errors of a broken bank.
        flag: False to keep the flags that are in the files. The flags of a run's copy are those of its start.

    Returns:
        The bank. One that was edited by hand is used as it is: a log line says so and gives its new hash.

    Raises:
        UserError: For a bank with errors, and for a generated bank with warnings. It names the file, and the
            line or the record's id.
    """
    bank, recorded_hash = read_bank(folder)
    if check and (errors := integrity_errors(bank)):
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise UserError(f"{folder}/{errors[0].message}{more}")
    if recorded_hash is not None and recorded_hash != bank.sha256:
        logger.warning(
            "%s has been edited since its hash was written: going on as sha256 %.12s", folder, bank.sha256
        )
    if not check or not flag:
        return bank
    warnings = warnings_of(bank)
    # Guessers take seconds. A bank that is as it was generated has passed them, or is of an earlier version.
    if bank.meta.get("provenance") == "generated" and recorded_hash != bank.sha256:
        warnings += guessable(guesser_tests(bank))
    refuse_generated(bank, warnings, folder)
    return flag_probes(bank, warnings)


def validate(bank: FactBank, corpus_words: set[str] | None = None, *, guessers: bool = True) -> list[Finding]:
    """All errors of the bank. If it has none, all warnings.

    Args:
        bank: The bank.
        corpus_words: The words of the corpus that the model is trained on (`words_of`). A held-out wording
            may use them: they are not new to the model.
        guessers: False to leave out the guessers, which take seconds for a large bank.
    """
    if errors := integrity_errors(bank):
        return errors
    warnings = warnings_of(bank, corpus_words)
    return [*warnings, *guessable(guesser_tests(bank))] if guessers else warnings


def refuse_generated(bank: FactBank, findings: Iterable[Finding], folder: str | Path | None = None) -> None:
    """Raise UserError if bank.json says that the bank was generated, and the validator has findings.

    `new_words: flag` in the spec allows the warning `new_words`. `known_already` is always allowed: it says
    what a model knows, and is no mistake of the spec. `folder` is the folder that the bank was read from.
    """
    if bank.meta.get("provenance") != "generated":
        return
    spec = bank.meta.get("spec")
    allows_new_words = isinstance(spec, dict) and "flag" in (
        spec.get("new_words"),
        spec.get(FORMER_NEW_WORDS),
    )
    allowed = {"known_already", "new_words"} if allows_new_words else {"known_already"}
    refused = [finding for finding in findings if finding.code not in allowed]
    if not refused:
        return
    if refused[0].code == "guessable":
        remedy = "change the spec's answers or wordings" if folder is None else "generate the bank again"
        remedy += ", or take `provenance` out of bank.json to keep it" if folder is not None else ""
    elif folder is not None:
        remedy = "correct the line, or take `provenance` out of bank.json to keep it with a flag"
    elif refused[0].code == "new_words":
        remedy = "raise `paraphrases`, or set new_words=flag if the model's corpus holds the words"
    else:
        remedy = "change the spec's wordings or answers"
    where = "" if folder is None else f"{folder}/"
    more = f" (and {len(refused) - 1} more findings)" if len(refused) > 1 else ""
    raise UserError(f"generated bank refused: {where}{refused[0].message}{more}; {remedy}")


def flag_probes(bank: FactBank, findings: Iterable[Finding]) -> FactBank:
    """The bank with these warnings as flags on its probes. Flags that are no warnings stay."""
    by_fact: dict[str, set[str]] = defaultdict(set)
    by_probe: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.level == "warning" and finding.code not in OF_RELATIONS:
            for record_id in finding.ids:
                (by_fact if finding.code in OF_FACTS else by_probe)[record_id].add(finding.code)

    def flagged(probe: Probe) -> Probe:
        kept = {flag for flag in probe.flags if flag not in (*WARNINGS, FORMER_NEW_WORDS)}
        flags = kept.union(
            by_probe.get(probe.id, ()), *(by_fact.get(fact_id, ()) for fact_id in probe.fact_ids)
        )
        return probe if flags == set(probe.flags) else replace(probe, flags=tuple(sorted(flags)))

    return replace(bank, probes=tuple(flagged(probe) for probe in bank.probes))
