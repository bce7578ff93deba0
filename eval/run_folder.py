"""What a run folder holds, and how it is read.

A run folder is also a model folder: `from_pretrained` reads the final model from it. `stlm train` writes it;
reports, comparisons and `stlm push` read it. Some of the files below may be missing: a run without injection
has no plan, a run that was cut off no summary.
"""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, read_json_object
from tidy_stlms.configs.reading import reading

if TYPE_CHECKING:
    import pyarrow as pa

# The layout, written by trainers/layout.py before the first step; config.yaml is the last of its files.
CONFIG = "config.yaml"  # the resolved config
ENVIRONMENT = "environment.json"  # the run's id, versions, device and the stream's geometry
PLAN = "plan.parquet"  # every exposure; missing without injection
FACTS = "facts"  # the folder of the bank as used; missing without facts
LAYOUT = (ENVIRONMENT, PLAN, FACTS)  # what a command that was killed before config.yaml may leave

# The logs, appended by trainers/callbacks.py during the run. A resume cuts them back to its checkpoint.
METRICS_LOG = "metrics.jsonl"  # losses, rates and mean recall, by step
RECALL_LOG = "recall.jsonl"  # a line per probe and evaluation
GENERATIONS_LOG = "generations.jsonl"  # a line per watched prompt and evaluation
LOGS = (METRICS_LOG, RECALL_LOG, GENERATIONS_LOG)

# The end, written by eval/report/run_report.py beside the final model; summary.json is the last of its files.
FIGURES_FOLDER = "figures"  # the folder of the report's plots
REPORT = "report.md"
CARD = "README.md"  # the model card
SUMMARY = "summary.json"  # steps, tokens, final losses, and recall before and after

# What `stlm train` needs while it works.
LOCK = ".run.lock"  # locked by the process that writes to the folder
SAVING = ".saving"  # the folder of what is being saved, until it is whole
WAITING = ".push"  # the folder of models that are being uploaded
REPLACED = ".replaced.yaml"  # the config.yaml of a run that is being removed: everything beside it goes

CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: config.yaml, the last file of its layout, and environment.json are there.

    Other programs write a config.yaml too. Beside an environment.json it is a run's.
    """
    return (folder / CONFIG).is_file() and (folder / ENVIRONMENT).is_file()


def is_laid_out(folder: Path) -> bool:
    """Whether `stlm train` finds a run here that it may resume or replace.

    It looks for config.yaml only. A run that has lost its environment.json must not count as an empty folder:
    a resume is refused, and `--overwrite` replaces it.
    """
    return (folder / CONFIG).is_file()


def checkpoint_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimizer steps."""
    return run / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps after which a checkpoint was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_of(run: Path) -> list[Path]:
    """The folders of a run's checkpoints, in order of their steps, whether they are whole or not."""
    folders = (path for path in run.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name) and path.is_dir())
    return sorted(folders, key=step_of)


def final_step(run: Path) -> int | None:
    """The number of optimizer steps of a finished run; None for any other.

    Raises UserError if summary.json is damaged.
    """
    if not (run / SUMMARY).is_file():
        return None
    summary = read_json(run / SUMMARY)
    steps = summary.get("steps") if isinstance(summary, dict) else None
    return steps if isinstance(steps, int) else None


def read_run_config(run: Path) -> dict[str, Any]:
    """The plain values of a run's config.yaml, by section.

    Raises UserError, naming the key, if the file is damaged or does not hold the run's seed.
    """
    from tidy_stlms.configs.load import read_config

    config = read_config(run / CONFIG)
    if type(config["training"].get("seed")) is not int:  # the other keys of `training` are not checked
        raise UserError(f"{run / CONFIG}: training.seed is missing or no whole number; restore the file")
    return config


def read_documents(run: Path) -> dict[str, int] | None:
    """The documents of a run's `train` and `validation`; None for a run of an earlier version.

    Raises UserError if environment.json is damaged.
    """
    corpus = read_json_object(run / ENVIRONMENT).get("corpus")
    if corpus is None:
        return None
    documents = corpus.get("documents") if isinstance(corpus, dict) else None
    if isinstance(documents, dict):
        counts: dict[str, Any] = {split: documents.get(split) for split in ("train", "validation")}
        if all(type(count) is int for count in counts.values()):
            return counts
    raise UserError(f"{run / ENVIRONMENT}: corpus.documents are missing; restore the file")


def read_packing(run: Path) -> str:
    """How a run's model read the documents of a row: `apart` or `joined`.

    Raises UserError if environment.json is damaged.
    """
    stream = read_json_object(run / ENVIRONMENT).get("stream", {})
    packing = stream.get("packing", "joined") if isinstance(stream, dict) else None  # as earlier versions did
    if packing not in ("apart", "joined"):
        raise UserError(f"{run / ENVIRONMENT}: stream.packing is damaged; restore the file")
    return str(packing)


def read_versions(run: Path) -> dict[str, str]:
    """The versions of packages that a run was made with. Raises UserError if environment.json is damaged."""
    versions = read_json_object(run / ENVIRONMENT).get("versions")
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise UserError(f"{run / ENVIRONMENT}: versions are missing; restore the file")
    return versions


def read_device_precision_attention(run: Path) -> list[str]:
    """What a run's figures were computed with: device, precision and attention; runs of earlier versions do
    not name the last two. Raises UserError if environment.json is damaged."""
    environment = read_json_object(run / ENVIRONMENT)
    named = [environment.get(name) for name in ("device", "precision", "attention")]
    given = [value for value in named if value is not None]
    if not all(isinstance(value, str) for value in given):
        raise UserError(f"{run / ENVIRONMENT}: device, precision or attention is no text; restore the file")
    return given


def has_plan(run: Path) -> bool:
    return (run / PLAN).is_file()


def read_plan(run: Path) -> "pa.Table":
    """The plan of a run: `step` (from 0) and `fact_ids` of each exposure, in order of positions.

    Raises UserError, naming the file, if there is no plan, or it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.schema({"step": pa.int64(), "fact_ids": pa.list_(pa.string())})
    with reading(f"{run / PLAN}: is no plan of a run", "; restore the file"):
        plan = pq.read_table(run / PLAN, columns=columns.names).cast(columns)
        nulls = sum(
            column.null_count for column in (*plan.columns, plan["fact_ids"].combine_chunks().flatten())
        )
    if nulls:
        raise UserError(f"{run / PLAN}: is no plan of a run: {nulls} values are missing; restore the file")
    return plan


def count_exposures(plan: "pa.Table", steps: int | None = None) -> Counter[str]:
    """The exposures of each planned fact, in the whole run or in its first `steps` optimizer steps.

    Facts that are planned for later steps have a count of 0.
    """
    counts: Counter[str] = Counter()
    for step, fact_ids in zip(plan["step"].to_pylist(), plan["fact_ids"].to_pylist(), strict=True):
        # steps count from 0: after n steps, the steps 0 .. n - 1 have been seen
        is_seen = steps is None or step < steps
        counts.update(dict.fromkeys(fact_ids, int(is_seen)))
    return counts
