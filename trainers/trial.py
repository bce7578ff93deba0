"""One training step on a few tokens, before the corpus is prepared.

Many wrong values show only when a model computes or an optimizer steps, and a corpus may take hours to
prepare. So every run, and `stlm train --dry-run`, first trains a model of the same config for one step.
"""

import copy
import tempfile
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from tidy_stlms.configs.keys import MODEL_CONFIG
from tidy_stlms.configs.reading import reading
from tidy_stlms.configs.schema import RunConfig, STLMTrainingArguments
from tidy_stlms.eval.models.load import free_memory
from tidy_stlms.eval.models.read import read_adapter_config, read_model_config
from tidy_stlms.trainers.collator import InjectionCollator
from tidy_stlms.trainers.model import (
    check_vocabulary,
    choose_context_window,
    number_of_parameters,
    random_model,
    scratch_config_for,
    shapes_of,
)
from tidy_stlms.trainers.stream import Geometry
from tidy_stlms.trainers.trainer import STLMTrainer

TOKENS = 16  # in the only row
LARGEST = 200_000_000  # parameters; of a larger model only the shapes are made
# What is left out: a trial writes nothing, reports nothing, and does not compile.
LEFT_OUT: dict[str, Any] = {
    "max_steps": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "dataloader_persistent_workers": False,
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


def try_one_step(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Train a model of `config` for one step on 16 tokens, with random weights; returns the context window.

    Of a model with more than 200 million parameters, only the shapes are checked. A peft adapter is not
    tried; the result is None.

    Raises UserError if the run would fail.
    """
    section, where = config.model, MODEL_CONFIG
    trust = section.trust_remote_code
    if not section.name_or_path:
        model_config = scratch_config_for(section, tokenizer)
    elif read_adapter_config(section.name_or_path, section.revision) is None:
        where = section.name_or_path
        model_config = read_model_config(where, trust_remote_code=trust, revision=section.revision)
    else:
        return None
    window = choose_context_window(config.data.context_window, model_config)
    shapes = shapes_of(model_config, where, trust_remote_code=trust)
    check_vocabulary(shapes, tokenizer)
    if number_of_parameters(shapes) <= LARGEST:
        model = random_model(model_config, where, trust_remote_code=trust)
        _train_one_step(model, tokenizer, config.training, min(window, TOKENS))
        free_memory()
    return window


def _train_one_step(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: STLMTrainingArguments,
    tokens: int,
) -> None:
    rows = [{"input_ids": np.arange(tokens) % min(len(tokenizer), 100)}] * args.world_size
    counts = {"rows_per_step": len(rows), "rows_per_pass": len(rows), "context_window": tokens}
    geometry = Geometry(**counts, seed=args.seed, corpus="", injection=None, model="")
    with tempfile.TemporaryDirectory() as folder, reading("training: no step can be made"):
        args = copy.copy(args)
        for name, value in {**LEFT_OUT, "output_dir": folder}.items():
            setattr(args, name, value)
        trainer = STLMTrainer(
            model=model,
            args=args,
            train_dataset=rows,
            data_collator=InjectionCollator(eos_token_id=tokenizer.eos_token_id),
            geometry=geometry,
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
