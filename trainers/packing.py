"""Keeps the documents of a row apart, where the model can do it.

A row holds several documents, one after the other. Ordinary causal attention lets each of them read the ones
before it. Most models of transformers keep documents apart if `position_ids` restart at each one. Others take
`position_ids` and ignore them, so `choose_packing` tries it out with the model at hand.

    tokens        b    c   eos   d    e   eos   f        a row begins anywhere in a document
    position_ids  0    1    0    1    2    0    1

The end-of-text token in front of a document belongs to it and has position 0. So the first token of a
document is predicted from end-of-text.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import STLMTrainingArguments
from tidy_stlms.eval.models.inputs import context_length_of, same_logits, text_config
from tidy_stlms.eval.scoring.isolation import rng_untouched

logger = logging.getLogger(__name__)

APART, JOINED = "apart", "joined"
NOISE = 0.02  # standard deviation
TOKENS = 32  # in each of the two rows of the experiment
SEES_OTHERS = "a packed document changes the logits of the next one"
DIFFERS_FROM_ALONE = "a packed document has other logits than the same document alone"
SCALES_WITH_LENGTH = "its rotary positions depend on the length of the longest document in a batch"
SPLIT_BY_GPU = "its flash attention needs all rows as one, which several GPUs in one process would split"


@dataclass(frozen=True)
class Packing:
    """How the documents of a row are read."""

    name: str = JOINED
    """`apart` or `joined`."""
    one_row: bool = False
    """Whether a batch is given to the model as one row that holds all of its rows, one after the other.

    transformers' flash attention keeps documents apart in a batch of one row only. It costs no more there:
    the kernel gets the length of each document.
    """
    reason: str | None = None
    """Why the model cannot keep documents apart; None if it can, or if `joined` was configured."""


def document_positions(input_ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """Each token's place in its document, (batch, seq): 0 at the row's start and at each end-of-text."""
    index = torch.arange(input_ids.shape[-1], device=input_ids.device)
    starts = torch.where(input_ids == eos_token_id, index, 0).cummax(dim=-1).values
    return index - starts


def choose_packing(
    configured: str | None, model: Any, args: STLMTrainingArguments, context_window: int
) -> Packing:
    """The packing that `data.packing` stands for. None keeps documents apart if the model can.

    Tries it out on the device, in the precision and with the attention of training. The model's modes, its
    config and the random generators are as before afterwards.

    Raises UserError for `apart` if the model cannot keep documents apart.
    """
    if configured == JOINED:
        return Packing(JOINED)
    packing = _find_packing(model, args, context_window)
    if configured == APART and packing.name != APART:
        remedy = "training.use_cache=false or " if args.use_cache else ""
        raise UserError(
            f"data.packing=apart: a model of type {model.config.model_type} cannot keep documents apart: "
            f"{packing.reason}; set {remedy}data.packing=joined"
        )
    return packing


def warn_if_joined(packing: Packing, model_type: str) -> None:
    """Log a warning if documents are joined because the model cannot keep them apart."""
    if packing.reason is not None:
        logger.warning(
            "data.packing=joined: a model of type %s cannot keep documents apart: %s; each document of a row "
            "reads those before it",
            *(model_type, packing.reason),
        )


def _find_packing(model: Any, args: STLMTrainingArguments, context_window: int) -> Packing:
    if _scales_with_length(model, context_window):
        return Packing(JOINED, reason=SCALES_WITH_LENGTH)
    with _as_in_training(model, args), contextlib.ExitStack() as until_the_end:
        try:
            experiment = Experiment(model, min(TOKENS, context_window), args)
        except UserError:  # some models read only rows of one length
            if context_window <= TOKENS:
                raise
            experiment = Experiment(model, context_window, args)
        if not experiment.reads_context():
            until_the_end.enter_context(_perturbed(model))
            experiment = Experiment(model, experiment.tokens, args)
        reason = experiment.leak()
        if reason is None:
            return Packing(APART)
        # With other attention, one row would need a mask of (batch x seq)^2.
        if "flash" in (getattr(model.config, "_attn_implementation", None) or ""):
            if args.n_gpu > 1:
                return Packing(JOINED, reason=SPLIT_BY_GPU)
            reason = experiment.leak(one_row=True)
            if reason is None:
                return Packing(APART, one_row=True)
    return Packing(JOINED, reason=reason)


class Experiment:
    """Two rows of two documents, which begin at different places, and a model that reads them.

    Raises UserError if the model cannot read rows of this length.
    """

    def __init__(self, model: Any, tokens: int, args: STLMTrainingArguments):
        self.model, self.tokens = model, tokens
        self.half_precision = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
        self.begins = [tokens // 2, max(tokens // 3, 1)]  # of each row's second document
        vocabulary, device = model.get_input_embeddings().num_embeddings, model.device
        index = torch.arange(tokens, device=device)
        begins = torch.tensor(self.begins, device=device)[:, None]
        self.is_second = index >= begins  # (2, seq)
        self.positions = torch.where(self.is_second, index - begins, index)
        self.ids = torch.arange(2 * tokens, device=device).view(2, tokens) * 7919 % vocabulary
        other_ids = (self.ids + 1 + vocabulary // 3) % vocabulary
        self.changed = torch.where(self.is_second, self.ids, other_ids)
        # the second documents alone, as every reader of text gives them to the model: at the start of a row;
        # what follows them changes nothing
        alone = torch.stack([row.roll(-begin) for row, begin in zip(self.ids, self.begins, strict=True)])
        with torch.no_grad(), reading(f"model of type {model.config.model_type}: its forward pass fails"):
            self.alone = self._logits(alone)

    def reads_context(self) -> bool:
        """Whether a row's last token sees the one before it. Where the outputs of all layers are initialised
        with zeros, no token sees another before the first training step, and all documents seem apart."""
        neighbour = self.ids.clone()
        neighbour[:, -2] = self.ids[:, 0]
        with torch.no_grad():
            before, after = (self._logits(ids)[:, -1] for ids in (self.ids, neighbour))
        return not torch.equal(before, after)

    def leak(self, *, one_row: bool = False) -> str | None:
        """Why the model cannot keep documents apart; None if it can.

        Args:
            one_row: Give it both rows as one.
        """
        forward = self._in_one_row if one_row else self._logits
        embedded: list[torch.Tensor] = []
        keep = self.model.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: embedded.append(output.requires_grad_())
        )
        try:
            with reading("its forward pass with position_ids fails"):
                packed = forward(self.ids, self.positions)
                score = packed[self.is_second].float().square().sum()
                # empty for a model that does not call its embedding as a module
                gradients = torch.autograd.grad(score, embedded[:1]) if embedded else ()
                packed = packed.detach()
                with torch.no_grad():
                    changed = forward(self.changed, self.positions)
        except UserError as error:
            return str(error)
        finally:
            keep.remove()
        # The gradient shows what the rounding of small logits would hide, and is exactly zero behind a mask.
        if not same_logits(packed[self.is_second], changed[self.is_second]) or any(
            gradient.reshape(2, self.tokens, -1)[~self.is_second].any() for gradient in gradients
        ):
            return SEES_OTHERS
        for row, begin in enumerate(self.begins):
            if not same_logits(self.alone[row, : self.tokens - begin], packed[row, begin:]):
                return DIFFERS_FROM_ALONE
        return None

    def _logits(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """The model's logits, (batch, seq, vocabulary). Without `positions`, it counts for itself."""
        arguments = {"input_ids": ids} if positions is None else {"input_ids": ids, "position_ids": positions}
        half = self.half_precision
        with torch.autocast(ids.device.type, dtype=half, enabled=half is not None):
            logits = self.model(**arguments).logits
        # compared in the precision of training: some models only convert their logits to float32
        return logits if half is None else logits.to(half)

    def _in_one_row(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self._logits(ids.view(1, -1), positions.view(1, -1)).view(*ids.shape, -1)


def _scales_with_length(model: Any, context_window: int) -> bool:
    """Whether rotary frequencies change with the highest position in a batch, within `context_window`."""
    config = text_config(model)
    given = getattr(config, "rope_parameters", None) or {}
    limit = context_length_of(config) or context_window
    by_layer = [part for part in (given, *given.values()) if isinstance(part, dict)]
    return any(
        part.get("rope_type") in ("dynamic", "longrope")
        and context_window > (part.get("original_max_position_embeddings") or limit)
        for part in by_layer
    )


@contextlib.contextmanager
def _perturbed(model: Any) -> Iterator[None]:
    """Add noise to all weights inside the block."""
    weights = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight), alpha=NOISE)
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


@contextlib.contextmanager
def _as_in_training(model: Any, args: STLMTrainingArguments) -> Iterator[None]:
    """Put the model where training will have it, without dropout, and everything back afterwards."""
    device, config = model.device, model.config
    had_cache, use_cache = hasattr(config, "use_cache"), getattr(config, "use_cache", None)
    with rng_untouched(model):
        try:
            model.to(args.device).eval()
            config.use_cache = args.use_cache  # as the Trainer sets it
            yield
        finally:
            model.to(device)
            if had_cache:
                config.use_cache = use_cache
            else:
                del config.use_cache
