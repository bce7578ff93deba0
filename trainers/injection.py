"""The facts of a run: its bank, how often each fact is injected, and the plan with the collator."""

import json
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import find_shipped
from tidy_stlms.configs.references import escape
from tidy_stlms.configs.schema import FactsSection, InjectionSection
from tidy_stlms.eval.facts.bank import FactBank, Statement
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.hub import open_bank
from tidy_stlms.eval.tokens import encode_texts
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.packing import Packing
from tidy_stlms.trainers.plan import InjectionPlan, Unit, exposures_for_fraction, make_plan, units_of
from tidy_stlms.trainers.stream import RowCounts


def load_facts(section: FactsSection) -> FactBank | None:
    """The run's bank, read or generated; None without facts."""
    if section.bank:
        return open_bank(section.bank)
    if section.spec:
        overrides = [f"{key}={json.dumps(escape(value), ensure_ascii=False)}"
                     for key, value in section.overrides.items()]  # fmt: skip
        try:
            return generate_from_spec(find_shipped(section.spec), overrides, seed=section.seed)
        except UserError as error:
            raise UserError(f"facts.spec, facts.overrides: {error}") from None
    return None


def build_injection(
    section: InjectionSection,
    bank: FactBank | None,
    tokenizer: PreTrainedTokenizerBase,
    rows: RowCounts,
    context_window: int,
    seed: int,
    packing: Packing = Packing(),  # noqa: B008  frozen
) -> tuple[InjectionPlan | None, InjectionCollator]:
    """The plan for the bank's injected facts, and the collator that carries it out.

    Without facts, or with `injection.enabled=false`, the plan is None and the collator changes nothing.

    Args:
        seed: Of positions and wordings, unless `injection.seed` is given.
        packing: How the collator's batches are read. It does not change the plan.

    Raises UserError if the bank's statements cannot be injected exactly as often as the config says.
    """
    seed = seed if section.seed is None else section.seed
    plan, statement_tokens = None, {}
    if bank is not None and section.enabled:
        statements = injected_statements(bank)
        encoded = encode_texts(tokenizer, [statement.text for statement in statements])["input_ids"]
        statement_tokens = {s.id: ids for s, ids in zip(statements, encoded, strict=True)}
        units = units_of((s.id, tuple(s.fact_ids), len(statement_tokens[s.id]), s.kind) for s in statements)
        plan = make_plan(
            units,
            exposures=_exposures(section, bank, units, rows.total * context_window),
            total_rows=rows.total,
            rows_per_pass=rows.per_pass,
            rows_per_step=rows.per_step,
            context_window=context_window,
            strategy=section.strategy,
            span=section.span,
            window=section.window,
            placement=section.placement,
            seed=seed,
        )
    collator = InjectionCollator(
        plan,
        statement_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        placement=section.placement,
        seed=seed,
        packing=packing,
    )
    return plan, collator


def injected_statements(bank: FactBank) -> list[Statement]:
    """The statements of injected facts; UserError if there is none, or one states other facts too."""
    injected = {fact.id for fact in bank.facts if fact.role == "injected"}
    statements = [s for s in bank.statements if any(fact_id in injected for fact_id in s.fact_ids)]
    mixed = next((s for s in statements if not injected.issuperset(s.fact_ids)), None)
    if mixed is not None:
        raise UserError(f"statement {mixed.id}: tells of injected facts and of others; split it")
    if not statements:
        raise UserError(
            "facts: the bank has no statement of an injected fact; add statements (`stlm facts import` takes "
            "them from a column with --column statement=NAME), or train without them: injection.enabled=false"
        )
    return statements


def arm_exposures(section: InjectionSection, bank: FactBank) -> dict[str | None, int]:
    """The exposures of the facts of each arm; None stands for facts outside of any arm.

    The number is that of `injection.arms`; without one, the bank's own; without that, `injection.exposures`.
    Empty if `injection.fraction` decides.

    Raises UserError for an arm that the bank does not have, and where some facts have no number.
    """
    of_bank = {arm: values["exposures"] for arm, values in bank.meta.get("arms", {}).items()}
    arms = {fact.arm for fact in bank.injected_facts()}
    if unknown := [arm for arm in section.arms if arm not in arms]:
        known = ", ".join(sorted(arm for arm in arms if arm)) or "none"
        raise UserError(f"injection.arms.{unknown[0]}: the bank has no such arm; it has {known}")
    by_arm = {**of_bank, **section.arms}
    if section.fraction is not None:
        if by_arm:
            raise UserError("injection.fraction: this bank's arms have exposures of their own; remove it")
        return {}
    numbers = {arm: by_arm.get(arm or "", section.exposures) for arm in arms}
    for arm, number in numbers.items():
        if number is None:
            whose = f"facts of arm {arm}" if arm else "facts"
            raise UserError(
                f"injection.exposures: {whose} have no number of exposures; give it, injection.fraction, or "
                "injection.enabled=false"
            )
    return {arm: number for arm, number in numbers.items() if number is not None}


def _exposures(
    section: InjectionSection, bank: FactBank, units: Sequence[Unit], total_tokens: int
) -> int | list[int]:
    """The exposures of each unit, or one number for all of them."""
    by_arm = arm_exposures(section, bank)
    if section.fraction is not None:
        return exposures_for_fraction(units, section.fraction, total_tokens)
    counts = []
    for unit in units:
        arms = {bank.fact_by_id[fact_id].arm for fact_id in unit.fact_ids}
        if len(arms) > 1:
            raise UserError(f"statement {unit.statement_ids[0]}: its facts are in different arms; split it")
        counts.append(by_arm[arms.pop()])
    return counts
