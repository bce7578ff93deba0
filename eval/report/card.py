"""The model card: README.md of a model folder, with the metadata that the Hub reads."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modeling_stlm import LOWEST_TRANSFORMERS
from tidy_stlms.configs.corpora import short_names
from tidy_stlms.configs.files import read_json_object, read_text
from tidy_stlms.configs.markdown import markdown_code, markdown_text
from tidy_stlms.configs.printable import printable
from tidy_stlms.eval.facts.bank import FactBank
from tidy_stlms.eval.facts.records import PROBE_TYPES
from tidy_stlms.eval.models.lookup import HUB_ID
from tidy_stlms.eval.recall.groups import ROLES, in_order
from tidy_stlms.eval.report.run_in_words import FIGURES, facts_of_the_run, reading_guide
from tidy_stlms.eval.report.run_summary import RunSummary, read_run_summary
from tidy_stlms.eval.report.run_table import recall_table
from tidy_stlms.eval.run_folder import SUMMARY, read_run_config


def run_card(
    folder: Path,
    bank: FactBank | None,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    model_folder: Path | None = None,
    summary: RunSummary | None = None,
) -> str:
    """The card of a run, whole: metadata, architecture, data, injection, recall, how to load and repeat.

    Args:
        repo_id: Where the model can be loaded from.
        license: Instead of the one that the run's config names.
        model_folder: A checkpoint of the run. Its card says so, and has no figures of the final model.
        summary: Of the finished run. By default it is read from the run folder, unless `model_folder` is a
            checkpoint.
    """
    weights = model_folder or folder
    config = read_run_config(folder)
    name = repo_id.rpartition("/")[2] if repo_id else folder.resolve().name
    if summary is None and weights.resolve() == folder.resolve() and (folder / SUMMARY).exists():
        summary = read_run_summary(folder)
    is_final = summary is not None
    base = config["model"]["name_or_path"]
    lines = [f"# {markdown_text(name)}", ""]
    lines += [
        f"{markdown_code(base) if base else 'A Super Tiny Language Model'}, trained with Tidy STLMs.",
        "",
    ]
    if summary is None:
        lines += [f"These are the weights of {markdown_text(weights.name)}, from within the run.", ""]
    lines += [f"- Architecture: {architecture_in_words(read_json_object(weights / 'config.json'))}"]
    lines += [*facts_of_the_run(folder, config, summary, bank), ""]
    if bank is not None:
        lines += ["## Facts and recall", "", _bank_in_words(bank), ""]
        if summary is not None:
            table = recall_table(summary.recall.after, summary.recall.before)
            lines += [table.markdown(), reading_guide(bank), ""]
    figures = [file for file in FIGURES if is_final and (folder / "figures" / file).exists()]
    lines += [f"![{FIGURES[file]}](figures/{file})\n\n{FIGURES[file]}\n" for file in figures]
    lines += [_loading(repo_id or f"path/to/{name}", trust=base is None)]
    lines += [
        "## Repeat the run",
        "",
        "`stlm train RUN/config.yaml training.output_dir=NEW`, where `RUN` is this folder; "
        "`environment.json` names versions.",
        "",
    ]
    metadata = _run_metadata(config, name, license, _eval_results(summary, bank))
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(lines)


def _run_metadata(
    config: dict[str, Any], name: str, license: str | None, eval_results: list[EvalResult]
) -> ModelCardData:
    base = config["model"]["name_or_path"]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        license=license or config["model"].get("license"),
        tags=["tidy-stlms", *([] if base else ["stlm"])],
        datasets=_dataset_ids(config["data"]["name"]) or None,
        base_model=_hub_ids([base])[0] if base and _hub_ids([base]) else None,
        model_name=printable(name),
        eval_results=eval_results or None,
    )


def plain_card(folder: Path, repo_id: str, license: str | None) -> str:
    """The card of a folder that is not a run: its README.md with address and `license`, or a new card."""
    card_file = folder / "README.md"
    if card_file.exists():
        card = ModelCard(
            read_text(card_file).replace(f"path/to/{folder.resolve().name}", repo_id),
            ignore_metadata_errors=True,
        )
        if license is not None:
            card.data["license"] = license
        return str(card)
    is_adapter = (folder / "adapter_config.json").exists()
    config = read_json_object(folder / ("adapter_config.json" if is_adapter else "config.json"))
    base = config.get("base_model_name_or_path") if is_adapter else None
    metadata = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        license=license,
        tags=["tidy-stlms"],
        base_model=next(iter(_hub_ids([base])), None) if base else None,
    )
    words = (
        f"a {markdown_text(str(config.get('peft_type')))} adapter of {markdown_code(str(base))}"
        if is_adapter
        else architecture_in_words(config)
    )
    lines = [f"# {markdown_text(repo_id.rpartition('/')[2])}", "", f"- Architecture: {words}", ""]
    lines += [] if is_adapter else [_loading(repo_id, trust=any(folder.glob("modeling_*.py")))]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(lines)


def architecture_in_words(config: dict[str, Any]) -> str:
    """One line from a model's config.json: its type, and those of the usual sizes that it has."""
    sizes = (
        ("num_hidden_layers", "layers"),
        ("hidden_size", "wide"),
        ("num_attention_heads", "heads"),
        ("num_key_value_heads", "key/value heads"),
        ("intermediate_size", "wide feed-forward"),
        ("vocab_size", "tokens"),
        ("max_position_embeddings", "positions"),
    )
    parts = [f"{config[key]:,} {unit}" for key, unit in sizes if isinstance(config.get(key), int)]
    for key in ("position_embedding_type", "norm_type", "mlp_type", "hidden_act"):
        if isinstance(config.get(key), str):
            parts.append(f"{key} {markdown_text(config[key])}")
    if config.get("tie_word_embeddings"):
        parts.append("tied embeddings")
    kind = str(config.get("model_type") or config.get("peft_type", "unknown"))
    return ", ".join([markdown_code(kind), *parts])


