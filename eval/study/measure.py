"""One model, measured in everything that a study asks: facts, held-out text, prompts, benchmarks.

    name = ModelName(label="outputs/quickstart", path="outputs/quickstart")
    measurement = measure_model(name, StudyRequest(bank=bank))
    measurement.results  # of evaluate_recall

What is measured is kept in the cache folder, and is not measured again for the same model, bank, settings and
versions. If nothing is left to measure, the model is not loaded. If one section fails, the others go on.
"""

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from tidy_stlms.configs.full_disk import full_disk_reason
from tidy_stlms.eval.models.load import choose_device, choose_dtype
from tidy_stlms.eval.models.names import ModelName
from tidy_stlms.eval.recall.metrics import count_flags
from tidy_stlms.eval.recall.results import DocumentScore, ProbeResult
from tidy_stlms.eval.run_folder import read_packing
from tidy_stlms.eval.study.benchmarks import TaskResult
from tidy_stlms.eval.study.cache import key
from tidy_stlms.eval.study.lazy_model import LazyModel, NotLoaded, is_first_process, reason_of_failure
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.eval.study.request import TOP_K, Measurement, ModelInfo, StudyRequest

logger = logging.getLogger(__name__)

DOCUMENTS_PER_PART = 64
PROMPTS_PER_PART = 8
BENCHMARK_BATCH = 16
# Probes that are measured and kept together: some seconds of work, so that a kill loses little. The work of a
# part is the model's parameters times the probes.
PARAMETERS_AND_PROBES = {"cpu": 2e10}
MOST_PARAMETERS_AND_PROBES = 2e12  # accelerators
PROBES_PER_PART = (32, 1000)


def measure_model(
    name: ModelName, request: StudyRequest, *, on_described: Callable[[ModelInfo, bool], None] | None = None
) -> Measurement:
    """Measure one model. With several processes, all must call this; the first returns everything.

    `on_described` is called once, when the `ModelInfo` is filled in: with it, and whether the model was
    loaded.

    Raises UserError for a device or dtype that does not exist. Other errors are noted in the measurement.
    """
    device = choose_device(request.device)
    dtype = str(choose_dtype(request.dtype, device)).removeprefix("torch.")
    measurement = Measurement(name, _info(name, str(device), dtype))
    model = LazyModel(measurement, request, on_described)
    try:
        for section, measure in _SECTIONS.items():
            if "model" not in measurement.errors:
                _attempt(section, measure, model)
        if "model" not in measurement.errors:
            _attempt("model", LazyModel.describe, model)
    finally:
        model.free()
    error = measurement.errors.get("model") or measurement.errors.get("recall")
    measurement.info = replace(measurement.info, error=error)
    return measurement


def _recall(model: LazyModel) -> None:
    from tidy_stlms.eval.recall.harness import evaluate_recall

    request, bank, measurement = model.request, model.request.bank, model.measurement
    if bank is None:
        return

    needs_check = True

    def measure(start: int, stop: int) -> list[ProbeResult]:
        nonlocal needs_check
        check_model, needs_check = needs_check, False
        return evaluate_recall(
            *model.get(),
            replace(bank, probes=bank.probes[start:stop]),
            batch_tokens=request.batch_tokens,
            generate=request.generate,
            prefix=request.prefix,
            style=request.style,
            top_k=TOP_K,
            spread=True,
            check_model=check_model,
        )

    def step() -> int:
        work = PARAMETERS_AND_PROBES.get(model.device_type, MOST_PARAMETERS_AND_PROBES)
        fewest, most = PROBES_PER_PART
        return int(min(max(work / (measurement.info.parameters or 1), fewest), most))

    # the bank's hash covers neither the order of the probes nor their flags
    probes = key([[probe.id, probe.flags] for probe in bank.probes])
    settings = {
        "bank": bank.sha256,
        "probes": probes,
        "generate": request.generate,
        "prefix": request.prefix,
        "style": request.style,
        "top_k": TOP_K,
    }
    size = len(bank.probes)
    results, seconds = model.rows(
        settings, size, ProbeResult, measure, step=step, unit="probe", together=True
    )
    measurement.results = results
    measurement.info = replace(
        measurement.info,
        seconds=seconds,
        probes_per_second=len(results) / seconds if seconds else None,
        flags=count_flags(results),
    )


