"""The recall metrics as an `evaluate.Metric`, for pipelines that use the `evaluate` library.

    metric = RecallMetric()
    metric.compute(predictions=[[-1.2, -3.4]], references=[{"gold": 0, "n_bytes": [6, 5], "n_tokens": [1, 2],
                                                            "subject": "Ada Lopez", "fact_id": "f1"}])

Create it directly as above: `evaluate.load` would look for it on the Hub.
"""

from typing import Any

import datasets
import evaluate
import msgspec

from tidy_stlms.eval.recall.metrics import candidate_metrics, estimates_of
from tidy_stlms.eval.recall.results import ProbeResult

_DESCRIPTION = "Recall of facts from the log-probabilities of candidate answers."
_INPUTS = """
Args:
    predictions: for each probe, the log-probabilities (nats) of its candidates.
    references: for each probe, `gold`, the index of the answer among them; `n_bytes` and `n_tokens`,
        the UTF-8 bytes and the tokens of each candidate's text; `subject`, which the intervals resample;
        and `fact_id`.
    n_boot, seed: of the bootstrap.
Returns:
    {metric: {"mean", "low", "high", "n", "n_facts"}} for logprob, bits_per_byte, accuracy, accuracy_norm,
    candidate_rank, mrr and perplexity.
"""


class RecallMetric(evaluate.Metric):
    """The metrics of `tidy_stlms.eval.recall.metrics` that follow from log-probabilities alone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": {
                        "gold": datasets.Value("int32"),
                        "n_bytes": datasets.Sequence(datasets.Value("int32")),
                        "n_tokens": datasets.Sequence(datasets.Value("int32")),
                        "subject": datasets.Value("string"),
                        "fact_id": datasets.Value("string"),
                    },
                }
            ),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[dict[str, Any]],
        n_boot: int = 1000,
        seed: int = 0,
    ) -> dict[str, dict[str, Any]]:
        results = [
            _result(number, logprobs, reference)
            for number, (logprobs, reference) in enumerate(zip(predictions, references, strict=True))
        ]
        return msgspec.to_builtins(estimates_of(results, n_boot=n_boot, seed=seed))


def _result(number: int, logprobs: list[float], reference: dict[str, Any]) -> ProbeResult:
    """A result with what a prediction and its reference say; role, type and texts are placeholders."""
    gold, n_bytes = reference["gold"], reference["n_bytes"]
    return ProbeResult(
        probe_id=str(number),
        fact_ids=(reference["fact_id"],),
        role="known",
        type="memorization",
        subject=reference["subject"],
        prompt="",
        answer="",
        n_tokens=reference["n_tokens"][gold],
        n_bytes=n_bytes[gold],
        logprob=logprobs[gold],
        **candidate_metrics(logprobs, n_bytes, gold),
    )
