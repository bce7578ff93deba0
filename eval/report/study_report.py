"""Writes a study's report.md with its figures, and report.html.

write_study_report(folder, read_study(folder), read_records(folder / "results.jsonl", ProbeResult))
"""

from collections.abc import Sequence
from pathlib import Path

from tidy_stlms.configs.files import write_whole
from tidy_stlms.configs.markdown import markdown_text
from tidy_stlms.eval.facts.summary import chance_in_words
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.report.cells import StudyTable
from tidy_stlms.eval.report.page import study_page
from tidy_stlms.eval.report.panels import StudyFigure
from tidy_stlms.eval.report.study_content import (
    MAX_ROWS,
    SECTIONS,
    Prompt,
    StudyContent,
    content_of,
    show_token,
)
from tidy_stlms.eval.study.study import BankInfo, Study

FIGURES = """\
Accuracy: the answer is the most probable of the candidates. Exact match: greedy generation gives the
answer{chance}. Rank: of the answer among the candidates. Bits/byte: of the answer, lower is better.
"""
MARKS = """\
Brackets: 95% bootstrap intervals over subjects, unless a table says otherwise; they say nothing of another
training run or seed. Control facts were never injected. **Bold**: best of its group; *italics*: best, but not
significantly above every other model. Perplexity, token rank and log-probability stand only in tables whose
models share a tokenizer."""


def write_study_report(folder: Path, study: Study, results: Sequence[ProbeResult]) -> None:
    """Write report.md, report.html and figures/*.png from a study and the results of its results.jsonl."""
    from tidy_stlms.eval.report.draw import draw_figure

    content = content_of(study)
    drawings = {figure.key: draw_figure(figure) for figure in content.figures}
    for key, drawing in drawings.items():
        write_whole(folder / f"figures/{key}.png", drawing.png)
    write_whole(folder / "report.md", study_markdown(content).encode("utf-8", "replace"))
    panels = {key: drawing.panels for key, drawing in drawings.items()}
    write_whole(folder / "report.html", study_page(content, panels, results).encode("utf-8", "replace"))


def study_markdown(content: StudyContent) -> str:
    """report.md: links to figures, tables, prompts, and what is needed to repeat the study."""
    study = content.study
    lines = [f"# {markdown_text(content.title)}", "", *_introduction(study.bank, content.style_in_words)]
    for info in study.models:
        if info.error:
            lines += [f"{markdown_text(info.model)} failed: {markdown_text(info.error)}", ""]
    for section, title in SECTIONS.items():
        section_lines = [line for figure in content.figures_of(section) for line in _figure(figure)]
        section_lines += [line for table in content.tables_of(section) for line in _table(table)]
        section_lines += _prompts(content.prompts) if section == "prompts" else []
        section_lines += _provenance(study) if section == "models" else []
        if section_lines:
            lines += [f"## {title}", "", *section_lines]
    return "\n".join(lines)


def _introduction(bank: BankInfo | None, style: str | None) -> list[str]:
    if bank is None:
        return []
    chance = chance_in_words(bank.chance, bank.chance_exact_match)
    counts = f"{bank.n_facts:,} facts, {bank.n_probes:,} probes."
    return [
        f"{counts} `report.html` is this and a browser of all probes.",
        "",
        *(f"- **Guessable bank**: {markdown_text(problem)}" for problem in bank.guessable),
        *([""] if bank.guessable else []),
        (f"{style}\n" if style else FIGURES.format(chance=f" ({chance})" if chance else "")) + MARKS,
        "",
    ]


def _figure(figure: StudyFigure) -> list[str]:
    return [f"![{figure.caption}](figures/{figure.key}.png)", "", figure.caption, ""]


def _table(table: StudyTable) -> list[str]:
    lines = [f"**{markdown_text(table.title)}**", "", table.markdown(MAX_ROWS)]
    if len(table.rows) > MAX_ROWS:
        lines += [f"The first {MAX_ROWS} of {len(table.rows):,} rows; summary.json has all.", ""]
    # Markdown has no colours
    note = table.note.replace("Grey:", "°:").replace("where it is not grey", "where it has no °")
    return [*lines, markdown_text(note), ""] if note else lines


def _prompts(prompts: Sequence[Prompt]) -> list[str]:
    lines = []
    for prompt in prompts:
        answer = f"{markdown_text(prompt.joint)}**{markdown_text(prompt.answer)}**" if prompt.answer else ""
        lines += [f"{markdown_text(prompt.sentence)}{answer}", ""]
        for model, result in prompt.results:
            lines.append(f"- {markdown_text(model)}: {markdown_text(result.generation)}")
            for number, step in enumerate(result.top_tokens, 1):
                tokens = ", ".join(f"{markdown_text(show_token(text))} {p:.2f}" for text, p in step)
                lines.append(f"  {number}. {tokens}")
        lines.append("")
    return lines


def _provenance(study: Study) -> list[str]:
    lines = []
    if bank := study.bank:
        lines.append(f"- Bank: {markdown_text(bank.name or 'without a name')}, sha256 `{bank.sha256}`")
        if bank.flags:
            flags = ", ".join(f"{flag} {n:,}" for flag, n in bank.flags.items())
            lines.append(f"- Flagged probes: {markdown_text(flags)}")
    lines.append(f"- Scorer version: {markdown_text(study.scorer)}")
    if study.versions:
        versions = ", ".join(f"{name} {version}" for name, version in study.versions.items())
        lines.append(f"- Versions: {markdown_text(versions)}")
    lines.append(f"- Made: {markdown_text(study.created)}")
    for info in study.models:
        if info.revision:
            lines.append(f"- {markdown_text(info.model)}: revision {markdown_text(info.revision)}")
    return [*lines, ""]
