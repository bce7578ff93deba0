"""Dropout that changes during training: constant, linear, triangle.

arXiv:2409.05423 studied low dropout early and more of it later (and the reverse) for small models trained for
several epochs. The probability depends on the step only, so that a resumed run continues with the right one.
"""

from typing import cast

from torch import nn
from transformers import TrainerCallback

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import DropoutSection
from tidy_stlms.trainers.trainer import STLMTrainer


def dropout_at(step: int, section: DropoutSection, max_steps: int) -> float:
    """The probability in optimizer step `step`, counted from 0.

    `linear` goes from `start` to `end` between `begin` and `until` and stays there; `triangle` rises from
    `start` to `end` and falls back, `cycles` times over (Smith 2017, arXiv:1506.01186, for learning rates).
    """
    # up to 1, a share of all steps
    begin, until = (edge * max_steps if edge <= 1 else edge for edge in (section.begin, section.until))
    progress = min(max((step - begin) / max(until - begin, 1), 0.0), 1.0)
    if section.schedule == "constant":
        return section.start
    if section.schedule == "triangle":
        phase = progress * section.cycles % 1
        progress = 1 - abs(2 * phase - 1)
    return section.start + progress * (section.end - section.start)


def set_dropout(model: nn.Module, probability: float) -> int:
    """Set every dropout of a model; returns their number.

    Dropout of attention is a number in transformers' models, the other ones are modules.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
            count += 1
        elif isinstance(getattr(module, "attention_dropout", None), float | int):
            setattr(module, "attention_dropout", probability)  # noqa: B010  a plain number to torch
            count += 1
    return count


class DropoutCallback(TrainerCallback):
    """Sets the model's dropouts before each step, and has `dropout` logged beside the loss."""

    def __init__(self, trainer: STLMTrainer, section: DropoutSection):
        self.trainer, self.section = trainer, section
        self.model = cast(nn.Module, trainer.model)
        if not set_dropout(self.model, dropout_at(0, section, trainer.args.max_steps)):
            raise UserError("dropout.schedule: this model has no dropout that could be set; remove it")

    def on_step_begin(self, args, state, control, **kwargs):
        probability = dropout_at(state.global_step, self.section, state.max_steps)
        set_dropout(self.model, probability)
        self.trainer.logged_beside_loss["dropout"] = round(probability, 6)
