"""Loads a model only when one of its measurements is missing from the cache, and keeps what is measured.

model = LazyModel(measurement, request)
rows, seconds = model.rows(settings, size, DocumentScore, measure, step=lambda: 64, unit="document")
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import DiskFull, UserError, one_line
from tidy_stlms.configs.files import read_json_object, write_json
from tidy_stlms.configs.printable import printable
from tidy_stlms.configs.records import Output, from_row, to_row
from tidy_stlms.eval.models.identity import model_identity, versions
from tidy_stlms.eval.models.inputs import attention_of
from tidy_stlms.eval.models.load import free_memory, load_model
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.models.prefix import choices_as_trained, prefix_of, warn_of_prefix
from tidy_stlms.eval.scoring.processes import process_count, process_rank
from tidy_stlms.eval.scoring.self_check import SENTENCES, SelfCheck, self_check
from tidy_stlms.eval.study.cache import Part, append_part, key, missing, read_parts
from tidy_stlms.eval.study.request import Measurement, ModelInfo, StudyRequest
from tidy_stlms.eval.tokens import tokenizer_hash

logger = logging.getLogger(__name__)

# The version of all code between a probe and its result. Raise it when a model would get other numbers than
# before: it is part of the key of what is kept, so old results are then measured again.
SCORER_VERSION = "6"

DESCRIPTION = "model.json"

Row = TypeVar("Row")


class ModelDescription(Output, frozen=True, kw_only=True):
    """model.json in the cache: what there is to say of a model without measuring it."""

    parameters: int
    tokenizer: str
    """Its hash."""
    attention: str | None
    prefix: str
    """The name of the model's own prefix."""
    choices_as_trained: tuple[str, ...]
    """The prefixes that its training put before documents; empty if that is not known."""
    self_check: SelfCheck


class NotLoaded(Exception):
    """The model cannot be loaded, so nothing of it can be measured."""


