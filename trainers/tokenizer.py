"""The tokenizer of a run: an existing one, bytes, or one trained on the run's own texts."""

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from modeling_stlm.tokenization_stlm import byte_tokenizer, train_bpe_tokenizer
from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import build_once
from tidy_stlms.configs.schema import ModelSection, TokenizerSection, TokenizerTraining
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.read import load_tokenizer as read_tokenizer
from tidy_stlms.trainers.documents import Documents

logger = logging.getLogger(__name__)

# For a model from scratch where the config names none: STLMConfig's vocabulary is this one's.
DEFAULT_TOKENIZER = "gpt2"


def load_tokenizer(
    section: TokenizerSection, model: ModelSection, documents: Documents, bank: FactBank | None, cache: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer that the config names, the model's own, bytes, or one trained for this run.

    Raises UserError if there is none under that name.
    """
    if section.train is not None:
        return _trained_tokenizer(section.train, documents, bank, cache)
    return load_existing_tokenizer(section, model)


def load_existing_tokenizer(section: TokenizerSection, model: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer of a run that trains none. Raises UserError if there is none under its name."""
    if section.bytes or (model.type == "stlm_byte" and not section.name_or_path):
        return byte_tokenizer()
    is_models_own = bool(model.name_or_path) and not section.name_or_path
    source = section.name_or_path or model.name_or_path or DEFAULT_TOKENIZER
    try:
        return read_tokenizer(
            source,
            trust_remote_code=model.trust_remote_code,
            revision=model.revision if is_models_own else None,
        )
    except UserError as error:
        if is_models_own:
            raise UserError(f"model.name_or_path={error}") from error
        others = "; or train one (tokenizer.train={}), or use bytes (tokenizer.bytes=true)"
        remedy = others if section.name_or_path is None else ""
        raise UserError(f"tokenizer.name_or_path={error}{remedy}") from error


def _trained_tokenizer(
    training: TokenizerTraining, documents: Documents, bank: FactBank | None, cache: Path
) -> PreTrainedTokenizerBase:
    """A tokenizer of the corpus and of the bank's statements, from the cache where it was trained before."""
    # Statements of control subjects count too. Otherwise only the names of injected subjects would become
    # whole tokens, and the two groups could not be compared.
    statements = [statement.text for statement in bank.statements] if bank else []
    identity = [documents.key, statements, training.vocab_size, training.max_documents, version("tokenizers")]
    folder = cache / "tokenizers" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]

    def build(temporary: Path) -> None:
        count = min(len(documents.train), training.max_documents)
        texts = documents.train.select(range(count))["text"]
        train_bpe_tokenizer([*texts, *statements], training.vocab_size).save_pretrained(temporary)

    build_once(folder, build)
    tokenizer = read_tokenizer(str(folder))
    if len(tokenizer) < training.vocab_size:
        logger.warning(
            "tokenizer.train.vocab_size=%d: the corpus is too small; the tokenizer has %d entries",
            *(training.vocab_size, len(tokenizer)),
        )
    return tokenizer
