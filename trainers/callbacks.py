"""The records of a run during training: metrics, recall of the facts, watched prompts.

All callbacks append to JSONL files in the run folder, a line at a time, from the first process only.
"""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from tidy_stlms.configs.errors import RunFailed, UserError, counted
from tidy_stlms.configs.files import append_jsonl
from tidy_stlms.configs.printable import printable
from tidy_stlms.configs.records import to_row
from tidy_stlms.configs.schema import EvaluationSection
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.recall.exposures import doses_of_facts
from tidy_stlms.eval.recall.groups import Doses, treatment_groups
from tidy_stlms.eval.recall.harness import evaluate_recall
from tidy_stlms.eval.recall.metrics import summarise
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.run_folder import GENERATIONS_LOG, METRICS_LOG, RECALL_LOG
from tidy_stlms.eval.scoring.generation_check import check_generation
from tidy_stlms.eval.scoring.isolation import rng_untouched
from tidy_stlms.eval.study.benchmarks import TOO_LONG, Score, check_benchmarks, run_benchmarks
from tidy_stlms.eval.study.prompts import Prompt, watch_prompt
from tidy_stlms.trainers.environment import CorpusCounts
from tidy_stlms.trainers.stream import Geometry
from tidy_stlms.trainers.trainer import STLMTrainer

SOURCES_TO_NAME = 3
TRACKED = ("accuracy", "greedy_match", "exact_match", "candidate_rank", "bits_per_byte")


class MetricsFile(TrainerCallback):
    """Writes what the Trainer logs to metrics.jsonl, except its closing totals: summary.json has them."""

    def __init__(self, folder: Path):
        self.path = folder / METRICS_LOG

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "train_runtime" not in logs:
            values = {key: value for key, value in logs.items() if key not in ("epoch", "total_flos")}
            append_jsonl(self.path, [{"step": state.global_step, **values}])


class FirstLine(TrainerCallback):
    """Says before the first step which documents and tokens the run trains on."""

    def __init__(self, corpus: CorpusCounts, geometry: Geometry):
        self.corpus, self.geometry = corpus, geometry

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            sys.stderr.write(f"{printable(self.line(state.max_steps))}\n")

    def line(self, steps: int) -> str:
        """`data: a.csv: 300 documents; 285 to train: 4,121 tokens, 32 rows of 128 a pass; ...`"""
        corpus, rows = self.corpus, self.geometry
        names = list(corpus.sources)
        counts = {name: counted(number, "document", "documents") for name, number in corpus.sources.items()}
        read = [f"{name}: {counts[name]}" for name in names[:SOURCES_TO_NAME]]
        if more := names[SOURCES_TO_NAME:]:
            files = counted(len(more), "more file", "more files")
            read.append(f"{files}: {counted(sum(corpus.sources[n] for n in more), 'document', 'documents')}")
        number = steps * rows.rows_per_step / rows.rows_per_pass
        passes = f"{number:.3g}" if number >= 0.01 else "less than 0.01"
        return (
            f"data: {', '.join(read)}; {corpus.documents['train']:,} to train: {corpus.tokens['train']:,} "
            f"tokens, {rows.rows_per_pass:,} rows of {rows.context_window:,} a pass, documents "
            f"{rows.packing}, {passes} passes; "
            f"{corpus.documents['validation']:,} held out"
        )


class Progress(ProgressCallback):
    """The Trainer's progress bar, with one short line for each log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None and (line := _log_line(logs)):
            self.training_bar.write(f"step {state.global_step}: {line}", file=sys.stderr)


class Lines(PrinterCallback):
    """The same lines without a bar, for `training.disable_tqdm=true`."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_local_process_zero and (line := _log_line(logs)):
            sys.stderr.write(f"step {state.global_step}: {line}\n")


def _log_line(logs: dict[str, float]) -> str:
    shown = {"loss": ".4f", "learning_rate": ".3g", "tokens_per_second": ",.0f", "eval_loss": ".4f"}
    parts = [f"{key} {logs[key]:{style}}" for key, style in shown.items() if key in logs]
    parts += [
        f"{key.removeprefix('recall/').removesuffix('/accuracy').replace('/', ' ')} {value:.2f}"
        for key, value in logs.items()
        if key.startswith("recall/") and key.endswith("/accuracy")
    ]
    return printable(", ".join(parts))


