"""Control-corrected recall: what injected facts have beyond familiar wordings, answers and names.

    corrected_summary(results)["injected"]["semantic"]["binding"].mean

Control subjects get the same questions, and training never states their facts. `lp(s, a)` is the
log-probability of candidate a for subject s, in nats. `m(a)` is its mean over the control subjects that have
candidate a in the same wording of the same relation. For each probe type:

- `accuracy_over_control` = accuracy of injected facts - accuracy of control facts.
- `answer_familiarity` = over control subjects, mean logprob of answers that were injected for other subjects
  - mean logprob of answers that were injected for nobody, in the same wordings: the gain from having read the
  answer. It needs control facts of the arm "unseen", and is left out without them.
- `subject_shift` = mean over injected probes of the mean over distractors a' of lp(s, a') - m(a'). Wrong
  answers rise if the name is familiar, and fall if the right answer takes their probability.
- `binding` = mean over injected probes of [lp(s, a) - m(a)] - mean over a' of [lp(s, a') - m(a')]: the gain
  of the right answer beyond the gain of the distractors.

Binding is a difference of differences. The probabilities of all continuations sum to one: if some candidates
become more probable, all others of the probe lose the same number of nats. This cancels in differences
between candidates of one probe. binding + subject_shift = mean of lp(s, a) - m(a) over the same probes.

docs/recall.md says why a gain has these parts. Log-probabilities belong to one tokenizer.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tidy_stlms.configs.records import Output
from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.recall.groups import CONTROL, Doses, groups_of, in_order, is_injected, treatment_groups
from tidy_stlms.eval.recall.results import ProbeResult
from tidy_stlms.eval.recall.statistics import (
    TTest,
    number_clusters,
    ratio_and_variance,
    sums_by_cluster,
    t_tests,
)
from tidy_stlms.eval.styles import BEAR_STYLE

CORRECTED = frozenset({"accuracy_over_control", "answer_familiarity", "subject_shift", "binding"})

MatchKey = Hashable
"""Cells with equal keys are compared: a wording, a wording and a candidate, or None for all cells."""


class CorrectedEstimate(Output, frozen=True):
    """A control-corrected figure, with its 95% interval and test."""

    mean: float
    """A share for `accuracy_over_control`, nats for the others."""
    se: float
    """Standard error of the mean."""
    low: float
    """Lower end of the 95% interval by t."""
    high: float
    """Upper end of the interval."""
    p: float
    """Two-sided p-value of a mean of zero, not corrected for the number of figures."""
    n: int
    """The number of probes that have control cells."""


CorrectedSummary = dict[str, dict[str, dict[str, CorrectedEstimate]]]
"""Corrected estimates by group of facts, probe type and name of the figure."""


class _ControlCell(NamedTuple):
    cell: int
    subject: Hashable


class _Term(NamedTuple):
    """A weighted cell of one probe, and the key of the control cells whose mean is subtracted from it."""

    cell: int
    weight: float
    key: MatchKey


_ControlCells = dict[MatchKey, list[_ControlCell]]


@dataclass(frozen=True)
class Contrast:
    """A mean over probes of weighted sums of cells, each cell less the mean of its control cells.

    A cell is one number of a result, or of one candidate of a result, in the order of `cell_values`. A cell's
    control cells are those with the same key. A contrast depends on the bank and not on the model, so one
    contrast serves all models of a study.
    """

    figure: str
    """The field of the results that holds the cells."""
    cells: np.ndarray
    """Index of each term's cell, (terms,)."""
    weights: np.ndarray
    """(terms,)"""
    keys: np.ndarray
    """Number of each term's key, from 0, (terms,)."""
    probes: np.ndarray
    """Number of each term's probe, from 0, (terms,)."""
    subjects: np.ndarray
    """Number of each probe's subject, from 0, (probes,)."""
    control_cells: np.ndarray
    """Index of each control cell, (control cells,)."""
    control_keys: np.ndarray
    """(control cells,)"""
    control_subjects: np.ndarray
    """(control cells,)"""

    @property
    def n(self) -> int:
        """The number of probes."""
        return len(self.subjects)

    def test(self, values: np.ndarray) -> list[TTest]:
        """Test the contrast of each figure against zero; `values` by cell, (cells, figures).

        The standard error clusters by subject and by control subject (Cameron, Gelbach and Miller 2011,
        "Robust inference with multiway clustering"). The contrast is a sum over subjects minus a sum over
        control subjects with fixed weights, and no cell belongs to both. So their intersection term is zero,
        and the variance is that of the subjects plus that of the control subjects.
        """
        controls = values[self.control_cells]  # (control cells, figures)
        n_keys = int(self.keys.max()) + 1
        counts = np.bincount(self.control_keys, minlength=n_keys)
        means = sums_by_cluster(controls, self.control_keys, n_keys) / counts[:, None]  # (keys, figures)

        deviations = self.weights[:, None] * (values[self.cells] - means[self.keys])  # (terms, figures)
        by_probe = sums_by_cluster(deviations, self.probes, self.n)
        n_probes = np.bincount(self.subjects)  # (subjects,)
        mean, variance = ratio_and_variance(
            sums_by_cluster(by_probe, self.subjects, len(n_probes)), n_probes.astype(float)
        )
        residuals = controls - means[self.control_keys]
        control_variance, n_control_subjects = self._control_variance(residuals, counts)
        return t_tests(mean, (variance, len(n_probes)), (control_variance, n_control_subjects))

    def _control_variance(self, residuals: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, int]:
        """The variance that comes from control subjects, (figures,), and their number.

        It adds up the squares of their weighted residuals. Each residual is multiplied by sqrt(n / (n - 1)),
        with n control subjects of its key, because its value is part of the mean (HC2, MacKinnon and White
        1985).

        Args:
            residuals: Control cells less the mean of their key, (control cells, figures).
            counts: The number of control cells of each key, (keys,).
        """
        n_keys = len(counts)
        pairs = np.unique(np.stack([self.control_keys, self.control_subjects]), axis=1)  # (2, pairs)
        n_subjects = np.bincount(pairs[0], minlength=n_keys)  # (keys,)
        share = np.bincount(self.keys, self.weights, minlength=n_keys) / self.n  # of each key's mean, (keys,)
        weights = share / counts * np.sqrt(n_subjects / (n_subjects - 1))
        residuals = weights[self.control_keys, None] * residuals
        n_control_subjects = int(pairs[1].max()) + 1
        by_subject = sums_by_cluster(residuals, self.control_subjects, n_control_subjects)
        return (by_subject**2).sum(0), n_control_subjects


