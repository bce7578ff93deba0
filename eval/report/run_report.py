"""What a run leaves for its readers: summary.json, report.md with its plots, and the model card.

Everything is read back from the run folder, so the report of a run that was interrupted and resumed
is that of one that was not.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from configs.files import read_json, read_jsonl, read_text, write_json, write_whole
from eval.facts.bank import FactBank
from eval.facts.validate import load_bank
from eval.recall.metrics import summarise
from eval.report.plots import plot_loss, plot_rank_and_bits, plot_recall
from eval.report.tables import recall_table


def write_run_report(
    folder: Path, *, steps: int, tokens: int, tokens_per_second: float | None, parameters: int
) -> dict:
    """Write summary.json, figures/*.png, report.md and README.md (the model card); return the summary."""
    metrics = _read_log(folder / "metrics.jsonl")
    summary = {
        "steps": steps,
        "tokens": tokens,
        "train_loss": _last(metrics, "loss"),
        "eval_loss": _last(metrics, "eval_loss"),
        "tokens_per_second": tokens_per_second or _last(metrics, "tokens_per_second"),
        "parameters": parameters,
        "recall": _recall_before_and_after(_read_log(folder / "recall.jsonl"), steps),
    }
    config = yaml.safe_load(read_text(folder / "config.yaml"))
    bank = load_bank(folder / "facts") if (folder / "facts").exists() else None
    figures = _draw(folder, metrics, bank)
    write_json(folder / "summary.json", summary)
    write_whole(folder / "report.md", _report(folder, config, summary, bank, figures))
    write_whole(folder / "README.md", _model_card(folder, config, summary, bank))
    return summary


def _recall_before_and_after(rows: list[dict], last_step: int) -> dict:
    """`{"before": R, "after": R}` from the evaluations at step 0 and at the end."""
    return {
        name: summarise([row for row in rows if row["step"] == step])
        for name, step in (("before", 0), ("after", last_step))
    }


def _draw(folder: Path, metrics: list[dict], bank: FactBank | None) -> list[tuple[str, str]]:
    """Draw what there is data for; returns (file, caption) pairs."""
    figures = []
    if any("loss" in row for row in metrics):
        plot_loss(metrics, folder / "figures/loss.png")
        figures.append(("figures/loss.png", "Training and validation loss."))
    if bank is not None:
        exposures = np.array([], dtype=np.int64)
        if (folder / "plan.parquet").exists():
            exposures = pq.read_table(folder / "plan.parquet")["step"].to_numpy()
        plot_recall(metrics, exposures, folder / "figures/recall.png", chance_of(bank))
        caption = "Accuracy by probe type: injected facts solid, control facts dashed; grey: exposures."
        figures.append(("figures/recall.png", caption))
        plot_rank_and_bits(metrics, folder / "figures/rank_and_bits.png")
        figures.append(("figures/rank_and_bits.png", "Rank of the answer, and its bits per byte."))
    return figures


def chance_of(bank: FactBank) -> float | None:
    """The accuracy of guessing, if it is the same for all probes that have distractors."""
    chances = {1 / (1 + len(probe.distractors)) for probe in bank.probes if probe.distractors}
    return chances.pop() if len(chances) == 1 else None


def _report(
    folder: Path, config: dict, summary: dict, bank: FactBank | None, figures: list[tuple[str, str]]
) -> str:
    lines = [f"# {folder.name}", "", *_facts_of_the_run(folder, config, summary, bank), ""]
    if bank is not None:
        lines += ["## Recall", "", recall_table(summary["recall"]).markdown(), reading_guide(bank), ""]
    lines += ["## Curves", ""]
    for file, caption in figures:
        lines += [f"![{caption}]({file})", "", caption, ""]
    lines += ["Files: `config.yaml` (all settings), `plan.parquet` (every exposure), `recall.jsonl` (a line"]
    lines += ["per probe and evaluation), `metrics.jsonl` (curves), `summary.json`.", ""]
    return "\n".join(lines)


def reading_guide(bank: FactBank) -> str:
    """What the figures of a recall table mean."""
    chance = chance_of(bank)
    guess = f" (chance {chance:.2f})" if chance is not None else ""
    return (
        f"Accuracy: the answer is the most probable of the candidates{guess}. Exact match: greedy generation "
        "gives the answer. Brackets: 95% bootstrap interval over subjects, within this one training run. "
        "Control facts were never injected."
    )


def _facts_of_the_run(folder: Path, config: dict, summary: dict, bank: FactBank | None) -> list[str]:
    versions = read_json(folder / "environment.json")["versions"]
    model = config["model"]["name_or_path"] or "STLM from scratch"
    lines = [
        f"- Model: {model}, {summary['parameters']:,} parameters",
        f"- Data: `{config['data']['name']}`, {summary['tokens']:,} tokens in {summary['steps']:,} steps",
        f"- Loss: training {_number(summary['train_loss'])}, validation {_number(summary['eval_loss'])}",
        f"- Injection: {injection_in_words(folder, config, bank)}",
        f"- Seed: {config['training']['seed']}",
        f"- Versions: torch {versions['torch']}, transformers {versions['transformers']}",
    ]
    return lines


def injection_in_words(folder: Path, config: dict, bank: FactBank | None) -> str:
    """One sentence: how many facts, how often, by which strategy and placement."""
    if bank is None:
        return "none, ordinary training"
    if not (folder / "plan.parquet").exists():
        return "switched off; the same facts were measured (twin run)"
    plan = pq.read_table(folder / "plan.parquet")
    told = [fact for fact_ids in plan["fact_ids"].to_pylist() for fact in fact_ids]
    facts = set(told)
    section = config["injection"]
    return (
        f"{len(facts)} facts, {len(told) / len(facts):g} exposures each ({plan.num_rows:,} statements), "
        f"strategy `{section['strategy']}` over the {section['span']}, placement `{section['placement']}`"
    )


def _model_card(folder: Path, config: dict, summary: dict, bank: FactBank | None) -> str:
    name, base = folder.name, config["model"]["name_or_path"]
    origin = f"`{base}`" if base else "A Super Tiny Language Model"
    tag = "" if base else "- stlm\n"
    table = recall_table(summary["recall"]).markdown() if bank is not None else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
{tag}- tidy-stlms
---

# {name}

{origin}, trained with Tidy STLMs.

{chr(10).join(_facts_of_the_run(folder, config, summary, bank))}

{table}
{reading_guide(bank) if bank is not None else ""}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("path/to/{name}")
```

To repeat the run: `stlm train config.yaml` with the `config.yaml` of this folder.
"""


def _read_log(path: Path) -> list[dict]:
    return read_jsonl(path) if path.exists() else []


def _last(rows: list[dict], key: str) -> Any:
    return next((row[key] for row in reversed(rows) if key in row), None)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
