"""The prefix of a text: the special tokens that stand before it, in training and in asking alike.

A model whose training documents all follow end-of-text recalls less without it. So a run stores its prefix
in the model's config, and the harness uses the same one. Other models are asked as their tokenizer encodes a
text.

    prefix_of(model, tokenizer)          # Prefix(name="eos", ids=(0,))
    prefix_of(model, tokenizer, "none")  # Prefix(name="none", ids=())
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.run_folder import CHECKPOINT, is_run
from tidy_stlms.eval.tokens import control_ids, encode_texts, encode_with_own_tokens, vocabulary_size

logger = logging.getLogger(__name__)

PREFIXES = ("bos", "eos", "none")  # what users may choose
OWN = "own"  # the name of a tokenizer's own special tokens that are neither BOS nor end-of-text
PREFIX_OF_RUNS = "eos"  # each document of the training stream follows an end-of-text token
CONFIG_FIELD = "document_prefix"  # of config.json


class Prefix(NamedTuple):
    """The special tokens before a text."""

    name: str
    """One of PREFIXES, or OWN."""
    ids: tuple[int, ...]
    """Their token ids."""


def prefix_of(model: Any, tokenizer: Any, choice: str | None = None) -> Prefix:
    """The prefix of the texts that `model` is asked.

    Args:
        choice: One of PREFIXES. When left out, the prefix that the model was trained with, if its config says
            so; else what the tokenizer puts before a text by itself.

    Raises UserError for another choice, and for a token that the tokenizer does not have.
    """
    choice = choice or trained_prefix(model)
    if choice is None:
        return own_prefix(tokenizer)
    if choice == "none":
        return Prefix("none", ())
    if choice not in PREFIXES:
        raise UserError(f"prefix {choice!r}: not one of {', '.join(PREFIXES)}")
    token_id = getattr(tokenizer, f"{choice}_token_id")
    if token_id is None:
        what = "BOS" if choice == "bos" else "end-of-text"
        raise UserError(f"prefix {choice}: the tokenizer has no {what} token; take another prefix")
    return Prefix(choice, (token_id,))


def own_prefix(tokenizer: Any) -> Prefix:
    """The special tokens that the tokenizer puts before a text by itself: BOS, none or others.

    Texts are encoded without special tokens and get a prefix. So an end-of-text that some tokenizers append
    is never scored.
    """
    text, text_ids = _sample(tokenizer)
    with_special = encode_with_own_tokens(tokenizer, text)
    ids: tuple[int, ...] = ()
    for length in range(len(with_special) - len(text_ids) + 1):
        if with_special[length : length + len(text_ids)] == text_ids:
            ids = tuple(with_special[:length])
            break
    names = {(): "none", (tokenizer.eos_token_id,): "eos", (tokenizer.bos_token_id,): "bos"}
    return Prefix(names.get(ids, OWN), ids)


def _sample(tokenizer: Any) -> tuple[str, list[int]]:
    """A text that the tokenizer can encode, with its ids; most can encode the first one."""
    for text in chain(("a",), _words(tokenizer)):
        [ids] = encode_texts(tokenizer, [text])["input_ids"]
        if ids:
            return text, ids
    raise UserError("the tokenizer makes no token of any text")


def _words(tokenizer: Any) -> Iterator[str]:
    """The texts of the vocabulary. It is listed when the first of them is asked for, which may take long."""
    control = control_ids(tokenizer)
    yield from (tokenizer.decode([i]) for i in range(vocabulary_size(tokenizer)) if i not in control)


def trained_prefix(model: Any) -> str | None:
    """The name of the prefix that a model's training put before documents; None if it is not known."""
    from tidy_stlms.eval.models.inputs import base_model  # torch takes seconds to import

    name = getattr(base_model(model).config, CONFIG_FIELD, None)
    return name if name in PREFIXES else None


def record_prefix(model: Any, name: str = PREFIX_OF_RUNS) -> None:
    """Store the name of a model's prefix in its config, and so in every folder that it is saved to."""
    from tidy_stlms.eval.models.inputs import base_model

    setattr(base_model(model).config, CONFIG_FIELD, name)


def lm_eval_arguments(prefix: Prefix, tokenizer: Any) -> str | None:
    """The argument by which lm-eval puts the same prefix before texts: empty if it needs none, None if it has
    no such argument.

    By itself lm-eval puts what the tokenizer adds. `add_bos_token` adds BOS, or nothing.
    """
    if prefix.ids == own_prefix(tokenizer).ids:
        return ""
    if not prefix.ids:
        return "add_bos_token=False"
    return "add_bos_token=True" if prefix.ids == (tokenizer.bos_token_id,) else None


def choices_as_trained(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """The choices that give the prefix of the model's training: two, if BOS and end-of-text are one token.
    Empty if the training is not known."""
    trained = trained_prefix(model)
    if trained is None:
        return ()
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "none": None}
    return tuple(choice for choice in PREFIXES if ids[choice] == ids[trained])


def warn_of_prefix(label: str, trained: Sequence[str], choice: str | None) -> None:
    """Log a warning if the model of that label is asked with another prefix than in training.

    `trained` is what `choices_as_trained` returns.
    """
    if choice is not None and trained and choice not in trained:
        logger.warning(
            "%s: is asked with prefix %s, but its training put %s before each document: its figures may be "
            "lower than what it knows",
            *(label, choice, trained[-1]),
        )


def is_run_or_checkpoint(folder: str | Path) -> bool:
    """Whether a folder is a run or a run's checkpoint. Earlier versions trained with PREFIX_OF_RUNS too, but
    did not store it."""
    folder = Path(folder)
    return is_run(folder) or (CHECKPOINT.fullmatch(folder.name) is not None and is_run(folder.parent))