def corrected_summary(results: Sequence[ProbeResult], doses: Doses | None = None) -> CorrectedSummary:
    """Estimate the control-corrected figures of each group of injected facts and probe type.

    Groups are those of `groups.py`; `answer_familiarity` is of the group "control". A figure is left out if
    it has no control probes, or a single subject on one side: its variance cannot be estimated.
    """
    summary: CorrectedSummary = {}
    for (group, probe_type), contrasts in contrasts_of(results, groups_of(results, doses)).items():
        for name, contrast in contrasts.items():
            [test] = contrast.test(cell_values(results, contrast.figure)[:, None])
            estimate = CorrectedEstimate(**test._asdict(), n=contrast.n)
            summary.setdefault(group, {}).setdefault(probe_type, {})[name] = estimate
    ordered = in_order([*treatment_groups(results, doses), *summary])
    return {group: summary[group] for group in ordered if group in summary}


def contrasts_of(
    results: Sequence[ProbeResult], groups: Sequence[str]
) -> dict[tuple[str, str], dict[str, Contrast]]:
    """The contrasts that these results have data for, by (group, probe type) and name.

    `groups` are those of the results.
    """
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (result, group) in enumerate(zip(results, groups, strict=True)):
        members[result.type][group].append(index)
    first_cells = _first_cells(results)
    contrasts: dict[tuple[str, str], dict[str, Contrast | None]] = {}
    for probe_type, by_group in members.items():
        control, unseen = by_group.pop(CONTROL, []), by_group.pop(UNSEEN, [])
        control_cells = _candidate_control_cells(results, control, first_cells)
        for group, indices in by_group.items():
            if is_injected(group):
                contrasts[group, probe_type] = {
                    "accuracy_over_control": _result_contrast(results, indices, control, "accuracy", _no_key),
                    **_candidate_contrasts(results, indices, control_cells, first_cells),
                }
        contrasts[CONTROL, probe_type] = {
            "answer_familiarity": _result_contrast(results, control, unseen, "logprob", _wording)
        }
    with_data = {
        key: {name: contrast for name, contrast in by_name.items() if contrast is not None}
        for key, by_name in contrasts.items()
    }
    return {key: by_name for key, by_name in with_data.items() if by_name}


def cell_values(results: Sequence[ProbeResult], figure: str) -> np.ndarray:
    """The values of all cells, (cells,): one of each result, or of each candidate for `candidate_logprobs`.

    NaN where a result does not have the figure; no contrast reads such a cell.
    """
    if figure == "candidate_logprobs":
        return np.array([value for result in results for value in result.candidate_logprobs], dtype=float)
    values = [getattr(result, figure) for result in results]
    return np.array([np.nan if value is None else float(value) for value in values])


