"""Control-corrected recall: what injected facts have beyond familiar wordings, answers and names.

Control subjects are asked the same questions, and their facts are never injected. `lp(s, a)` is the
log-probability of candidate a for subject s, in nats. `m(a)` is its mean over the control subjects that have
candidate a in the same wording of the same relation. For each probe type

- `accuracy_over_control` = accuracy of injected facts - accuracy of control facts;
- `answer_familiarity` = for control subjects, mean logprob of answers that were injected for other subjects
  - mean logprob of answers that never were, in the same wordings: the gain from having read the answer. It
  needs control facts of the arm "unseen", with answers that are in no statement, and is left out otherwise;
- `subject_shift` = mean over injected probes of the mean over the other candidates a' of lp(s, a') - m(a'):
  wrong answers rise if the name is familiar, and fall if the right answer takes their probability;
- `binding` = mean over injected probes of [lp(s, a) - m(a)] - mean over a' of [lp(s, a') - m(a')]: the gain
  of the right answer beyond that of the wrong ones.

binding is a difference of differences. The probabilities of all continuations sum to one: if some candidates
become more probable, all others of the probe lose the same number of nats. This cancels in differences
between candidates of one probe. binding + subject_shift = mean of lp(s, a) - m(a) over the same probes.

docs/recall.md says why a gain has these parts. Log-probabilities belong to one tokenizer.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidy_stlms.eval.facts.records import UNSEEN
from tidy_stlms.eval.recall.groups import CONTROL, Doses, groups_of, in_order, is_injected, treatment_groups
from tidy_stlms.eval.recall.metrics import Row, cluster_of
from tidy_stlms.eval.recall.statistics import number_clusters, ratio_and_variance, sums_by_cluster, t_tests

CORRECTED = frozenset({"accuracy_over_control", "answer_familiarity", "subject_shift", "binding"})
# of these, what can be compared across tokenizers
CORRECTED_COMPARABLE = frozenset({"accuracy_over_control"})

_ControlCells = dict[
    Hashable, list[tuple[int, Hashable]]
]  # what was asked: (cell, subject) of each control row
_Terms = list[tuple[int, float, Hashable]]  # of one probe: (cell, weight, what was asked)


@dataclass(frozen=True)
class Contrast:
    """Mean over probes of weighted sums of cells; from each cell the mean of its control cells is subtracted.

    A cell is one number of a row, or of one candidate of a row, in the order of `figures`. A group is the
    control cells with one wording (and one candidate). A contrast depends on the bank, not on the model.
    """

    figure: str
    cells: np.ndarray
    """(terms,), like the next three."""
    weights: np.ndarray
    groups: np.ndarray
    probes: np.ndarray
    """Numbers from 0."""
    subjects: np.ndarray
    """(probes,), numbers from 0."""
    control_cells: np.ndarray
    """(control cells,), like the next two."""
    control_groups: np.ndarray
    control_subjects: np.ndarray

    @property
    def n(self) -> int:
        """The probes whose mean it is."""
        return len(self.subjects)

    def judge(self, values: np.ndarray) -> list[dict[str, float]]:
        """`{"mean", "se", "low", "high", "p"}` of each figure, for values by cell, (cells, figures).

        The standard error clusters by subject and by control subject (Cameron, Gelbach and Miller 2011,
        "Robust inference with multiway clustering"). The contrast is a sum over subjects minus a sum over
        control subjects with fixed weights, and no cell belongs to both, so their intersection term is zero
        and V = V_subject + V_control. V_subject is that of the mean of the probes' own values
        (`ratio_and_variance`). V_control adds up, over control subjects, the squares of their weighted
        residuals from the means of their groups. Each residual is multiplied by sqrt(n / (n - 1)), with n
        control subjects in its group, because its value is part of the mean (HC2, MacKinnon and White 1985).
        """
        n_groups = int(self.groups.max()) + 1
        counts = np.bincount(self.control_groups, minlength=n_groups)
        controls = values[self.control_cells]
        means = (
            sums_by_cluster(controls, self.control_groups, n_groups) / counts[:, None]
        )  # (groups, figures)

        deviations = self.weights[:, None] * (values[self.cells] - means[self.groups])
        by_probe = sums_by_cluster(deviations, self.probes, self.n)
        n_probes = np.bincount(self.subjects)
        mean, variance = ratio_and_variance(
            sums_by_cluster(by_probe, self.subjects, len(n_probes)), n_probes.astype(float)
        )

        # every control subject once for each of its groups
        group_numbers, control_subjects = np.unique(
            np.stack([self.control_groups, self.control_subjects]), axis=1
        )
        n_subjects = np.bincount(group_numbers, minlength=n_groups)
        share = np.bincount(self.groups, self.weights, minlength=n_groups) / self.n  # of the groups' means
        residual_weights = share / counts * np.sqrt(n_subjects / (n_subjects - 1))
        residuals = residual_weights[self.control_groups, None] * (controls - means[self.control_groups])
        n_control = int(control_subjects.max()) + 1
        control_variance = (sums_by_cluster(residuals, self.control_subjects, n_control) ** 2).sum(0)
        return t_tests(mean, (variance, len(n_probes)), (control_variance, n_control))


def corrected_summary(rows: Sequence[Row], doses: Doses | None = None) -> dict[str, Any]:
    """`{group: {type: {name: {"mean", "se", "low", "high", "p", "n"}}}}`, groups as `groups.py` has
    them, injected facts by their `doses`; `answer_familiarity` is of the group "control".

    low and high are a 95% interval by t, p is that of the figure being zero, not corrected for the number of
    figures; `n` is the number of probes that have control cells. Figures without control
    probes, or with a single subject on a side, are left out: their variance cannot be estimated.
    """
    result: dict[str, Any] = {}
    for (group, kind), contrasts in contrasts_of(rows, groups_of(rows, doses)).items():
        for name, contrast in contrasts.items():
            [judged] = contrast.judge(figures(rows, contrast.figure)[:, None])
            result.setdefault(group, {}).setdefault(kind, {})[name] = {**judged, "n": contrast.n}
    ordered = in_order([*treatment_groups(rows, doses), *result])
    return {group: result[group] for group in ordered if group in result}


def contrasts_of(rows: Sequence[Row], groups: Sequence[str]) -> dict[tuple[str, str], dict[str, Contrast]]:
    """`{(group, type): {name: Contrast}}` for the contrasts that these rows, of these groups, allow."""
    kinds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (row, group) in enumerate(zip(rows, groups, strict=True)):
        kinds[row["type"]][group].append(index)
    first_cells = _first_cells(rows)
    found: dict[tuple[str, str], dict[str, Contrast]] = {}
    for kind, members in kinds.items():
        control, unseen = members.pop(CONTROL, []), members.pop(UNSEEN, [])
        offered = _candidate_control_cells(rows, control, first_cells)
        contrasts = {
            (group, kind): {
                "accuracy_over_control": _row_contrast(rows, own, control, "accuracy", _nothing),
                **_candidate_contrasts(rows, own, offered, first_cells),
            }
            for group, own in members.items()
            if is_injected(group)
        }
        contrasts[CONTROL, kind] = {
            "answer_familiarity": _row_contrast(rows, control, unseen, "logprob", _wording)
        }
        for asked, by_name in contrasts.items():
            if there := {name: contrast for name, contrast in by_name.items() if contrast is not None}:
                found[asked] = there
    return found


def figures(rows: Sequence[Row], figure: str) -> np.ndarray:
    """The rows' figures as numbers, (cells,): one of each row, or of each candidate for
    `candidate_logprobs`; NaN where there is none, which no contrast of the rows reads."""
    if figure == "candidate_logprobs":
        return np.array([value for row in rows for value in row.get(figure) or ()], dtype=float)
    return np.array([np.nan if row[figure] is None else float(row[figure]) for row in rows])


def _first_cells(rows: Sequence[Row]) -> list[int]:
    """Where each row's candidates begin among those of all rows."""
    sizes = [len(row.get("candidate_logprobs") or ()) for row in rows]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()


