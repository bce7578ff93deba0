"""What makes a run resumable: whole checkpoints, its geometry, and logs cut back to the checkpoint.

A run may be killed at any moment, in the middle of a save too. A checkpoint counts as whole when its
`trainer_state.json`, which the Trainer writes last, parses and nothing that a resume reads is
missing. Resuming removes the checkpoints that are not, and the log lines of steps that will be run
again, so that a resumed run leaves the same files as an uninterrupted one.
"""

import json
import logging
import re
import shutil
from dataclasses import asdict
from enum import Enum
from pathlib import Path

import yaml

from configs.errors import UserError
from configs.files import read_json, read_text, write_json, write_whole
from configs.schema import STLMTrainingArguments, schedule_arguments
from trainers.stream import Geometry

logger = logging.getLogger(__name__)

STREAM_FILE = "stream.json"
LOGS = ("metrics.jsonl", "recall.jsonl", "generations.jsonl")
STATE_FILE = "trainer_state.json"
NEEDED = ("optimizer.pt", "scheduler.pt")


def last_whole_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run from which it can go on; None if it was killed before the first.

    Raises UserError if there are checkpoints that were finished and yet lack a file.
    """
    whole = newest_whole_checkpoint(folder)
    finished = [path for path in _checkpoints(folder) if _state_parses(path)]
    if finished and whole is None:
        raise UserError(
            f"{finished[-1]}: cannot be resumed from, {', '.join(missing_files(finished[-1]))} is missing; "
            "start anew in another training.output_dir"
        )
    return whole


def newest_whole_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint that nothing is missing from, if there is one."""
    return next((path for path in reversed(_checkpoints(folder)) if not missing_files(path)), None)


def missing_files(checkpoint: Path) -> list[str]:
    """What a checkpoint lacks to be resumed from, by name."""
    if not _state_parses(checkpoint):
        return [STATE_FILE]
    if not (checkpoint / STREAM_FILE).exists():
        return [STREAM_FILE]
    processes = read_json(checkpoint / STREAM_FILE)["processes"]
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    return [name for name in (*NEEDED, *states) if not (checkpoint / name).exists()]


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def prepare_resume(folder: str | Path, checkpoint: Path | None) -> None:
    """Remove what a run left behind the `checkpoint` to go on from (None: behind its start)."""
    last_step = step_of(checkpoint) if checkpoint else -1
    for path in _checkpoints(folder):
        if step_of(path) > last_step:
            logger.warning("removing %s, which lies behind the point to go on from", path)
            shutil.rmtree(path)
    for name in LOGS:
        cut_log(Path(folder) / name, last_step)


def cut_log(path: Path, last_step: int) -> None:
    """Keep a JSONL log's lines up to `last_step`; a line torn by a kill is dropped too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split(
        "\n"
    ):  # not splitlines: a text may hold U+2028
        try:
            step = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
        if step <= last_step:
            kept.append(line + "\n")
    write_whole(path, "".join(kept))


# What the parts of the geometry that are hashes follow from, as the keys of the config.
DECIDED_BY = {
    "corpus": "data and tokenizer",
    "injection": "training.max_steps, injection and facts",
    "model": "model and tokenizer",
}


def save_stream_state(
    checkpoint: str | Path, geometry: Geometry, processes: int, loss_sum: float, last_logged: int
) -> None:
    """Store what the Trainer does not: the geometry, and the loss summed since it was last logged."""
    state = {
        "geometry": asdict(geometry),
        "processes": processes,
        "loss_sum": loss_sum,
        "last_logged": last_logged,
    }
    write_json(Path(checkpoint) / STREAM_FILE, state)


def load_stream_state(checkpoint: str | Path, geometry: Geometry) -> tuple[float, int]:
    """Return (loss_sum, last_logged); raises UserError if the run's geometry is another one."""
    state = read_json(Path(checkpoint) / STREAM_FILE)
    for key, now in asdict(geometry).items():
        before = state["geometry"].get(key)
        if before != now:
            keys = DECIDED_BY.get(key)
            other = f"another {key} ({keys} decide it)" if keys else f"{key}={before}, this run has {now}"
            raise UserError(
                f"{checkpoint}: was written with {other}; a resumed run must "
                "see the same stream: use the same config, or start anew in another training.output_dir"
            )
    return state["loss_sum"], state["last_logged"]


# What a resumed optimizer and schedule take from the checkpoint, whatever the config says by then.
KEPT_BY_CHECKPOINT = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)


def check_optimizer_settings(folder: str | Path, args: STLMTrainingArguments) -> None:
    """UserError where `args` differ from the run's own config in what a checkpoint keeps.

    The new values would be ignored, in whole or in part, and config.yaml would name them all the same.
    """
    before = yaml.safe_load(read_text(Path(folder) / "config.yaml")).get("training", {})
    if "lr_scheduler_type" in before:
        given = before.get("lr_scheduler_kwargs")
        before["lr_scheduler_kwargs"] = schedule_arguments(before["lr_scheduler_type"], given)
    for key in KEPT_BY_CHECKPOINT:
        now = getattr(args, key)
        now = now.value if isinstance(now, Enum) else now
        if key in before and before[key] != now:
            raise UserError(
                f"training.{key}={now}: this run has {before[key]}, which its checkpoints keep; "
                "remove the key, or start anew in another training.output_dir"
            )


def _checkpoints(folder: str | Path) -> list[Path]:
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=step_of)


def _state_parses(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
