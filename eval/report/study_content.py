"""What a study's report shows, read from the study once for report.md and report.html."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidy_stlms.eval.report.cells import StudyTable
from tidy_stlms.eval.report.order import models_of
from tidy_stlms.eval.report.panels import StudyFigure
from tidy_stlms.eval.report.study_figures import figures_of
from tidy_stlms.eval.report.study_tables import study_tables
from tidy_stlms.eval.study.prompts import PromptResult
from tidy_stlms.eval.study.study import Study
from tidy_stlms.eval.styles import BEAR_STYLE

BEAR_IN_WORDS = (
    "Asked in BEAR's style, with the figures of its client lm-pub-quiz: after BOS, each candidate's whole "
    "sentence is scored, its closing punctuation too, and the most probable one is the model's choice. "
    "Figures of the answer alone and of generation have no meaning there."
)
MAX_ROWS = 400  # of one table; summary.json has all

SECTIONS = {
    "recall": "Recall",
    "corrected": "Beyond what control facts do",
    "steps": "Over training",
    "doses": "Against exposures",
    "relations": "By relation",
    "heldout": "Held-out text",
    "benchmarks": "Benchmarks",
    "comparisons": "Differences between models",
    "tokens": "Figures by the token",
    "prompts": "Prompts",
    "probes": "All probes",
    "models": "Reproducibility",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt of `stlm recall --prompts` and its results, as (model, result) pairs."""

    sentence: str
    answer: str | None
    joint: str
    results: list[tuple[str, PromptResult]]


@dataclass(frozen=True)
class StudyContent:
    study: Study
    tables: Sequence[StudyTable]
    figures: Sequence[StudyFigure]
    prompts: Sequence[Prompt]

    @property
    def style_in_words(self) -> str | None:
        return style_in_words(self.study)

    @property
    def title(self) -> str:
        bank = self.study.bank
        return f"Recall of {bank.name}" if bank is not None and bank.name else "What models recall"

    def tables_of(self, section: str) -> list[StudyTable]:
        return [table for table in self.tables if table.section == section]

    def figures_of(self, section: str) -> list[StudyFigure]:
        return [figure for figure in self.figures if figure.section == section]


def style_in_words(study: Study) -> str | None:
    """How the bank was asked, if that was not the suite's own style."""
    return BEAR_IN_WORDS if study.bank is not None and study.bank.style == BEAR_STYLE else None


def content_of(study: Study) -> StudyContent:
    return StudyContent(study, study_tables(study), figures_of(study), prompts_of(study))


def prompts_of(study: Study) -> list[Prompt]:
    """Every prompt once, with the models' continuations in the order of the models."""
    prompts: dict[tuple[str, str | None, str], Prompt] = {}
    for model in models_of(study):
        for result in study.prompts.get(model, ()):
            key = (result.sentence, result.answer, result.joint)
            prompts.setdefault(key, Prompt(*key, results=[])).results.append((model, result))
    return list(prompts.values())


def show_token(text: str) -> str:
    """A token with its white space made visible."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥") or "∅"