def _heldout(model: LazyModel) -> None:
    from tidy_stlms.eval.study.heldout import score_documents

    request, documents = model.request, model.request.documents
    options: dict[str, Any] = {"prefix": request.prefix, "style": request.heldout_style}

    def measure(start: int, stop: int) -> list[DocumentScore]:
        return score_documents(
            *model.get(), documents[start:stop], batch_tokens=request.batch_tokens, **options
        )

    if documents and is_first_process():
        model.measurement.documents, _ = model.rows(
            {"documents": key(list(documents)), **options},
            len(documents),
            DocumentScore,
            measure,
            step=lambda: DOCUMENTS_PER_PART,
            unit="document",
        )


def _prompts(model: LazyModel) -> None:
    from tidy_stlms.eval.scoring.generation_check import check_generation
    from tidy_stlms.eval.study.prompts import watch_prompt

    request, prompts = model.request, model.request.prompts
    options: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "top_k": request.top_k,
        "prefix": request.prefix,
    }

    def measure(start: int, stop: int) -> list[PromptResult]:
        sentences = [prompt.sentence for prompt in prompts[start:stop]]
        check_generation(*model.get(), sentences, prefix=request.prefix)
        return [watch_prompt(*model.get(), prompt, **options) for prompt in prompts[start:stop]]

    if prompts and is_first_process():
        model.measurement.prompts, _ = model.rows(
            {"prompts": msgspec.to_builtins(prompts), **options},
            len(prompts),
            PromptResult,
            measure,
            step=lambda: PROMPTS_PER_PART,
            unit="prompt",
        )


def _benchmarks(model: LazyModel) -> None:
    request = model.request
    options: dict[str, Any] = {
        "limit": request.limit,
        "seed": request.seed,
        "data_dir": request.data_dir,
        "prefix": request.prefix,
        "progress": request.progress,
    }

    def benchmark(task: str) -> dict[str, TaskResult]:
        from tidy_stlms.eval.study.benchmarks import run_benchmarks

        shots = request.num_fewshot
        return run_benchmarks(*model.get(), [task], num_fewshot=shots, batch_size=BENCHMARK_BATCH, **options)

    def linear_probe(task: str) -> dict[str, TaskResult]:
        from tidy_stlms.eval.study.linear_probes import run_linear_probes

        return run_linear_probes(*model.get(), [task], batch_tokens=request.batch_tokens, **options)

    state = [
        request.limit,
        request.seed,
        request.num_fewshot,
        request.prefix,
        _state_of(request.data_dir),
        version("lm_eval"),
    ]
    for name, run, tasks in (
        # results in the cache as "benchmark" may include examples that lm-eval cut
        ("benchmark_of_whole_examples", benchmark, request.benchmarks),
        ("linear_probe", linear_probe, request.linear_probes),
    ):
        for task in tasks if is_first_process() else ():
            # one row: the results of the task, or of all tasks of a tag
            [results], _ = model.rows(
                {name: [task, *state]},
                1,
                dict[str, TaskResult],
                lambda *_, run=run, task=task: [run(task)],
                step=lambda: 1,
                unit="",
                is_complete=lambda results: not any("error" in result for result in results.values()),
            )
            model.measurement.benchmarks |= results


_SECTIONS: dict[str, Callable[[LazyModel], None]] = {
    "recall": _recall,
    "heldout": _heldout,
    "prompts": _prompts,
    "benchmarks": _benchmarks,
}


def _attempt(section: str, measure: Callable[[LazyModel], None], model: LazyModel) -> None:
    """Measure one section, and note an error."""
    measurement = model.measurement
    try:
        measure(model)
    except NotLoaded as error:
        logger.debug("%s: not loaded", measurement.name.label, exc_info=True)
        measurement.errors["model"] = str(error)
    except Exception as error:  # an error of one model must not stop the others
        if full_disk_reason(error) is not None:  # not an error of this model
            raise
        logger.debug("%s: %s failed", measurement.name.label, section, exc_info=True)
        measurement.errors[section] = reason_of_failure(error, measurement.name)


def _info(name: ModelName, device: str, dtype: str) -> ModelInfo:
    return ModelInfo(
        model=name.label,
        path=name.path,
        revision=name.revision,
        step=name.step,
        run=name.run,
        packing=None if name.run is None else read_packing(Path(name.run)),
        device=device,
        dtype=dtype,
        parameters=None,
        tokenizer=None,
        seconds=None,
        probes_per_second=None,
        error=None,
    )


def _state_of(folder: Path | None) -> Sequence[Any] | None:
    """The names, sizes and times of all files in a folder of data; it changes when they do."""
    if folder is None:
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
