"""Forked training runs that report what they do and may be killed, in a process that has all imports done.

A fork starts a run in no time, where a new Python would import for six seconds. The parent neither trains
nor starts a thread, as neither survives a fork.
"""

import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.trainers.operations import Kill, Operation, Operations, to_pipe

# Six steps, three checkpoints of which two are kept, recall and a prompt three times.
SMALL = """
model:
  config: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
    num_key_value_heads: 1, max_position_embeddings: 48, resid_dropout: 0.1}
tokenizer: {train: {vocab_size: 400}}
data: {name: synthetic, max_documents: 60, validation_fraction: 0.1, cache_dir: CACHE}
facts: {bank: BANK}
injection: {exposures: 3}
training:
  output_dir: run
  max_steps: 6
  save_steps: 2
  save_total_limit: 2
  eval_steps: 3
  logging_steps: 3
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  disable_tqdm: true
evaluation:
  generate: false
  recall_steps: 3
  validation_rows: 8
  prompts: [{sentence: The old farmer, answer: walked}]
  max_new_tokens: 2
"""
STEPS = 6
LIMIT = 60  # seconds after which a process ends, where a second is usual
FACTS = ("people=4", "distractors=3", "use=[birth_city]")


@dataclass(frozen=True)
class Command:
    """`stlm train`, as it `starts`, `resumes` or `overwrites`, in a number of processes."""

    how: str = "starts"
    seed: int = 42
    processes: int = 1


@dataclass
class Outcome:
    """How a process ended, and what it had done until then."""

    end: str = "killed"
    """finished, refused (UserError), crashed (any other error), hung (too long) or killed"""
    message: str = ""
    operations: dict[int, Operation] = field(default_factory=dict)
    saved: int = 0
    """The step of the last checkpoint that was saved."""
    saved_before: dict[int, int] = field(default_factory=dict)
    """The same at the time of each operation."""
    steps: int = 0
    """How many steps were trained."""
    killed_at: str = ""
    modules: list[str] = field(default_factory=list)