def _row_contrast(
    rows: Sequence[Row],
    first: Sequence[int],
    second: Sequence[int],
    figure: str,
    key: Callable[[Row], Hashable],
) -> Contrast | None:
    """A figure of the rows `first` against that of the rows `second` with equal keys."""
    there = {index for index in (*first, *second) if rows[index][figure] is not None}
    groups = _control_cells((key(rows[i]), i, cluster_of(rows[i])) for i in second if i in there)
    terms = {i: [(i, 1.0, key(rows[i]))] for i in first if i in there and key(rows[i]) in groups}
    return _contrast(rows, figure, terms, groups)


def _cells(row: Row, first_cell: int) -> list[tuple[Hashable, int]]:
    """(what was asked, cell) of each of a row's candidates, the answer first."""
    texts = row["candidates"] if row.get("candidate_logprobs") else ()
    return [((_wording(row), text), first_cell + place) for place, text in enumerate(texts)]


def _candidate_control_cells(
    rows: Sequence[Row], control: Sequence[int], first_cells: Sequence[int]
) -> _ControlCells:
    """The control cells of each candidate of each wording."""
    return _control_cells(
        (asked, cell, cluster_of(rows[i])) for i in control for asked, cell in _cells(rows[i], first_cells[i])
    )


def _candidate_contrasts(
    rows: Sequence[Row], own: Sequence[int], offered: _ControlCells, first_cells: Sequence[int]
) -> dict[str, Contrast | None]:
    """subject_shift and binding, over the same probes: those whose answer, and at least one other candidate,
    are offered to two control subjects or more by the same wording."""
    shift: dict[int, _Terms] = {}
    binding: dict[int, _Terms] = {}
    for index in own:
        cells = enumerate(_cells(rows[index], first_cells[index]))
        known = [(place, asked, cell) for place, (asked, cell) in cells if asked in offered]
        answer = [(cell, 1.0, asked) for place, asked, cell in known if place == 0]
        others = [(cell, asked) for place, asked, cell in known if place > 0]
        if answer and others:
            shift[index] = [(cell, 1 / len(others), asked) for cell, asked in others]
            binding[index] = answer + [(cell, -1 / len(others), asked) for cell, asked in others]
    return {
        name: _contrast(rows, "candidate_logprobs", terms, offered)
        for name, terms in (("subject_shift", shift), ("binding", binding))
    }


