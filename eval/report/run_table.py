"""Recall before and after as rows of text, for the terminal, the report and the model card."""

from dataclasses import dataclass

from tidy_stlms.eval.recall.groups import in_order, is_injected

SHOWN = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "containment": "containment",
    "candidate_rank": "rank",
    "bits_per_byte": "bits/byte",
}
TYPES = ("memorization", "syntactic", "semantic", "inferential", "compositional", "reversal", "locality")


@dataclass(frozen=True)
class RecallTable:
    """Header and rows, all text; the first column names the probe type, the second the metric."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [self.header, ("---", "---", *["---:"] * (len(self.header) - 2)), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def recall_table(recall: dict) -> RecallTable:
    """Rows by probe type and metric from summary.json's `recall`; a column for each group.

    A cell is `before → after [low, high]`, without the arrow where nothing was measured before. Where
    injected facts are shown by treatment, a last row of each type has the numbers of probes.
    """
    before, after = recall.get("before", {}), recall["after"]
    groups = in_order(after)
    is_split = sum(map(is_injected, groups)) > 1
    rows = []
    found = {kind for group in groups for kind in after[group]}
    for kind in [kind for kind in TYPES if kind in found]:
        label = kind  # named once
        for metric, metric_label in SHOWN.items():
            cells = [
                _cell(before.get(group, {}).get(kind, {}).get(metric), after[group].get(kind, {}).get(metric))
                for group in groups
            ]
            if any(cells):
                rows.append((label, metric_label, *cells))
                label = ""
        if is_split:
            rows.append((label, "n", *(_most_probes(after[group].get(kind, {})) for group in groups)))
    return RecallTable(("probe", "metric", *groups), rows)


def _most_probes(metrics: dict) -> str:
    """How many probes there are, of which some figures may lack a few."""
    return f"{max(figure['n'] for figure in metrics.values()):,}" if metrics else ""


def _cell(before: dict | None, after: dict | None) -> str:
    if after is None:
        return ""
    start = f"{before['mean']:.2f} → " if before else ""
    return f"{start}{after['mean']:.2f} [{after['low']:.2f}, {after['high']:.2f}]"
