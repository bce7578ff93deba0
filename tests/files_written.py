"""Every file that this project writes, for docs/files.md.

`SECTIONS` names the files of each folder, with the types of which `tests/files_page.py` reads the fields.
`LISTED` has the fields of files without such a type. `tests/scripts/test_files_page.py` checks both against
real folders.
"""

from typing import NamedTuple

from tidy_stlms.eval.checkpoint_mark import MARK, Mark
from tidy_stlms.eval.facts.records import Fact, Probe, Relation, Statement
from tidy_stlms.eval.recall.results import DocumentScore, ProbeResult
from tidy_stlms.eval.report.run_summary import RunSummary
from tidy_stlms.eval.run_folder import (
    CARD,
    CONFIG,
    ENVIRONMENT,
    FACTS,
    FIGURES_FOLDER,
    GENERATIONS_LOG,
    LOCK,
    METRICS_LOG,
    PLAN,
    RECALL_LOG,
    REPLACED,
    REPORT,
    SAVING,
    SUMMARY,
    WAITING,
)
from tidy_stlms.eval.study import study
from tidy_stlms.eval.study.cache import Part
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.trainers.checkpoints import STATE_FILE
from tidy_stlms.trainers.environment import Environment


class File(NamedTuple):
    """A file, or files with similar names, in a folder."""

    name: str
    writer: str
    """The function or class, and the file of its source."""
    holds: str
    fields: tuple[type | str, ...] = ()
    """The type of the file or of its lines, or the title of its table in `LISTED`."""


class Field(NamedTuple):
    """A field of a file that is written without a type of its own."""

    name: str
    type: str
    meaning: str


TRANSFORMERS = "`STLMTrainer` (`trainers/trainer.py`), by transformers"
MODEL = (
    File("config.json", TRANSFORMERS, "The model's config."),
    File("generation_config.json", TRANSFORMERS, "Defaults of `generate`."),
    File("model*.safetensors", TRANSFORMERS, "The weights, in several files if they are large."),
    File("model.safetensors.index.json", TRANSFORMERS, "Which of several files holds which tensor."),
    File("*.py", TRANSFORMERS, "The model's code, for machines without Tidy STLMs."),
    File("tokenizer*", TRANSFORMERS, "The tokenizer and its config."),
    File("special_tokens_map.json", TRANSFORMERS, "The special tokens, for some tokenizers."),
    File("vocab.*", TRANSFORMERS, "The vocabulary, for some tokenizers."),
    File("merges.txt", TRANSFORMERS, "The merges of a BPE, for some tokenizers."),
    File("training_args.bin", TRANSFORMERS, "The Trainer's arguments, a pickle that nothing here reads."),
)

RUN = (
    File(
        CONFIG,
        "`lay_out` (`trainers/layout.py`)",
        "The resolved config. `stlm train RUN/config.yaml training.output_dir=NEW` repeats the run; "
        "`stlm train --keys` lists its keys.",
    ),
    File(ENVIRONMENT, "`lay_out` (`trainers/layout.py`)", "Versions, machine and stream.", (Environment,)),
    File(
        f"{FACTS}/", "`lay_out` (`trainers/layout.py`)", "The [bank](#a-bank) as used. Missing without facts."
    ),
    File(
        PLAN,
        "`InjectionPlan` (`trainers/plan.py`)",
        "A row for each exposure, in order of positions. Missing without injection.",
        (PLAN,),
    ),
    File(
        METRICS_LOG,
        "`MetricsFile` (`trainers/callbacks.py`)",
        "A line for each loss, validation, recall and benchmark: several lines may have the same step.",
        (METRICS_LOG,),
    ),
    File(
        RECALL_LOG,
        "`RecallCallback` (`trainers/callbacks.py`)",
        "A line for each evaluation and probe. Missing without facts.",
        (ProbeResult,),
    ),
    File(
        GENERATIONS_LOG,
        "`PromptsCallback` (`trainers/callbacks.py`)",
        "A line for each evaluation and watched prompt (`evaluation.prompts`). Missing without prompts.",
        (PromptResult,),
    ),
    File("checkpoint-N/", "`STLMTrainer` (`trainers/trainer.py`)", "A [checkpoint](#a-checkpoint)."),
    File(CARD, "`run_card` (`eval/report/card.py`)", "The model card."),
    File(REPORT, "`write_run_report` (`eval/report/run_report.py`)", "Recall before and after, and curves."),
    File(f"{FIGURES_FOLDER}/*.png", "`write_run_report` (`eval/report/run_report.py`)", "The curves."),
    File(
        SUMMARY,
        "`write_run_report` (`eval/report/run_report.py`)",
        "Steps, tokens, last losses, recall before and after. A run with it is finished.",
        (RunSummary,),
    ),
    File(LOCK, "`locked` (`trainers/layout.py`)", "Empty. Locked by the command that writes to the folder."),
    File(f"{SAVING}/", "`STLMTrainer` (`trainers/trainer.py`)", "What is being saved, until it is whole."),
    File(f"{WAITING}/", "`CheckpointPusher` (`trainers/hub.py`)", "Copies that are being uploaded."),
    File(
        REPLACED,
        "`lay_out` (`trainers/layout.py`)",
        "The config of a run that is being replaced. Everything beside it will be removed.",
    ),
)

