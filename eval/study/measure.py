"""One model, asked everything that a study asks: facts, prompts, held-out text, benchmarks.

    measured = measure_model(ModelName("outputs/quickstart", "outputs/quickstart"), Asked(bank=bank))
    measured.rows  # of evaluate_recall

Whatever was measured is kept in the cache folder, part by part, and is not measured again for the same model,
bank, settings and versions; where nothing is left to measure the model is not even loaded. What a model fails
at is noted, and the rest goes on.
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from tqdm.auto import tqdm

from tidy_stlms.configs.errors import DiskFull, UserError
from tidy_stlms.configs.files import read_json, write_json
from tidy_stlms.configs.full_disk import full_disk_reason
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.models.identity import model_identity, versions
from tidy_stlms.eval.models.load import choose_device, choose_dtype, free_memory, load_model, tokenizer_hash
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.recall.metrics import count_flags
from tidy_stlms.eval.scoring.processes import process_count, process_rank
from tidy_stlms.eval.study.cache import Part, key, missing, read_parts, write_part

logger = logging.getLogger(__name__)

# Of everything between a probe and its row: raised when the same model gets other figures than before.
SCORER_VERSION = "5"
TOP_K = 5  # most probable tokens kept for each probe
DOCUMENTS_PER_PART = 64
PROMPTS_PER_PART = 8
BENCHMARK_BATCH = 16
# Probes that are kept together: as many as take some seconds, so that little is lost with a part.
PARAMETERS_AND_PROBES = {"cpu": 2e10}
MOST_PARAMETERS_AND_PROBES = 2e12  # accelerators
PROBES_PER_PART = (32, 1000)


@dataclass(frozen=True)
class Asked:
    """What is asked of every model of a study, and how."""

    bank: FactBank | None = None
    prompts: Sequence[dict[str, Any]] = ()
    documents: Sequence[str] = ()
    benchmarks: Sequence[str] = ()
    linear_probes: Sequence[str] = ()
    generate: bool = True
    max_new_tokens: int = 10
    """After a prompt."""
    top_k: int = TOP_K
    """At each step after a prompt."""
    limit: int | None = None
    num_fewshot: int | None = None
    data_dir: Path | None = None
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    trust_remote_code: bool = False
    cache: Path | None = None
    """The folder that keeps results; None: keep nothing."""
    progress: bool = False


@dataclass
class Measured:
    """What one model answered. `info` is its entry in the study's `models`; sections that were not asked for
    or failed are empty, and `errors` says of the latter why, by section."""

    name: ModelName
    info: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.errors) or any("error" in result for result in self.benchmarks.values())


def measure_model(
    name: ModelName, asked: Asked, *, tell: Callable[[dict[str, Any], bool], None] | None = None
) -> Measured:
    """Ask one model. Where several processes run, all of them must call this; the first returns everything.

    `tell` is called once with the model's `info` as soon as it is known, and whether the model was loaded.
    Raises UserError for a device or dtype that there is not; what else goes wrong stands in the result.
    """
    place = choose_device(asked.device)
    dtype = str(choose_dtype(asked.dtype, place)).removeprefix("torch.")
    measured = Measured(name, _info(name, str(place), dtype))
    model = _Model(name, asked, measured.info, place.type, tell)
    try:
        for section, measure in _SECTIONS.items():
            if "model" not in measured.errors:
                _attempt(section, measure, model, measured)
        if "model" not in measured.errors:
            _attempt("model", lambda model, _: model.describe(), model, measured)
    finally:
        model.free()
    measured.info["error"] = measured.errors.get("model") or measured.errors.get("recall")
    return measured


class _Model:
    """Loads the model when something is first asked of it that is not in the cache."""

    def __init__(
        self,
        name: ModelName,
        asked: Asked,
        info: dict[str, Any],
        device_type: str,
        tell: Callable[[dict[str, Any], bool], None] | None,
    ):
        self.name, self.asked, self.info, self.tell = name, asked, info, tell
        self.device_type = device_type
        self.loaded: tuple[Any, Any] | None = None
        self.folder: Path | None = None
        if asked.cache is not None:
            identity = [model_identity(name), device_type, info["dtype"], SCORER_VERSION, versions()]
            self.folder = asked.cache / "recall" / key(identity)

    def get(self) -> tuple[Any, Any]:
        if self.loaded is None:
            try:
                self.loaded = load_model(
                    self.name.path,
                    device=self.asked.device,
                    dtype=self.asked.dtype,
                    trust_remote_code=self.asked.trust_remote_code,
                    revision=self.name.revision,
                )
            except DiskFull:
                raise
            except Exception as error:
                raise _NotLoaded(_line(error, self.name)) from error
            model, tokenizer = self.loaded
            found = {"parameters": model.num_parameters(), "tokenizer": tokenizer_hash(tokenizer)}
            self._describe({**found, "device": str(model.device)}, loaded=True)
            if self.folder is not None and is_first_process():
                path = self.folder / "model.json"
                _is_kept(path, lambda: write_json(path, found))
        return self.loaded

    def describe(self) -> None:
        """Fill in what the model is, from the cache if it can be had there."""
        if self.info["parameters"] is None:
            if self.folder is not None and (self.folder / "model.json").is_file():
                self._describe(read_json(self.folder / "model.json"), loaded=False)
            else:
                self.get()

    def _describe(self, found: dict[str, Any], loaded: bool) -> None:
        known = self.info["parameters"] is not None
        self.info.update(found)
        if self.tell is not None and not known:
            self.tell(self.info, loaded)

    def free(self) -> None:
        if self.loaded is not None:
            self.loaded = None
            free_memory()

    def in_parts(
        self,
        settings: dict[str, Any],
        size: int,
        measure: Callable[[int, int], list[dict[str, Any]]],
        *,
        step: Callable[[], int],
        unit: str,
        together: bool = False,
    ) -> tuple[list[dict[str, Any]], float]:
        """The rows of a measurement of `size` rows, and the seconds they took: those that are kept, and
        the others by `measure(start, stop)`. Rows with an error are not kept.

        `together`: all processes take part, and what is kept is what the first of them finds.
        """
        folder = self.folder / key(settings) if self.folder is not None else None
        parts = read_parts(folder, size)
        if together:
            parts = from_first_process(parts)
        done = sum(part.stop - part.start for part in parts)
        if done < size:
            self.get()
        keep = is_first_process()
        shown = self.asked.progress and done < size and size > 1 and is_first_process()
        with tqdm(total=size, initial=done, desc=self.name.label, unit=unit, disable=not shown) as bar:
            for start, stop in list(missing(parts, size, step() if done < size else 1)):
                began = time.perf_counter()
                rows = measure(start, stop)
                part = Part(start, stop, rows, time.perf_counter() - began)
                parts.append(part)
                if folder is not None and keep and not any("error" in row for row in rows):
                    keep = _is_kept(folder, functools.partial(write_part, folder, part))
                bar.update(stop - start)
        parts.sort(key=lambda part: part.start)
        return [row for part in parts for row in part.rows], sum(part.seconds for part in parts)


class _NotLoaded(Exception):
    """The model itself cannot be had, so that nothing of it can be measured."""


def _recall(model: _Model, measured: Measured) -> None:
    from tidy_stlms.eval.recall.harness import evaluate_recall

    asked, bank = model.asked, model.asked.bank
    if bank is None:
        return

    needs_self_check = True

    def measure(start: int, stop: int) -> list[dict[str, Any]]:
        nonlocal needs_self_check
        self_check, needs_self_check = needs_self_check, False
        return evaluate_recall(
            *model.get(),
            replace(bank, probes=bank.probes[start:stop]),
            batch_tokens=asked.batch_tokens,
            generate=asked.generate,
            top_k=TOP_K,
            spread=True,
            self_check=self_check,
        )

    def step() -> int:
        bulk = PARAMETERS_AND_PROBES.get(model.device_type, MOST_PARAMETERS_AND_PROBES)
        fewest, most = PROBES_PER_PART
        return int(min(max(bulk / model.info["parameters"], fewest), most))

    # neither the order of the probes nor their flags enter the bank's hash
    probes = key([[probe.id, probe.flags] for probe in bank.probes])
    settings = {"bank": bank.sha256, "probes": probes, "generate": asked.generate, "top_k": TOP_K}
    rows, seconds = model.in_parts(
        settings, len(bank.probes), measure, step=step, unit="probe", together=True
    )
    measured.rows = rows
    speed = len(rows) / seconds if seconds else None
    measured.info |= {"seconds": seconds, "probes_per_second": speed, "flags": count_flags(rows)}


def _heldout(model: _Model, measured: Measured) -> None:
    from tidy_stlms.eval.study.heldout import score_documents

    documents = model.asked.documents

    def measure(start: int, stop: int) -> list[dict[str, Any]]:
        return score_documents(*model.get(), documents[start:stop], batch_tokens=model.asked.batch_tokens)

    if documents and is_first_process():
        measured.documents, _ = model.in_parts(
            {"documents": key(list(documents))},
            len(documents),
            measure,
            step=lambda: DOCUMENTS_PER_PART,
            unit="document",
        )


def _prompts(model: _Model, measured: Measured) -> None:
    from tidy_stlms.eval.scoring.generation_check import check_generation
    from tidy_stlms.eval.study.prompts import watch_prompt

    asked = model.asked
    lengths = {"max_new_tokens": asked.max_new_tokens, "top_k": asked.top_k}

    def measure(start: int, stop: int) -> list[dict[str, Any]]:
        check_generation(*model.get(), [prompt["sentence"] for prompt in asked.prompts[start:stop]])
        return [watch_prompt(*model.get(), prompt, **lengths) for prompt in asked.prompts[start:stop]]

    if asked.prompts and is_first_process():
        measured.prompts, _ = model.in_parts(
            {"prompts": list(asked.prompts), **lengths},
            len(asked.prompts),
            measure,
            step=lambda: PROMPTS_PER_PART,
            unit="prompt",
        )


def _benchmarks(model: _Model, measured: Measured) -> None:
    asked = model.asked
    options: dict[str, Any] = {
        "limit": asked.limit,
        "seed": asked.seed,
        "data_dir": asked.data_dir,
        "progress": asked.progress,
    }

    def benchmark(task: str) -> dict[str, Any]:
        from tidy_stlms.eval.study.benchmarks import run_benchmarks

        shots = asked.num_fewshot
        return run_benchmarks(*model.get(), [task], num_fewshot=shots, batch_size=BENCHMARK_BATCH, **options)

    def linear_probe(task: str) -> dict[str, Any]:
        from tidy_stlms.eval.study.linear_probes import run_linear_probes

        return run_linear_probes(*model.get(), [task], batch_tokens=asked.batch_tokens, **options)

    kept = [asked.limit, asked.seed, asked.num_fewshot, _state_of(asked.data_dir), version("lm_eval")]
    for run, tasks in ((benchmark, asked.benchmarks), (linear_probe, asked.linear_probes)):
        for task in tasks if is_first_process() else ():
            rows, _ = model.in_parts(
                {run.__name__: [task, *kept]},
                1,
                lambda *_, run=run, task=task: _as_row(run(task)),
                step=lambda: 1,
                unit="",
            )
            measured.benchmarks |= rows[0]["tasks"]


def _as_row(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of one task (a group has several); a failure of any of them is the row's `error`."""
    errors = [result["error"] for result in results.values() if "error" in result]
    return [{"tasks": results, **({"error": errors[0]} if errors else {})}]


