"""Pushes to the Hub during training (`training.push_to_hub=true`).

The Trainer's own way uploads the whole output folder, without the model's code, and stores the arguments as
a pickle. Here each checkpoint's model is one commit, code and card included, in the background. A push that
fails is only a warning, so that it does not end the training.
"""

import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from huggingface_hub import HfApi

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.schema import STLMTrainingArguments
from tidy_stlms.eval.hub import hub_errors
from tidy_stlms.eval.report.push import files_to_push, push_model
from tidy_stlms.eval.run_folder import WAITING

logger = logging.getLogger(__name__)


class CheckpointPusher:
    """Pushes models of one run to one repository, one at a time.

    Making a pusher makes the repository, so that a missing token is found before training starts. Raises
    UserError if it cannot be made.
    """

    def __init__(self, args: STLMTrainingArguments, run_folder: Path):
        self.args, self.run_folder = args, run_folder
        name = args.hub_model_id or run_folder.resolve().name
        with hub_errors(f"training.push_to_hub: {name}"):
            self.repo_id = HfApi().create_repo(name, private=args.hub_private_repo, exist_ok=True).repo_id
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")
        self._current: Future | None = None

    def push_checkpoint(self, checkpoint: Path, step: int) -> None:
        """Begin to push. While the last push is not done, do nothing, unless hub_always_push is set."""
        if self._current is not None and not self._current.done() and not self.args.hub_always_push:
            return
        # the checkpoint is renamed, and may be removed, before the push is done
        copy = self.run_folder / WAITING / checkpoint.name
        shutil.rmtree(copy, ignore_errors=True)
        try:
            copy.mkdir(parents=True)
            for name in files_to_push(checkpoint):
                _link(checkpoint / name, copy / name)
        except OSError as error:
            logger.warning("step %d: is not pushed (%s); training goes on", step, error.strerror or error)
            shutil.rmtree(copy, ignore_errors=True)
            return
        self._current = self._executor.submit(
            self._push_and_remove, copy, f"Training in progress, step {step}"
        )

    def push_end(self) -> str:
        """Wait for the last push, then push the finished run; returns the address of the commit.

        Raises UserError if that fails; the run folder is whole by then.
        """
        self.wait()
        try:
            return self._push(self.run_folder, "End of training", run_folder=None)
        except UserError as error:
            remedy = f"stlm push {self.run_folder} {self.repo_id}"
            raise UserError(
                f"{error}; the run is whole in {self.run_folder}: `{remedy}` when it is mended"
            ) from None

    def wait(self) -> None:
        """Wait until the last push is done."""
        self._executor.shutdown(wait=True)
        shutil.rmtree(self.run_folder / WAITING, ignore_errors=True)

    def _push(self, folder: Path, message: str, run_folder: Path | None) -> str:
        url, _ = push_model(
            folder,
            self.repo_id,
            run_folder=run_folder,
            private=self.args.hub_private_repo,
            revision=self.args.hub_revision,
            message=message,
        )
        return url

    def _push_and_remove(self, folder: Path, message: str) -> None:
        try:
            self._push(folder, message, self.run_folder)
        except Exception as error:  # an error in this thread would be seen by nobody
            logger.warning("%s; training goes on", error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