def _first_cells(results: Sequence[ProbeResult]) -> list[int]:
    """The index of each result's first candidate among the candidates of all results."""
    sizes = [len(result.candidate_logprobs) for result in results]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()


def _result_contrast(
    results: Sequence[ProbeResult],
    first: Sequence[int],
    second: Sequence[int],
    figure: str,
    key_of: Callable[[ProbeResult], MatchKey],
) -> Contrast | None:
    """A figure of the results `first` against that of the results `second` with equal keys; both by index."""
    first = [index for index in first if getattr(results[index], figure) is not None]
    second = [index for index in second if getattr(results[index], figure) is not None]
    control_cells = _control_cells(
        (key_of(results[index]), _ControlCell(index, results[index].cluster)) for index in second
    )
    terms = {
        index: [_Term(index, 1.0, key)] for index in first if (key := key_of(results[index])) in control_cells
    }
    return _contrast(results, figure, terms, control_cells)


def _candidate_cells(result: ProbeResult, first_cell: int) -> list[tuple[MatchKey, int]]:
    """The key and the cell of each candidate, the answer first."""
    texts = result.candidates if result.candidate_logprobs else ()
    return [((_wording(result), text), cell) for cell, text in enumerate(texts, first_cell)]


def _candidate_control_cells(
    results: Sequence[ProbeResult], control: Sequence[int], first_cells: Sequence[int]
) -> _ControlCells:
    """The control cells of each candidate of each wording."""
    return _control_cells(
        (key, _ControlCell(cell, results[index].cluster))
        for index in control
        for key, cell in _candidate_cells(results[index], first_cells[index])
    )


def _candidate_contrasts(
    results: Sequence[ProbeResult],
    indices: Sequence[int],
    control_cells: _ControlCells,
    first_cells: Sequence[int],
) -> dict[str, Contrast | None]:
    """subject_shift and binding, over the same probes: those with control cells for the answer and for a
    distractor."""
    shift: dict[int, list[_Term]] = {}
    binding: dict[int, list[_Term]] = {}
    for index in indices:
        cells = _candidate_cells(results[index], first_cells[index])
        distractors = [(cell, key) for key, cell in cells[1:] if key in control_cells]
        if not distractors or cells[0][0] not in control_cells:
            continue
        answer_key, answer_cell = cells[0]
        share = 1 / len(distractors)
        # in BEAR's style a sum also holds the name, which is another one for control subjects
        if results[index].style != BEAR_STYLE:
            shift[index] = [_Term(cell, share, key) for cell, key in distractors]
        binding[index] = [_Term(answer_cell, 1.0, answer_key)]
        binding[index] += [_Term(cell, -share, key) for cell, key in distractors]
    return {
        name: _contrast(results, "candidate_logprobs", terms, control_cells)
        for name, terms in (("subject_shift", shift), ("binding", binding))
    }


def _control_cells(keyed_cells: Iterable[tuple[MatchKey, _ControlCell]]) -> _ControlCells:
    """Control cells by key. Drops keys of a single subject, as one subject shows no spread."""
    by_key: _ControlCells = defaultdict(list)
    for key, control_cell in keyed_cells:
        by_key[key].append(control_cell)
    return {key: cells for key, cells in by_key.items() if len({cell.subject for cell in cells}) > 1}


def _contrast(
    results: Sequence[ProbeResult],
    figure: str,
    terms: Mapping[int, list[_Term]],
    control_cells: _ControlCells,
) -> Contrast | None:
    """The mean over results of their `terms`, by index; None if they are of fewer than two subjects."""
    subjects, n_subjects = number_clusters([results[index].cluster for index in terms])
    if n_subjects < 2:
        return None
    numbered = [(term, probe) for probe, of_probe in enumerate(terms.values()) for term in of_probe]
    key_numbers = {key: number for number, key in enumerate(dict.fromkeys(term.key for term, _ in numbered))}
    control = [(cell, number) for key, number in key_numbers.items() for cell in control_cells[key]]
    return Contrast(
        figure,
        cells=np.array([term.cell for term, _ in numbered]),
        weights=np.array([term.weight for term, _ in numbered]),
        keys=np.array([key_numbers[term.key] for term, _ in numbered]),
        probes=np.array([probe for _, probe in numbered]),
        subjects=np.array(subjects),
        control_cells=np.array([cell.cell for cell, _ in control]),
        control_keys=np.array([number for _, number in control]),
        control_subjects=np.array(number_clusters([cell.subject for cell, _ in control])[0]),
    )


def _no_key(result: ProbeResult) -> MatchKey:
    return None


def _wording(result: ProbeResult) -> MatchKey:
    return result.relation, result.template
