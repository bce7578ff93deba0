"""The parts of a run from its config: facts, tokenizer, model, injection."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import modeling_stlm  # noqa: F401  registers its model types
from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once, find_shipped
from tidy_stlms.configs.load import check_keys
from tidy_stlms.configs.schema import InjectionSection, ModelSection, RunConfig, TokenizerTraining
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.generate.generate import generate_from_spec
from tidy_stlms.eval.facts.hub import open_bank
from tidy_stlms.eval.models.checks import check_causal, check_logits
from tidy_stlms.eval.models.load import load_tokenizer as read_tokenizer
from tidy_stlms.eval.models.load import load_weights
from tidy_stlms.eval.tokens import encode_texts, vocabulary_size
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.documents import Documents
from tidy_stlms.trainers.plan import InjectionPlan, Unit, exposures_for_fraction, make_plan, units_of

# What a model from scratch reads where nothing else is said: STLMConfig's vocabulary is this one's.
DEFAULT_TOKENIZER = "gpt2"
# The tokenizer knows them, not the defaults of some model's config.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def load_facts(config: RunConfig) -> FactBank | None:
    """The run's bank, read or generated; None without facts."""
    if config.facts.bank:
        return open_bank(config.facts.bank)
    if config.facts.spec:
        overrides = [f"{key}={json.dumps(value)}" for key, value in config.facts.overrides.items()]
        try:
            return generate_from_spec(find_shipped(config.facts.spec), overrides, seed=config.facts.seed)
        except UserError as error:
            raise UserError(f"facts.spec, facts.overrides: {error}") from None
    return None


