"""One training step on a few tokens, before the corpus is prepared.

Many wrong values show only when a model computes or an optimizer steps, and a corpus may take hours to
prepare. So every run, and `stlm train --dry-run`, first trains a model of the same config for one step.
"""

import copy
import tempfile
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from tidy_stlms.configs.errors import RunFailed, UserError
from tidy_stlms.configs.keys import MODEL_CONFIG
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import ModelSection, RunConfig
from tidy_stlms.eval.models.checks import check_causal
from tidy_stlms.eval.models.load import free_memory
from tidy_stlms.eval.models.read import empty_model, read_adapter_config, read_model_config
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.model import (
    check_vocabulary,
    config_for_tokenizer,
    number_of_parameters,
    random_model,
)
from tidy_stlms.trainers.packing import Packing, choose_packing
from tidy_stlms.trainers.stream import Geometry
from tidy_stlms.trainers.trainer import STLMTrainer

TOKENS = 16  # in a row
MAX_PARAMETERS = 10**11
MAX_PARAMETERS_TO_TRAIN = 200_000_000
# A trial writes nothing, reports nothing, and does not compile.
TRIAL_ARGUMENTS: dict[str, Any] = {
    "max_steps": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "dataloader_persistent_workers": False,
    "dataloader_multiprocessing_context": None,
    "lr_scheduler_type": "constant",  # a schedule of one step may divide by zero
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "eval_strategy": "no",
    "eval_on_start": False,
    "logging_strategy": "no",
    "save_strategy": "no",
    "push_to_hub": False,
    "report_to": [],
    "disable_tqdm": True,
    "torch_compile": False,
    "resume_from_checkpoint": None,
}


def trial_config(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, vocab_size: int
) -> PreTrainedConfig | None:
    """The config of the model to try; None for a peft adapter, which is not tried.

    Raises UserError if it is wrong or cannot be read.
    """
    if not section.name_or_path:
        return config_for_tokenizer(section, tokenizer, vocab_size)
    if read_adapter_config(section.name_or_path, section.revision) is not None:
        return None
    return read_model_config(
        section.name_or_path, trust_remote_code=section.trust_remote_code, revision=section.revision
    )


def try_one_step(
    model_config: PreTrainedConfig,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    vocab_size: int,
    context_window: int,
) -> Packing | None:
    """Train a model with random weights for one step on 16 tokens.

    Of a model with more than 200 million parameters, only the shapes are checked. torch.compile is not tried.

    Args:
        model_config: What `trial_config` has returned.
        vocab_size: The number of token ids that the run's tokenizer has, or may have if it is still to be
            trained.
        context_window: Tokens in a row of the run.

    Returns the packing that the run will have, unless only shapes are checked.

    Raises UserError if no model can be made, if it has too few token ids, if it cannot keep documents apart
    and the config asks for that, or if the step fails.
    """
    where, trust = config.model.name_or_path or MODEL_CONFIG, config.model.trust_remote_code
    shapes = empty_model(model_config, trust_remote_code=trust, what=where)
    parameters = number_of_parameters(shapes)
    if parameters > MAX_PARAMETERS:
        raise UserError(
            f"{where}: makes a model of {parameters / 1e9:,.0f} billion parameters, more than "
            f"{MAX_PARAMETERS / 1e9:,.0f} billion; lower its sizes"
        )
    check_vocabulary(shapes, vocab_size)
    if parameters <= MAX_PARAMETERS_TO_TRAIN:
        model = random_model(model_config, where, trust_remote_code=trust)
        check_causal(model.eval(), f"model {config.model.name_or_path or config.model.type}")
        packing = choose_packing(config.data.packing, model, config.training, context_window)
        try:
            _train(model, tokenizer, config, packing, min(TOKENS, context_window))
        except UserError:
            if context_window <= TOKENS:
                raise
            # some models read only rows of one length
            _train(model, tokenizer, config, packing, context_window)
        del model
        free_memory()
        return packing
    return None


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: RunConfig,
    packing: Packing,
    tokens: int,
) -> None:
    """Train for one step on a row of two documents, of `tokens` tokens together, for each process."""
    args, eos = copy.copy(config.training), tokenizer.eos_token_id
    row = np.arange(tokens) % len(tokenizer)
    row[tokens // 2] = eos
    rows = [{"input_ids": row}] * args.world_size
    counts = {"rows_per_step": len(rows), "rows_per_pass": len(rows), "context_window": tokens}
    geometry = Geometry(**counts, seed=args.seed, corpus="", injection=None, model="", packing=packing.name)
    collator = InjectionCollator(eos_token_id=eos, packing=packing)
    with tempfile.TemporaryDirectory() as folder:
        for name, value in {**TRIAL_ARGUMENTS, "output_dir": folder}.items():
            setattr(args, name, value)
        # STLMTrainer is our own, but nearly all that runs in it is transformers'
        with reading("model and training: one step fails"):
            trainer = STLMTrainer(
                model=model, args=args, train_dataset=rows, data_collator=collator, geometry=geometry
            )
            trainer.pop_callback(PrinterCallback)
            try:
                trainer.train()
            except RunFailed as error:
                reason = str(error).partition(" (")[0].removeprefix("step 1: ")
                raise UserError(
                    f"{MODEL_CONFIG}: in one step with random weights, {reason}; is a size or an "
                    "initializer_range wrong?"
                ) from error
