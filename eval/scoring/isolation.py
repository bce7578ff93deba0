"""Restores random generators and train/eval modes after an evaluation.

Evaluations run between training steps. If one of them changed the random state or a mode, the dropout of the
next step would change too. The trained model would then depend on how often it was evaluated, and a resumed
run would differ from an uninterrupted one.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put `model` into eval mode for the block, and restore the mode of every module afterwards.

    `model.train()` would also put modules into train mode that the user had set to eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def rng_untouched(model: torch.nn.Module | None = None) -> Iterator[None]:
    """Restore the state of python's, numpy's and torch's generators (CPU, CUDA, MPS) after the block.

    With a `model`, its train/eval modes too.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    # reading the state would initialise CUDA, which takes memory on every device
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    modes = [(module, module.training) for module in model.modules()] if model is not None else []
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)
        for module, training in modes:
            module.training = training