_SECTIONS: dict[str, Callable[[_Model, Measured], None]] = {
    "recall": _recall,
    "heldout": _heldout,
    "prompts": _prompts,
    "benchmarks": _benchmarks,
}


def _attempt(
    section: str, measure: Callable[[_Model, Measured], None], model: _Model, measured: Measured
) -> None:
    try:
        measure(model, measured)
    except _NotLoaded as error:
        measured.errors["model"] = str(error)
    except Exception as error:  # what one model breaks on must not take the others along
        if full_disk_reason(error) is not None:  # which is not the model's fault
            raise
        logger.debug("%s: %s failed", measured.name.label, section, exc_info=True)
        measured.errors[section] = _line(error, measured.name)


def _info(name: ModelName, device: str, dtype: str) -> dict[str, Any]:
    own = {"path": name.path, "revision": name.revision, "step": name.step, "run": name.run}
    unknown = dict.fromkeys(("parameters", "tokenizer", "seconds", "probes_per_second", "error"))
    return {"model": name.label, **own, "device": device, "dtype": dtype, **unknown}


def _is_kept(folder: Path, write: Callable[[], None]) -> bool:
    """Whether `write` succeeds. Only warns if it does not: a full disk must not cost what was measured."""
    try:
        write()
    except (DiskFull, OSError) as error:
        reason = str(error) if isinstance(error, DiskFull) else f"{folder}: {error.strerror or error}"
        logger.warning("%s; going on without keeping what is measured", reason)
        return False
    return True


def _line(error: BaseException, name: ModelName) -> str:
    """An error in one line, without the model's name, which stands beside it anyway."""
    text = " ".join(str(error).split()).removeprefix(f"{name.path}: ")
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 300 else text[:300].rsplit(" ", 1)[0] + " ..."


def _state_of(folder: Path | None) -> list[Any] | None:
    """What a folder of data holds, as far as names, sizes and times tell."""
    if folder is None:
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def is_first_process() -> bool:
    """Whether this process is the one that writes files: the only one, or the first of several."""
    return process_rank() == 0


def from_first_process(value: Any) -> Any:
    """The first process's `value`, in every process."""
    if process_count() == 1:
        return value
    import torch.distributed as distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