def load_tokenizer(
    config: RunConfig, documents: Documents, bank: FactBank | None, cache: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer that the config names, bytes, or one trained on the corpus and the bank's statements.

    Statements of control people count too: else the names of injected people alone would be whole
    tokens, and the two groups could not be compared.
    """
    section = config.tokenizer
    if section.train is not None:
        return _trained_tokenizer(section.train, documents, bank, cache)
    if section.bytes or (config.model.type == "stlm_byte" and not section.name_or_path):
        return byte_tokenizer()
    own = config.model.name_or_path if not section.name_or_path else None
    source = section.name_or_path or own or DEFAULT_TOKENIZER
    try:
        return read_tokenizer(
            source,
            trust_remote_code=config.model.trust_remote_code,
            revision=config.model.revision if own else None,
        )
    except (OSError, ValueError) as error:
        key = "model.name_or_path" if own else "tokenizer.name_or_path"
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{key}={source}: no tokenizer there ({reason})") from None


def _trained_tokenizer(
    wanted: TokenizerTraining, documents: Documents, bank: FactBank | None, cache: Path
) -> PreTrainedTokenizerBase:
    statements = [statement.text for statement in bank.statements] if bank else []
    identity = [documents.key, statements, wanted.vocab_size, wanted.max_documents, version("tokenizers")]
    folder = cache / "tokenizers" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]

    def build(temporary: Path) -> None:
        texts = documents.train.select(range(min(len(documents.train), wanted.max_documents)))["text"]
        train_bpe_tokenizer([*texts, *statements], wanted.vocab_size).save_pretrained(temporary)

    build_once(folder, build)
    return read_tokenizer(str(folder))


def build_model(section: ModelSection, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model from `section.config`, initialised from `seed`, or the model to go on training."""
    set_seed(seed)
    model: Any
    if section.name_or_path:
        model = load_weights(
            section.name_or_path,
            torch.float32,
            trust_remote_code=section.trust_remote_code,
            revision=section.revision,
        )
    else:
        special = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
        config = scratch_config(section, vocab_size=vocabulary_size(tokenizer), **special)
        try:
            model = AutoModelForCausalLM.from_config(config)
        except (ValueError, RuntimeError) as error:  # what the config itself does not check
            raise UserError(f"model.config: {' '.join(str(error).split())}") from None
    name = f"model {section.name_or_path or section.type}"
    if section.name_or_path:
        check_logits(model.eval(), name)
    check_causal(model.eval(), name)
    embedded = model.get_input_embeddings().num_embeddings
    if (needed := vocabulary_size(tokenizer)) > embedded:
        raise UserError(
            f"model: its vocabulary has {embedded} entries, the tokenizer's ids need {needed}; leave out "
            "model.config.vocab_size, or take the model's own tokenizer"
        )
    return model


def scratch_config(section: ModelSection, **defaults: Any) -> PreTrainedConfig:
    """The config of a model from scratch: `model.config`, with `defaults` for what it leaves open.

    Raises UserError if it is wrong.
    """
    config_class, given = CONFIG_MAPPING[section.type], section.config or {}
    check_keys(given, config_class, "model.config")
    try:
        return config_class(**{**dict.fromkeys(SPECIAL_TOKENS), **defaults, **given})
    except (StrictDataclassError, ValueError, TypeError) as error:
        reason = error.__cause__ or error  # strict dataclasses put a validator's own words there
        raise UserError(f"model.config: {' '.join(str(reason).split())}") from None


def build_injection(
    config: RunConfig,
    bank: FactBank | None,
    tokenizer: PreTrainedTokenizerBase,
    total_rows: int,
    rows_per_pass: int,
    rows_per_step: int,
    context_window: int,
) -> tuple[InjectionPlan | None, InjectionCollator]:
    """The plan for the bank's injected facts, and the collator that carries it out."""
    section = config.injection
    seed = config.training.seed if section.seed is None else section.seed
    plan, tokens = None, {}
    if bank is not None and section.enabled:
        injected = {fact.id for fact in bank.facts if fact.role == "injected"}
        chosen = [s for s in bank.statements if any(fact_id in injected for fact_id in s.fact_ids)]
        mixed = next((s for s in chosen if not injected.issuperset(s.fact_ids)), None)
        if mixed is not None:
            raise UserError(f"statement {mixed.id}: tells of injected facts and of others; split it")
        if not chosen:
            raise UserError(
                "facts: the bank has no statement of an injected fact; set injection.enabled=false"
            )
        encoded = encode_texts(tokenizer, [s.text for s in chosen])["input_ids"]
        tokens = {s.id: ids for s, ids in zip(chosen, encoded, strict=True)}
        units = units_of((s.id, tuple(s.fact_ids), len(tokens[s.id]), s.kind) for s in chosen)
        plan = make_plan(
            units,
            exposures=_exposures(section, bank, units, total_rows * context_window),
            total_rows=total_rows,
            rows_per_pass=rows_per_pass,
            rows_per_step=rows_per_step,
            context_window=context_window,
            strategy=section.strategy,
            span=section.span,
            window=section.window,
            placement=section.placement,
            seed=seed,
        )
    collator = InjectionCollator(
        plan,
        tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        placement=section.placement,
        seed=seed,
    )
    return plan, collator


def arm_exposures(section: InjectionSection, bank: FactBank) -> dict[str | None, int]:
    """How often facts of each arm are injected; None stands for facts outside of any arm.

    The config's `injection.arms` go before the bank's own numbers, and these before `injection.exposures`.
    Empty where `injection.fraction` decides.

    Raises UserError for an arm that the bank does not have, and where some facts have no number.
    """
    of_bank = {arm: values["exposures"] for arm, values in bank.meta.get("arms", {}).items()}
    arms = {fact.arm for fact in bank.injected_facts()}
    if unknown := [arm for arm in section.arms if arm not in arms]:
        known = ", ".join(sorted(arm for arm in arms if arm)) or "none"
        raise UserError(f"injection.arms.{unknown[0]}: the bank has no such arm; it has {known}")
    given = {**of_bank, **section.arms}
    if section.fraction is not None:
        if given:
            raise UserError("injection.fraction: this bank's arms have exposures of their own; remove it")
        return {}
    numbers = {arm: given.get(arm or "", section.exposures) for arm in arms}
    for arm, number in numbers.items():
        if number is None:
            whose = f"facts of arm {arm}" if arm else "facts"
            raise UserError(
                f"injection.exposures: {whose} have no number of exposures; give it, injection.fraction, or "
                "injection.enabled=false"
            )
    return {arm: number for arm, number in numbers.items() if number is not None}


def _exposures(
    section: InjectionSection, bank: FactBank, units: list[Unit], total_tokens: int
) -> int | list[int]:
    """How often each unit is exposed, or all of them."""
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