CHECKPOINT = (
    File(
        MARK,
        "`mark_whole` (`trainers/checkpoints.py`)",
        "Sizes and hashes of all other files. It is written last: a checkpoint with it is whole.",
        (Mark,),
    ),
    File("optimizer.pt", TRANSFORMERS, "The optimizer's state."),
    File("scheduler.pt", TRANSFORMERS, "The state of the learning rate's schedule."),
    File("scaler.pt", TRANSFORMERS, "The state of the gradient scaler, under fp16."),
    File("rng_state*.pth", TRANSFORMERS, "The states of the random generators, one file for each process."),
    File(STATE_FILE, TRANSFORMERS, "The Trainer's own state and log."),
)

BANK = (
    File("bank.json", "`FactBank` (`eval/facts/bank.py`)", "What the bank is, and its hash.", ("bank.json",)),
    File("relations.jsonl", "`FactBank` (`eval/facts/bank.py`)", "A line for each relation.", (Relation,)),
    File("facts.jsonl", "`FactBank` (`eval/facts/bank.py`)", "A line for each fact.", (Fact,)),
    File("statements.jsonl", "`FactBank` (`eval/facts/bank.py`)", "A line for each statement.", (Statement,)),
    File("probes.jsonl", "`FactBank` (`eval/facts/bank.py`)", "A line for each probe.", (Probe,)),
    File(
        "import.json",
        "`main` (`scripts/facts.py`)",
        "What `stlm facts import` read, took and left out. Missing in other banks.",
        ("import.json",),
    ),
)

STUDY = (
    File(
        study.SUMMARY, "`write_study` (`eval/study/study.py`)", "The figures of all models.", (study.Study,)
    ),
    File(
        study.RESULTS,
        "`write_study` (`eval/study/study.py`)",
        "A line for each model and probe.",
        (ProbeResult,),
    ),
    File(
        study.TABLE,
        "`write_study` (`eval/study/study.py`)",
        f"`{study.RESULTS}` as a table. Items of a list are separated by a semicolon. A text that a "
        "spreadsheet would run as a formula has an apostrophe in front. All other characters are as in "
        f"`{study.RESULTS}`, control characters too.",
    ),
    File("report.md", "`write_study_report` (`eval/report/study_report.py`)", "Tables and figures."),
    File(
        "report.html",
        "`write_study_report` (`eval/report/study_report.py`)",
        "The same as one page that can be published, with a browser of all probes.",
    ),
    File("figures/*.png", "`write_study_report` (`eval/report/study_report.py`)", "The figures."),
)

CACHE = (
    File(
        "corpora/KEY/meta.json",
        "`prepare_corpus` (`trainers/corpus.py`)",
        "Describes the two files beside it.",
        ("meta.json",),
    ),
    File(
        "corpora/KEY/train.bin",
        "`prepare_corpus` (`trainers/corpus.py`)",
        "The token ids of all documents to train on, one after another, without a header.",
    ),
    File(
        "corpora/KEY/validation.bin",
        "`prepare_corpus` (`trainers/corpus.py`)",
        "The token ids of the documents to validate on.",
    ),
    File("tokenizers/KEY/", "`load_tokenizer` (`trainers/tokenizer.py`)", "A tokenizer trained on a corpus."),
    File(
        "documents/KEY/documents.arrow",
        "`kept_documents` (`trainers/kept_documents.py`)",
        "The documents of a local file, or the first ones of a Hub dataset. `datasets` keeps the order of "
        "its splits beside it, as `cache-*.arrow`.",
    ),
    File(
        "documents/KEY/meta.json",
        "`kept_documents` (`trainers/kept_documents.py`)",
        "How many documents these are, and how many rows without text were skipped.",
    ),
    File(
        "documents/KEY.json",
        "`load_hub_documents` (`trainers/hub_documents.py`)",
        "Which commit of a Hub dataset was read last, for when the Hub cannot be reached.",
    ),
    File(
        "converted/KEY/",
        "`expand_names` (`eval/models/names.py`)",
        "Checkpoints of Tidy-STLMs, converted for `stlm recall` and `stlm ask`.",
    ),
    File(
        "recall/KEY/model.json",
        "`LazyModel` (`eval/study/lazy_model.py`)",
        "What a measured model is.",
        ("model.json",),
    ),
    File(
        "recall/KEY/KEY.jsonl",
        "`append_part` (`eval/study/cache.py`)",
        "One measurement of this model, a line for each part of its rows.",
        (Part, DocumentScore),
    ),
)