def _control_cells(cells: Iterable[tuple[Hashable, int, Hashable]]) -> _ControlCells:
    """Control cells, (what was asked, cell, subject), by what was asked; without groups of a single subject,
    of whose spread nobody can tell."""
    groups: _ControlCells = defaultdict(list)
    for asked, cell, subject in cells:
        groups[asked].append((cell, subject))
    return {asked: own for asked, own in groups.items() if len({subject for _, subject in own}) > 1}


def _contrast(
    rows: Sequence[Row], figure: str, terms: Mapping[int, _Terms], groups: _ControlCells
) -> Contrast | None:
    """The mean over rows of their `terms`; None where fewer than two subjects have any."""
    subjects, n_subjects = number_clusters([cluster_of(rows[index]) for index in terms])
    if n_subjects < 2:
        return None
    flat = [(*term, probe) for probe, own in enumerate(terms.values()) for term in own]
    cells, weights, keys, probes = zip(*flat, strict=True)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    control = [(cell, numbers[key], who) for key in numbers for cell, who in groups[key]]
    control_cells, control_groups, who = zip(*control, strict=True)
    return Contrast(
        figure,
        cells=np.array(cells),
        weights=np.array(weights),
        groups=np.array([numbers[key] for key in keys]),
        probes=np.array(probes),
        subjects=np.array(subjects),
        control_cells=np.array(control_cells),
        control_groups=np.array(control_groups),
        control_subjects=np.array(number_clusters(who)[0]),
    )


def _nothing(row: Row) -> Hashable:
    return None


def _wording(row: Row) -> Hashable:
    return row["relation"], row.get("template")
