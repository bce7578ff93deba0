"""Recall before and after as rows of text, for the terminal, the report and the model card."""

from dataclasses import dataclass

from eval.facts.integrity import UNSEEN

SHOWN = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "containment": "containment",
    "candidate_rank": "rank",
    "bits_per_byte": "bits/byte",
}
ROLES = ("injected", "control", UNSEEN, "neighbour", "known")
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
    """Rows by probe type and metric from summary.json's `recall`; a column for each role.

    A cell is `before → after [low, high]`, without the arrow where nothing was measured before.
    """
    before, after = recall.get("before", {}), recall["after"]
    roles = [role for role in ROLES if role in after]
    rows = []
    found = {kind for role in roles for kind in after[role]}
    for kind in [kind for kind in TYPES if kind in found]:
        label = kind  # named once
        for metric, metric_label in SHOWN.items():
            cells = [
                _cell(before.get(role, {}).get(kind, {}).get(metric), after[role].get(kind, {}).get(metric))
                for role in roles
            ]
            if any(cells):
                rows.append((label, metric_label, *cells))
                label = ""
    return RecallTable(("probe", "metric", *roles), rows)


def _cell(before: dict | None, after: dict | None) -> str:
    if after is None:
        return ""
    start = f"{before['mean']:.2f} → " if before else ""
    return f"{start}{after['mean']:.2f} [{after['low']:.2f}, {after['high']:.2f}]"
