"""Random states and train/eval modes come back as they were, also after an error."""

import random

import numpy as np
import pytest
import torch

from tidy_stlms.eval.scoring.isolation import eval_mode, rng_untouched


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def disturb():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    raise RuntimeError("on the way")


def test_generators_go_on_as_if_nothing_had_happened():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    with rng_untouched():
        expected = draws()
    with pytest.raises(RuntimeError, match="on the way"), rng_untouched():
        disturb()
    assert draws() == expected
    assert draws() != expected


@pytest.mark.parametrize("manager", [eval_mode, rng_untouched])
def test_every_module_gets_its_own_mode_back(manager):
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    model[1].eval()
    with manager(model):
        model.eval()
        assert not model[0].training
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_eval_mode_is_eval():
    model = torch.nn.Sequential(torch.nn.Dropout())
    with eval_mode(model):
        assert not model[0].training
