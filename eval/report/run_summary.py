"""What a report reads of a run: summary.json as a record, and the lines of metrics.jsonl.

summary = read_run_summary("outputs/quickstart")
summary.recall.after["injected"]["semantic"]["accuracy"].mean
"""

from pathlib import Path
from typing import Any

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json
from tidy_stlms.configs.records import Output, from_row
from tidy_stlms.eval.recall.results import Summary
from tidy_stlms.eval.run_folder import SUMMARY

LogRow = dict[str, Any]
"""A line of metrics.jsonl: `step`, and what the Trainer and its callbacks logged there, by their own keys."""


class RunRecall(Output, frozen=True, kw_only=True):
    """Recall at both ends of a run; empty without a bank."""

    before: Summary = {}
    """At step 0, by group of facts, probe type and metric."""
    after: Summary
    """At the last step, in the same way."""


class RunSummary(Output, frozen=True, kw_only=True):
    """What a finished run was, and what came of it."""

    steps: int
    """Optimizer steps."""
    tokens: int
    """Tokens read in training."""
    train_loss: float | None
    """The last logged training loss, nats per token; null if none was logged."""
    eval_loss: float | None
    """The last validation loss, nats per token; null if it was not measured."""
    eval_bits_per_byte: float | None
    """The same in bits per UTF-8 byte. Old files lack it."""
    tokens_per_second: float | None
    """Training speed; null if it was not measured."""
    parameters: int
    """The model's parameters, tied ones counted once."""
    recall: RunRecall
    """Recall before and after training."""


def read_run_summary(run: str | Path) -> RunSummary:
    """Read the summary of a finished run; UserError for a file that is missing or damaged."""
    file = Path(run) / SUMMARY
    summary = read_json(file)
    if not isinstance(summary, dict):
        raise UserError(f"{file}: holds no summary of a run")
    return from_row(RunSummary, summary, str(file))
