"""STLMTrainer: Hugging Face's Trainer over a TrainingStream, resumable to the bit."""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import nested_gather
from transformers.trainer_utils import EvalLoopOutput, HubStrategy

from tidy_stlms.configs.errors import RunFailed
from tidy_stlms.configs.files import flush, flush_folder, readable_as_usual
from tidy_stlms.configs.full_disk import writing
from tidy_stlms.configs.reading import reading
from tidy_stlms.eval.run_folder import SAVING, SUMMARY, checkpoint_of
from tidy_stlms.eval.scoring.isolation import rng_untouched
from tidy_stlms.trainers.checkpoints import mark_whole, newest_whole_checkpoint, remove_old_checkpoints
from tidy_stlms.trainers.hub import CheckpointPusher
from tidy_stlms.trainers.resume import load_stream_state
from tidy_stlms.trainers.stream import Geometry


class STLMTrainer(Trainer):
    """Trainer whose steps depend on the stream only, not on what is measured between them.

    Args:
        geometry: How the stream's positions map to steps. Every checkpoint stores it, and a resume with
            another one is refused.
        eval_bytes_per_token: Mean UTF-8 bytes of the validation rows' predicted tokens, for bits per byte.
        everything else: As for `Trainer`; `train_dataset` is a TrainingStream whose length is
            max_steps x geometry.rows_per_step, `data_collator` an InjectionCollator.
    """

    def __init__(
        self, *args: Any, geometry: Geometry, eval_bytes_per_token: float | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.geometry, self.eval_bytes_per_token = geometry, eval_bytes_per_token
        self.run_id = ""
        """The id of the run, which every checkpoint stores. Empty until the run folder is laid out."""
        self.folder_is_ours: Callable[[], bool] | None = None
        """Whether the run folder is still the one that this run has locked; in the first process only."""
        self.pusher: CheckpointPusher | None = None
        """Pushes checkpoints to the Hub, in the first process only."""
        self.tokens_per_second: float | None = None
        """Training tokens per second in this process, evaluations and saving not counted."""
        self.logged_beside_loss: dict[str, float] = {}
        """What callbacks want to have logged with every training loss."""
        self._began = self._paused = 0.0
        self._save_to: Path | None = None
        self._losses_are_finite = torch.tensor(True)
        self.add_callback(_StreamState(self))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in this block does not count as training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices are decayed; norms, biases and other vectors are not (as GPT-2's and nanoGPT's)."""
        return [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # stays on the device; `_get_grad_norm` reads it once a step, so that the GPU need not wait here
        self._losses_are_finite = self._losses_are_finite.to(loss.device) & loss.isfinite().all()
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, for the log; called before the weights are changed.

        Raises RunFailed if it or a loss of this step is not finite. Under fp16 only the loss counts: there
        the gradient scaler skips steps with infinite gradients, which is how it finds its scale.
        """
        grad_norm = super()._get_grad_norm(model, grad_norm)
        losses_are_finite, self._losses_are_finite = self._losses_are_finite, torch.tensor(True)
        norm = torch.as_tensor(grad_norm, device=losses_are_finite.device)
        if self.accelerator.scaler is not None:
            norm = torch.zeros_like(norm)
        if not (losses_are_finite & norm.isfinite()):
            what = "gradient norm" if losses_are_finite else "loss"
            raise self._failed(f"the {what} is not a finite number", self.state.global_step + 1)
        return grad_norm

    def check_weights(self) -> None:
        """Raise RunFailed if a weight is not finite. The loss would show it only after the next step."""
        model: Any = self.model
        sums = torch.stack([parameter.detach().float().sum() for parameter in model.parameters()])
        if not sums.isfinite().all():
            raise self._failed("the weights are not finite numbers", self.state.global_step)

    def _failed(self, reason: str, step: int) -> RunFailed:
        rate = self._get_learning_rate()
        clip = (
            "lower training.max_grad_norm" if self.args.max_grad_norm > 0 else "set training.max_grad_norm=1"
        )
        remedy = f"lower training.learning_rate, {clip} or raise training.warmup_steps, and start anew"
        if self.args.fp16:
            remedy += "; training.bf16=true has a wider range than fp16"
        checkpoint, _ = newest_whole_checkpoint(Path(str(self.args.output_dir)), self.run_id)
        remaining = (
            f"the last whole checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        )
        return RunFailed(f"step {step}: {reason} (learning rate {rate:.3g}): {remedy}; {remaining}")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        # Trainer's own evaluation draws from the global generators, which dropout reads
        with self.paused(), rng_untouched(self.model):
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss over the tokens of the validation rows, the same for every number of processes.

        Each process takes its share of the batches that a single one would see. Trainer's own loop would fill
        the last batches up with rows from the beginning, which would count twice.
        """
        self.check_weights()
        rows, size = dataloader.dataset, self.args.eval_batch_size
        starts = range(self.args.process_index * size, len(rows), self.args.world_size * size)
        self.callback_handler.eval_dataloader = dataloader  # the progress bar asks for its length
        model: Any = self.model
        model.eval()
        loss_sum, n_tokens = 0.0, 0
        for start in starts:
            batch = self.data_collator([rows[i] for i in range(start, min(start + size, len(rows)))])
            # the model's own mean: Trainer's prediction_step would average over processes, batch by batch
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = model(**self._prepare_inputs(batch)).loss
            predicted = int((batch["labels"][:, 1:] != -100).sum())
            loss_sum += loss.item() * predicted
            n_tokens += predicted
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if self.args.world_size > 1:
            sums = torch.tensor([loss_sum, n_tokens], dtype=torch.float64, device=self.args.device)
            loss_sum, n_tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        loss = loss_sum / n_tokens
        if not math.isfinite(loss):
            raise self._failed("the validation loss is not a finite number", self.state.global_step)
        metrics = {f"{metric_key_prefix}_loss": loss}
        return EvalLoopOutput(np.empty(0), None, metrics, num_samples=len(rows))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds perplexity and bits per byte to a validation loss, tokens and their rate to a training loss.

        Leaves out what is not finite, such as the gradient norm of a step that fp16's scaler has skipped.
        """
        logs = {
            name: value
            for name, value in logs.items()
            if not isinstance(value, float) or math.isfinite(value)
        }
        if "eval_loss" in logs:
            logs["eval_perplexity"] = math.exp(min(logs["eval_loss"], 700.0))
            if self.eval_bytes_per_token:
                logs["eval_bits_per_byte"] = logs["eval_loss"] / math.log(2) / self.eval_bytes_per_token
        if "loss" in logs:
            logs |= self.logged_beside_loss
            per_step = self.geometry.rows_per_step * self.geometry.context_window
            logs["tokens"] = self.state.global_step * per_step
            trained = (self.state.global_step - self._initial_global_step) * per_step
            seconds = time.perf_counter() - self._began - self._paused
            logs["tokens_per_second"] = self.tokens_per_second = round(trained / seconds, 1)
        super().log(logs, start_time)

    def log_beside(self, logs: dict[str, float]) -> None:
        """Log from within a callback, on any process, without losing the log of this step's loss.

        `log` clears `should_log`. Then the loss of this step would not be logged, and the processes would
        disagree on whether to gather it.
        """
        should_log = self.control.should_log
        self.log(logs)
        self.control.should_log = should_log

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Does nothing: CheckpointPusher makes the repository (trainers/hub.py)."""

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Does nothing: save_model() would push before there is a report. `train` pushes after it."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.pusher is not None and self.args.hub_strategy != HubStrategy.END:
            self.pusher.push_checkpoint(Path(checkpoint_folder), self.state.global_step)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_weights()
        loss_sum = nested_gather(self._tr_loss, self.args.parallel_mode).mean().item()
        checkpoint = checkpoint_of(Path(str(self.args.output_dir)), self.state.global_step)
        with self.paused(), writing(checkpoint), self._saving(checkpoint.parent) as saving:
            super()._save_checkpoint(model, trial)  # no other checkpoint is there, so it removes none
            if self.args.should_save:
                self._finish_checkpoint(saving / checkpoint.name, checkpoint, loss_sum)

    def _finish_checkpoint(self, saved: Path, checkpoint: Path, loss_sum: float) -> None:
        """Mark what was saved as whole, rename it, and only then remove older checkpoints.

        In this order, a kill at any moment leaves the newest whole checkpoint in place.
        """
        run_folder = checkpoint.parent
        mark_whole(
            saved,
            run_folder,
            run_id=self.run_id,
            step=self.state.global_step,
            processes=self.args.world_size,
            geometry=self.geometry,
            loss_sum=loss_sum,
            last_logged=self._globalstep_last_logged,
        )
        os.replace(saved, checkpoint)
        flush(run_folder)
        remove_old_checkpoints(run_folder, self.args.save_total_limit)

    @contextlib.contextmanager
    def _saving(self, run_folder: Path) -> Iterator[Path]:
        """Yield a folder to which the Trainer saves inside the block; it is removed at the end."""
        self._save_to = run_folder / SAVING
        try:
            yield self._save_to
        finally:
            if self.args.should_save:
                shutil.rmtree(self._save_to, ignore_errors=True)
            self._save_to = None

    def save_final_model(self, run_folder: Path) -> None:
        """Save model and tokenizer to the run folder, each file whole.

        Removes summary.json first: it belongs to older weights.
        """
        with writing(run_folder), self._saving(run_folder) as saving:
            self.save_model(str(saving))
            if self.args.should_save:
                flush_folder(saving)
                (run_folder / SUMMARY).unlink(missing_ok=True)
                for path in sorted(saving.iterdir()):
                    os.replace(path, run_folder / path.name)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_to or super()._get_output_dir(trial))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with reading(f"{resume_from_checkpoint}: its model cannot be loaded"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(f"{checkpoint}: its optimizer's state cannot be loaded"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(f"{checkpoint}: its random state cannot be loaded"):
            super()._load_rng_state(checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # the first process marks the checkpoint as whole after this, so all others must have saved
        self.accelerator.wait_for_everyone()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # a tied head has no tensor of its own in a checkpoint, and is not missing
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Trainer turns the cache off for training; the saved config gets the model type's own default
        config: Any = self.model.config  # type: ignore[union-attr]
        before, config.use_cache = config.use_cache, getattr(type(config), "use_cache", True)
        try:
            super()._save(output_dir, state_dict)
        finally:
            config.use_cache = before
        if self.args.should_save:  # the other processes have written nothing
            readable_as_usual(Path(output_dir or str(self.args.output_dir)))


class _StreamState(TrainerCallback):
    """Starts the clock, logs the last step's loss, and after a resume restores the sum of losses.

    The Trainer starts its sum at zero, so that the first loss logged after a resume would be a mean
    over fewer steps than in the uninterrupted run.
    """

    def __init__(self, trainer: STLMTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer._began, self.trainer._paused = time.perf_counter(), 0.0
        if state.global_step > 0:
            checkpoint = checkpoint_of(Path(args.output_dir), state.global_step)
            loss_sum, last_logged = load_stream_state(checkpoint, self.trainer.geometry)
            self.trainer._tr_loss.fill_(loss_sum)
            self.trainer._globalstep_last_logged = last_logged

    def on_step_end(self, args, state, control, **kwargs):
        is_ours = self.trainer.folder_is_ours
        if is_ours is not None and not is_ours():  # before anything is written to it
            raise RunFailed(
                f"step {state.global_step}: {args.output_dir} was removed or replaced while the run went on"
            )
        if state.global_step >= state.max_steps:
            control.should_log = True  # the last loss, whatever the interval
        return control