class LazyModel:
    """Loads the model of a measurement when it is first needed, and fills in what the model is."""

    def __init__(
        self,
        measurement: Measurement,
        request: StudyRequest,
        on_described: Callable[[ModelInfo, bool], None] | None = None,
    ):
        self.measurement, self.request, self.on_described = measurement, request, on_described
        self.device_type = measurement.info.device.partition(":")[0]
        self._loaded: tuple[Any, Any] | None = None
        self._folder: Path | None = None
        if request.cache is not None:
            weights = model_identity(measurement.name)
            settings = [self.device_type, measurement.info.dtype, SCORER_VERSION, versions()]
            self._folder = request.cache / "recall" / key([weights, *settings])

    def get(self) -> tuple[Any, Any]:
        """Model and tokenizer; raises NotLoaded."""
        if self._loaded is None:
            name = self.measurement.name
            try:
                self._loaded = load_model(
                    name.path,
                    device=self.request.device,
                    dtype=self.request.dtype,
                    trust_remote_code=self.request.trust_remote_code,
                    revision=name.revision,
                )
            except DiskFull:
                raise
            except Exception as error:
                raise NotLoaded(reason_of_failure(error, name)) from error
            model, tokenizer = self._loaded
            description = _describe(model, tokenizer, self.request)
            self.measurement.info = replace(self.measurement.info, device=str(model.device))
            self._fill_in(description, loaded=True)
            if self._folder is not None and is_first_process():
                path = self._folder / DESCRIPTION
                _is_kept(path, lambda: write_json(path, to_row(description)))
        return self._loaded

    def describe(self) -> None:
        """Fill in what the model is, from the cache if it is there."""
        if self.measurement.info.parameters is None:
            kept = _kept_description(self._folder / DESCRIPTION) if self._folder is not None else None
            if kept is not None:
                self._fill_in(kept, loaded=False)
            else:
                self.get()

    def _fill_in(self, description: ModelDescription, loaded: bool) -> None:
        was_known, choice = self.measurement.info.parameters is not None, self.request.prefix
        prefix, trained = choice or description.prefix, description.choices_as_trained
        self.measurement.info = replace(
            self.measurement.info,
            parameters=description.parameters,
            tokenizer=description.tokenizer,
            attention=description.attention,
            prefix=prefix,
            prefix_as_trained=prefix in trained if trained else None,
            self_check=description.self_check,
        )
        if not was_known and is_first_process():
            warn_of_prefix(self.measurement.name.label, trained, choice)
        if self.on_described is not None and not was_known:
            self.on_described(self.measurement.info, loaded)

    def free(self) -> None:
        """Release the model's memory."""
        if self._loaded is not None:
            self._loaded = None
            free_memory()

    def rows(
        self,
        settings: dict[str, Any],
        size: int,
        row_type: type[Row],
        measure: Callable[[int, int], Sequence[Row]],
        *,
        step: Callable[[], int],
        unit: str,
        together: bool = False,
        is_complete: Callable[[Row], bool] = lambda row: True,
    ) -> tuple[list[Row], float]:
        """Take a measurement of `size` rows. Returns the rows, and the seconds that measuring them took.

        Rows in the cache are read. The others are measured in parts, and each part is kept.

        Args:
            settings: Everything besides model and versions that changes the numbers.
            measure: Measures the rows from start to stop - 1.
            step: The most rows of a part; called when the model is loaded.
            unit: What the progress bar counts.
            together: All processes take part. The first process decides which rows are missing.
            is_complete: Rows for which this is false are not kept.
        """
        path = self._folder / f"{key(settings)}.jsonl" if self._folder is not None else None
        parts = read_parts(path, row_type, size)
        if together:
            parts = from_first_process(parts)
        n_done = sum(len(part.rows) for part in parts)
        if n_done < size:
            self.get()
        keep = path is not None and is_first_process()
        shown = self.request.progress and n_done < size and size > 1 and is_first_process()
        label = self.measurement.name.label
        with tqdm(total=size, initial=n_done, desc=printable(label), unit=unit, disable=not shown) as bar:
            for start, stop in list(missing(parts, size, step() if n_done < size else 1)):
                began = time.perf_counter()
                rows = measure(start, stop)
                part = Part(start, time.perf_counter() - began, tuple(rows))
                parts.append(part)
                if keep and path is not None and all(map(is_complete, rows)):
                    keep = _is_kept(path, functools.partial(append_part, path, part))
                bar.update(stop - start)
        parts.sort(key=lambda part: part.start)
        return [row for part in parts for row in part.rows], sum(part.seconds for part in parts)


def is_first_process() -> bool:
    """Whether this process writes files: it is the only one, or the first of several."""
    return process_rank() == 0


def from_first_process(value: Any) -> Any:
    """The first process's `value`, in every process."""
    if process_count() == 1:
        return value
    import torch.distributed as distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def reason_of_failure(error: BaseException, name: ModelName) -> str:
    """An error in one line, without the model's name: the report shows the name beside it."""
    text = " ".join(str(error).split()).removeprefix(f"{name.path}: ")
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return one_line(text, 300)


def _describe(model: Any, tokenizer: Any, request: StudyRequest) -> ModelDescription:
    asked = [probe.prompt for probe in request.bank.probes] if request.bank is not None else []
    asked = asked or [prompt.sentence for prompt in request.prompts] or list(request.documents)
    return ModelDescription(
        parameters=model.num_parameters(),
        tokenizer=tokenizer_hash(tokenizer),
        attention=attention_of(model),
        prefix=prefix_of(model, tokenizer).name,
        choices_as_trained=choices_as_trained(model, tokenizer),
        self_check=self_check(model, tokenizer, asked or SENTENCES, prefix=request.prefix),
    )


def _kept_description(path: Path) -> ModelDescription | None:
    """A model's description in the cache; None if there is none, or if it is damaged."""
    try:
        return from_row(ModelDescription, read_json_object(path), str(path))
    except UserError:
        return None


def _is_kept(path: Path, write: Callable[[], None]) -> bool:
    """Whether `write` succeeds. A full disk is only a warning: it must not cost what was measured."""
    try:
        write()
    except (DiskFull, OSError) as error:
        reason = str(error) if isinstance(error, DiskFull) else f"{path}: {error.strerror or error}"
        logger.warning("%s; going on without keeping what is measured", reason)
        return False
    return True