def _bank_in_words(bank: FactBank) -> str:
    roles = {role: sum(fact.role == role for fact in bank.facts) for role in ROLES}
    counts = ", ".join(f"{count:,} {role}" for role, count in roles.items() if count)
    name = markdown_code(str(bank.meta.get("name")))
    return (
        f"Fact bank {name}: {counts} facts, {len(bank.probes):,} probes; sha256 `{bank.sha256}`. The facts "
        "are made up unless the bank says otherwise."
    )


def _eval_results(summary: RunSummary | None, bank: FactBank | None) -> list[EvalResult]:
    """Accuracy by group of facts and probe type, for the Hub's model-index."""
    if summary is None or bank is None:
        return []
    after = summary.recall.after
    return [
        EvalResult(
            task_type="text-generation",
            task_name="fact recall",
            dataset_type="fact-bank",
            dataset_name=printable(str(bank.meta.get("name") or "facts")),
            dataset_config=probe_type,  # results of equal config and split would be merged
            dataset_split=printable(group),
            dataset_revision=bank.sha256,
            metric_type="accuracy",
            metric_name=f"accuracy [{accuracy.low:.3f}, {accuracy.high:.3f}]",
            metric_value=round(accuracy.mean, 4),
        )
        for group in in_order(after)
        for probe_type in PROBE_TYPES
        if (accuracy := after[group].get(probe_type, {}).get("accuracy"))
    ]


def _dataset_ids(name: str) -> list[str]:
    """The Hub's ids behind `data.name`; none for local files and the built-in corpus."""
    if name in ("files", "synthetic"):
        return []
    return _hub_ids(part["path"] for part in short_names().get(name, [{"path": name}]))


def _hub_ids(names: Iterable[str]) -> list[str]:
    """Names that may be ids of the Hub, which refuses a local path or takes it for someone else's id."""
    names = [name for name in dict.fromkeys(names) if HUB_ID.fullmatch(name)]
    return [name for name in names if not Path(name).exists() and not name.startswith(("outputs/", "."))]


def _loading(source: str, trust: bool) -> str:
    option = ", trust_remote_code=True" if trust else ""
    needs = (
        f"The model brings its own code, which needs transformers {LOWEST_TRANSFORMERS} or newer.\n\n"
        if trust
        else ""
    )
    return f"""## Load it

{needs}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({json.dumps(source)}{option})
tokenizer = AutoTokenizer.from_pretrained({json.dumps(source)}{option})
```
"""
