"""The recall metrics as an `evaluate.Metric`, for pipelines that speak that language.

    metric = RecallMetric()
    metric.compute(predictions=[[-1.2, -3.4]], references=[{"gold": 0, "n_bytes": [6, 5], "n_tokens": [1, 2],
                                                            "subject": "Ada Lopez", "fact_id": "f1"}])

Instantiated directly: `evaluate.load` would go to the Hub for it.
"""

from typing import Any

import datasets
import evaluate

from tidy_stlms.eval.recall.metrics import candidate_metrics, summarise

_DESCRIPTION = "Recall of facts from the log-probabilities of candidate answers."
_INPUTS = """
Args:
    predictions: for each probe, the log-probabilities (nats) of its candidates.
    references: for each probe, `gold`, the place of the true answer among them; `n_bytes` and `n_tokens`,
        the UTF-8 bytes and the tokens of each candidate's text; `subject` and `fact_id`, by which the
        intervals resample.
    n_boot, seed: of the bootstrap.
Returns:
    {metric: {"mean", "low", "high", "n", "n_facts"}} for logprob, bits_per_byte, accuracy, accuracy_norm,
    candidate_rank, mrr and perplexity.
"""


class RecallMetric(evaluate.Metric):
    """The figures of `tidy_stlms.eval.recall.metrics.summarise` that follow from log-probabilities alone."""

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
        rows = []
        for logprobs, reference in zip(predictions, references, strict=True):
            gold = reference["gold"]
            rows.append(
                {
                    "group": "all",
                    "fact_ids": [reference["fact_id"]],
                    "subject": reference["subject"],
                    "logprob": logprobs[gold],
                    "n_bytes": reference["n_bytes"][gold],
                    "n_tokens": reference["n_tokens"][gold],
                    **candidate_metrics(logprobs, reference["n_bytes"], gold),
                }
            )
        return summarise(rows, by=("group",), n_boot=n_boot, seed=seed)["all"]