SECTIONS = (
    (
        "A run's folder",
        "Written by `stlm train` to `training.output_dir`. It also holds the [final model](#a-model).",
        RUN,
    ),
    (
        "A checkpoint",
        "`checkpoint-N` in a run's folder, after `N` optimizer steps. It also holds the [model](#a-model).",
        CHECKPOINT,
    ),
    ("A model", "In a run's folder and in each of its checkpoints.", MODEL),
    ("A bank", "Written by `stlm facts generate` and `stlm facts import`, or by hand.", BANK),
    ("A study's folder", "Written by `stlm recall --out`.", STUDY),
    (
        "The cache",
        "`data.cache_dir`, `$STLM_CACHE` or `~/.cache/tidy-stlms`. It may be removed at any time.",
        CACHE,
    ),
)

LISTED = {
    PLAN: (
        Field("position", "whole number", "The row of the training stream, from 0."),
        Field("step", "whole number", "The optimizer step that reads the row, from 0."),
        Field("statement_id", "text", "The statement that stands there."),
        Field("fact_ids", "list of texts", "The facts that it states."),
        Field("exposure", "whole number", "The number of this exposure among those of its facts, from 1."),
    ),
    METRICS_LOG: (
        Field("step", "whole number", "Optimizer steps before the line was written. Every line has it."),
        Field("loss", "number", "Mean training loss since the last line with a loss, nats a token."),
        Field("grad_norm", "number", "Norm of the step's gradient, before it is clipped."),
        Field("learning_rate", "number", "Learning rate of the step."),
        Field("tokens", "whole number", "Training tokens up to this step."),
        Field(
            "tokens_per_second",
            "number",
            "Training tokens a second since the command began, without evaluations and saving.",
        ),
        Field("dropout", "number", "Dropout probability of the step, if `dropout.schedule` is set."),
        Field("eval_loss", "number", "Mean loss over the validation rows, nats a token."),
        Field("eval_perplexity", "number", "exp(eval_loss)."),
        Field("eval_bits_per_byte", "number", "eval_loss / ln 2 / bytes of a token."),
        Field("eval_runtime", "number", "Seconds of the validation."),
        Field("eval_samples_per_second", "number", "Validation rows a second."),
        Field("eval_steps_per_second", "number", "Validation batches a second."),
        Field(
            "recall/GROUP/TYPE/METRIC",
            "number",
            "Mean of a metric over the probes of a group of facts and a probe type; "
            "[recall.md](recall.md#groups-of-facts) explains the groups.",
        ),
        Field("benchmark/TASK/METRIC", "number", "A score of lm-eval (`evaluation.benchmarks`)."),
        Field(
            "benchmark/TASK/n_too_long",
            "whole number",
            "Examples of the task that are longer than the model's context and left out, if there are any.",
        ),
    ),
    "bank.json": (
        Field("schema", "whole number", "The version of the format, 1. May be left out."),
        Field("name", "text", "The bank's name. May be left out, like all that follow."),
        Field("license", "text", "The licence, by its id at the Hub."),
        Field("seed", "whole number", "The seed of a generated bank."),
        Field("provenance", "text", "`generated`, `imported`, or left out."),
        Field("versions", "object of texts", "Versions of packages that a generated bank depends on."),
        Field("spec", "object", "The spec of a generated bank, with all defaults."),
        Field("arms", "object of objects", "`exposures` and `form` of each arm."),
        Field("source", "object", "`format`, `source` and `options` of an imported bank."),
        Field("sha256", "text", "Hash of the content. If it is there, it is checked."),
    ),
    "import.json": (
        Field("read", "object of whole numbers", "Records of each file that was read."),
        Field("taken", "list of texts", "What became of each field of the source, in words."),
        Field("not_taken", "list of texts", "Fields of the source's records that the format does not read."),
        Field("left_out", "list of pairs", "Where a record stands that was left out, and why."),
    ),
    "meta.json": (
        Field("dtype", "text", "`uint16`, or `uint32` for more than 65,536 ids. Little-endian."),
        Field("tokens", "object of whole numbers", "Tokens of `train` and `validation`."),
    ),
    "model.json": (
        Field("parameters", "whole number", "The number of parameters."),
        Field("tokenizer", "text", "A hash that is equal for equal tokenizers."),
    ),
}