class Child:
    """A forked process that runs `action(report)`; `report` sends a dict to the parent."""

    def __init__(self, action: Callable[[Callable], None], log: Path):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _be_child(action, to_pipe(writing), log)
        os.close(writing)
        self.reading = reading

    def lives(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Outcome:
        """Read the reports until the process ends, by itself or killed."""
        outcome = Outcome()
        with open(self.reading, encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                if "operation" in entry:
                    operation = Operation(**entry["operation"])
                    outcome.operations[operation.number] = operation
                    outcome.saved_before.setdefault(operation.number, outcome.saved)
                outcome.steps += "step" in entry
                outcome.saved = entry.get("saved", outcome.saved)
                outcome.killed_at = entry.get("killed", outcome.killed_at)
                outcome.modules = entry.get("modules", outcome.modules)
                outcome.end, outcome.message = entry.get("end", (outcome.end, outcome.message))
        status = os.waitpid(self.pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            outcome.end, outcome.message = "hung", f"had not ended after {LIMIT} seconds"
        return outcome


def _be_child(action: Callable, report: Callable, log: Path) -> None:
    from tidy_stlms.configs.errors import UserError

    signal.alarm(LIMIT)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        action(report)
        report({"end": ("finished", "")})
    except UserError as error:
        report({"end": ("refused", str(error))})
    except BaseException:
        report({"end": ("crashed", traceback.format_exc()[-1500:])})
    finally:
        os._exit(0)


class Bench:
    """A folder for runs, `work/run` in it, and what they share: config, bank and cache."""

    def __init__(self, root: Path, shared: Path):
        self.root, self.shared, self.work = root, shared, root / "work"
        self.cache = shared / "cache"
        self.work.mkdir(parents=True, exist_ok=True)

    def begin(self, command: Command, kill: Kill | None = None, watched: Sequence[Path] = ()) -> list[Child]:
        """Start the command; returns its processes. Operations in the `watched` folders are counted."""
        several = command.processes > 1
        environments: list[dict[str, str]] = _as_torchrun_sets(command.processes) if several else [{}]
        config = self.config()

        def begin(environment: dict[str, str]) -> Child:
            def action(report: Callable) -> None:
                os.environ.update(environment)
                _train(self.work, config, command, report, kill, watched)

            return Child(action, self.root / "log")

        return [begin(environment) for environment in environments]

    def run(self, command: Command, kill: Kill | None = None, watched: Sequence[Path] = ()) -> Outcome:
        """Run the command to its end; returns the outcome of its first process that did not finish."""
        outcomes = [child.wait() for child in self.begin(command, kill, watched)]
        return next((outcome for outcome in outcomes if outcome.end != "finished"), outcomes[0])

    def config(self) -> Path:
        path = self.root / "small.yaml"
        text = SMALL.replace("CACHE", str(self.cache)).replace("BANK", str(self.shared / "bank"))
        path.write_text(text, encoding="utf-8")
        return path

    def empty(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def use_cache(self, *, fresh: bool) -> None:
        """The shared cache, or one in the work folder."""
        self.cache = Path("cache") if fresh else self.shared / "cache"

    def take(self, state: Path) -> None:
        """Put a copy of `state` in place of the work folder."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(state, self.work, symlinks=True)

    def keep(self, state: Path) -> Path:
        """Copy the work folder to `state`."""
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(self.work, state, symlinks=True)
        return state


def _train(
    work: Path, config: Path, command: Command, report: Callable, kill: Kill | None, watched: Sequence[Path]
) -> None:
    """One process of `stlm train`, in this process."""
    import torch
    from transformers.trainer_callback import CallbackHandler

    from tidy_stlms.configs.load import load_config
    from tidy_stlms.scripts.cli import leave_processes
    from tidy_stlms.trainers.run import train
    from tidy_stlms.trainers.trainer import STLMTrainer

    os.chdir(work)
    torch.manual_seed(os.getpid())  # whatever state a new process starts with
    _draw_nothing()

    def on_save(self, args, state, control, original=CallbackHandler.on_save):
        report({"saved": state.global_step})
        return original(self, args, state, control)

    def training_step(self, *args, original=STLMTrainer.training_step, **kwargs):
        if self.run_id:  # the trial step before the run has none
            report({"step": self.state.global_step})
        return original(self, *args, **kwargs)

    CallbackHandler.on_save, STLMTrainer.training_step = on_save, training_step
    operations = Operations(watched, kill, report)
    if watched:
        operations.watch()
    keys = [f"training.seed={command.seed}"]
    keys += ["training.resume_from_checkpoint=true"] if command.how == "resumes" else []
    train(*load_config([config], keys), overwrite=command.how == "overwrites")
    operations.finish()
    leave_processes()


def _draw_nothing() -> None:
    """A figure's file is written, its curves are not drawn: a third of a tiny run's time."""
    from matplotlib.figure import Figure

    def savefig(self: Any, file: Any, **options: Any) -> None:
        file.write(b"a figure of the run")

    Figure.savefig = savefig


def _as_torchrun_sets(processes: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    same = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    same |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [{**same, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def warm_up(shared: Path) -> None:
    """Import what a run imports, and make the bank and the cache that all runs share.

    Both in forked children: what they leave behind in a process (threads, accelerate's state) would be
    inherited by every run.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread
    shared.mkdir(parents=True, exist_ok=True)

    def make_bank(report: Callable) -> None:
        from tidy_stlms.configs.files import find_shipped
        from tidy_stlms.eval.facts.generate.generate import generate_from_spec

        generate_from_spec(find_shipped("configs/facts/people.yaml"), FACTS, seed=1).save(shared / "bank")

    outcome = Child(make_bank, shared / "log").wait()
    assert outcome.end == "finished", outcome.message
    bench = Bench(shared / "warm", shared)

    def run_once(report: Callable) -> None:
        _train(bench.work, bench.config(), Command(), report, None, ())
        report({"modules": sorted(sys.modules)})

    outcome = Child(run_once, shared / "log").wait()
    assert outcome.end == "finished", outcome.message
    for name in outcome.modules:
        if not name.startswith(("tests", "__")):
            try:
                importlib.import_module(name)
            except ImportError:  # the lazy parts of packages
                continue
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the children's collections need not look at what was imported