class _Periodic(TrainerCallback):
    """Calls `measure(step)` at step 0, every `every` steps and at the end, on the first process or on all."""

    on_every_process = False

    def __init__(self, trainer: STLMTrainer, every: int):
        self.trainer, self.every = trainer, every

    def measure(self, step: int) -> None:
        raise NotImplementedError

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:  # a resumed run has measured step 0 before
            self._run(0)

    def on_step_end(self, args, state, control, **kwargs):
        due = self.every > 0 and state.global_step % self.every == 0
        if due or state.global_step == state.max_steps:
            self._run(state.global_step)

    def _run(self, step: int) -> None:
        self.trainer.check_weights()
        with self.trainer.paused():
            if self.on_every_process or self.trainer.is_world_process_zero():
                with rng_untouched(self.trainer.model):
                    try:
                        self.measure(step)
                    except UserError as error:  # such as a probability that is not a number
                        raise RunFailed(f"step {step}: {error}") from error
            self.trainer.accelerator.wait_for_everyone()


class RecallCallback(_Periodic):
    """Measures recall of a bank: a line per probe in recall.jsonl, means in the metrics.

    The processes share the probes among them.
    """

    on_every_process = True

    def __init__(self, trainer: STLMTrainer, bank: FactBank, evaluation: EvaluationSection, folder: Path):
        super().__init__(trainer, evaluation.recall_steps)
        self.bank, self.evaluation, self.path = bank, evaluation, folder / RECALL_LOG

    def on_train_begin(self, args, state, control, **kwargs):
        if self.evaluation.generate:  # once: the model's code does not change during the run
            prompts = [probe.prompt for probe in self.bank.probes]
            with rng_untouched(self.trainer.model):
                check_generation(self.trainer.model, self.trainer.processing_class, prompts)
        super().on_train_begin(args, state, control, **kwargs)

    def measure(self, step: int) -> None:
        results = evaluate_recall(
            self.trainer.model,
            self.trainer.processing_class,
            self.bank,
            batch_tokens=self.evaluation.batch_tokens,
            generate=self.evaluation.generate,
            spread=True,
            check_model=False,
        )
        if self.trainer.is_world_process_zero():
            lines = [replace(result, step=step) for result in results]
            append_jsonl(self.path, map(to_row, lines))
            self.trainer.log_beside(recall_means(results, self._doses))

    @cached_property
    def _doses(self) -> Doses:
        return doses_of_facts(self.bank, [self.path.parent])  # read once: the plan does not change


def recall_means(results: Sequence[ProbeResult], doses: Doses | None = None) -> dict[str, float]:
    """`recall/ROLE/TYPE/METRIC` for the metrics in `TRACKED`. If injected facts were treated differently,
    ROLE is the key of each treatment (`treatment_groups`), with exposures from `doses`."""
    names = treatment_groups(results, doses)
    return {
        f"recall/{names.get(group, group)}/{probe_type}/{metric}": round(estimate.mean, 6)
        for group, by_type in summarise(results, doses=doses, n_boot=1).items()
        for probe_type, metrics in by_type.items()
        for metric, estimate in metrics.items()
        if metric in TRACKED
    }


class PromptsCallback(_Periodic):
    """Continues the watched prompts, with the answer's probability and ranks, in generations.jsonl."""

    def __init__(self, trainer: STLMTrainer, evaluation: EvaluationSection, folder: Path):
        every = evaluation.recall_steps if evaluation.prompt_steps is None else evaluation.prompt_steps
        super().__init__(trainer, every)
        self.evaluation, self.path = evaluation, folder / GENERATIONS_LOG

    def measure(self, step: int) -> None:
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        results = [
            watch_prompt(
                model,
                tokenizer,
                Prompt(**prompt),
                max_new_tokens=self.evaluation.max_new_tokens,
                top_k=self.evaluation.top_k,
            )
            for prompt in self.evaluation.prompts
        ]
        append_jsonl(self.path, [to_row(replace(result, step=step)) for result in results])


class BenchmarksCallback(_Periodic):
    """Runs lm-eval's tasks: `benchmark/TASK/METRIC` in the metrics, and `benchmark/TASK/n_too_long` where
    examples are left out.

    UserError, before training begins, for a task that lm-eval does not have.
    """

    def __init__(self, trainer: STLMTrainer, evaluation: EvaluationSection):
        super().__init__(trainer, evaluation.benchmark_steps)
        self.evaluation = evaluation
        check_benchmarks(evaluation.benchmarks)

    def measure(self, step: int) -> None:
        folder = self.evaluation.benchmark_data_dir
        results = run_benchmarks(
            self.trainer.model,
            self.trainer.processing_class,
            self.evaluation.benchmarks,
            limit=self.evaluation.benchmark_limit,
            seed=self.trainer.args.seed,
            data_dir=Path(folder) if folder else None,
        )
        figures: dict[str, float] = {
            f"benchmark/{task}/{metric}": round(score.value, 6)
            for task, metrics in results.items()
            for metric, score in metrics.items()
            if isinstance(score, Score) and score.value is not None
        }
        figures |= {
            f"benchmark/{task}/{TOO_LONG}": int(n)
            for task, metrics in results.items()
            if isinstance(n := metrics.get(TOO_LONG), int)
        }
        if figures:
            self.trainer.log_beside(figures)
