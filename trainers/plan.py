"""The injection plan: which statement of which fact stands at which position of training.

A plan is data, made before training by the pure function `make_plan` and saved with the run as Parquet, a
line for each exposure: `position, step, statement_id, fact_ids, exposure`. `injection.py` decides how often
each unit is exposed, this file at which positions and in which wordings; the collator only carries the plan
out. Exposures are exact: a unit with 16 exposures is seen 16 times, or the plan is refused.

Statements of the same facts (the wordings of one fact) form a *unit*. A unit has a number of exposures.
Its wordings take turns, so that each is seen equally often (give or take one).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import write_whole

# End-of-text tokens that a spliced statement may bring along, one on each side.
SEPARATORS = 2


@dataclass(frozen=True)
class Unit:
    """The wordings of one fact, or of one passage about several facts."""

    fact_ids: tuple[str, ...]
    statement_ids: tuple[str, ...]
    num_tokens: tuple[int, ...]
    """Length of each statement in tokens, end-of-text not counted."""


@dataclass(frozen=True)
class InjectionPlan:
    """Exposures sorted by position; `positions[i]` holds statement `statement_ids[i]`.

    Positions are global: they count the rows of the whole run, over all processes, passes and resumes. So a
    plan says what a step sees without knowing how the run is carried out.
    """

    positions: np.ndarray  # (exposures,) int64, ascending
    statement_ids: tuple[str, ...]
    fact_ids: tuple[tuple[str, ...], ...]
    exposure: np.ndarray  # (exposures,) int64: its number among the exposures of its unit, from 1
    rows_per_step: int

    @cached_property
    def by_position(self) -> dict[int, list[str]]:
        """Statement ids at each position that has any."""
        result: dict[int, list[str]] = defaultdict(list)
        for position, statement_id in zip(self.positions.tolist(), self.statement_ids, strict=True):
            result[position].append(statement_id)
        return dict(result)

    @property
    def steps(self) -> np.ndarray:
        """The optimizer step (from 0) that sees each exposure."""
        return self.positions // self.rows_per_step

    def table(self) -> pa.Table:
        """A line for each exposure; `rows_per_step` in the metadata. Steps count from 0."""
        return pa.table(
            {
                "position": self.positions,
                "step": self.steps,
                "statement_id": pa.array(self.statement_ids, pa.string()),
                "fact_ids": pa.array([list(f) for f in self.fact_ids], pa.list_(pa.string())),
                "exposure": self.exposure,
            }
        ).replace_schema_metadata({"rows_per_step": str(self.rows_per_step)})

    def save(self, path: str | Path) -> None:
        """Write the table as Parquet, whole. `eval.run_folder.read_plan` reads it."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table(), sink)
        write_whole(path, sink.getvalue().to_pybytes())


def units_of(statements: Iterable[tuple[str, tuple[str, ...], int, str]]) -> list[Unit]:
    """Group `(statement_id, fact_ids, num_tokens, kind)` by facts, both in order of appearance.

    Questions with their answers (kind `qa`) make units apart from the texts that state the same facts.

    Raises UserError if a fact belongs to two units of texts, or to two of questions: it would be seen
    more often than planned.
    """
    groups: dict[tuple[bool, tuple[str, ...]], list[tuple[str, int]]] = defaultdict(list)
    for statement_id, fact_ids, num_tokens, kind in statements:
        groups[kind == "qa", tuple(fact_ids)].append((statement_id, num_tokens))
    first_statements: dict[tuple[bool, str], str] = {}
    for (is_question, fact_ids), wordings in groups.items():
        for fact_id in fact_ids:
            if (first := first_statements.get((is_question, fact_id))) is not None:
                raise UserError(
                    f"fact {fact_id}: stands in {first} and in {wordings[0][0]}, which tell "
                    "different sets of facts, so its exposures could not be exact; keep one kind of statement"
                )
            first_statements[is_question, fact_id] = wordings[0][0]
    return [
        Unit(fact_ids, tuple(s for s, _ in wordings), tuple(n for _, n in wordings))
        for (_, fact_ids), wordings in groups.items()
    ]


def exposures_for_fraction(units: Sequence[Unit], fraction: float, total_tokens: int) -> int:
    """The exposures of each unit that bring injected tokens nearest to `fraction` of `total_tokens`.

    Raises UserError if it is 0.
    """
    per_round = sum(float(np.mean(unit.num_tokens)) for unit in units)  # tokens if each unit is seen once
    exposures = round(fraction * total_tokens / per_round)
    if exposures < 1:
        raise UserError(
            f"injection.fraction={fraction}: is less than one exposure a fact "
            f"({per_round / total_tokens:.2g} of the training tokens); raise it, train longer or take "
            "fewer facts"
        )
    return exposures


def make_plan(
    units: Sequence[Unit],
    *,
    exposures: int | Sequence[int],
    total_rows: int,
    rows_per_pass: int,
    rows_per_step: int,
    context_window: int,
    strategy: str = "uniform",
    span: str = "run",
    window: float = 0.25,
    placement: str = "splice",
    seed: int = 0,
) -> InjectionPlan:
    """Place every unit `exposures` times (or each its own number of times) on the rows 0 .. total_rows - 1.

    `uniform` puts exposure k of E into the k-th of E equal parts of the span, at a phase that only this
    unit has; `random` draws rows without replacement; `start` and `end` are `uniform` within the first or
    last `window` of the span. With `span="pass"` each pass over the corpus is a span of its own, and
    exposures are shared among the passes by their length. A row that is full, or that has the same unit
    already, passes an exposure on to the next row of the span with room; after the last row comes the first.

    Raises UserError if a statement is longer than a row or the exposures do not fit.
    """
    if span not in ("run", "pass"):
        raise ValueError(f"unknown span {span!r}")
    _check_lengths(units, context_window)
    counts = [exposures] * len(units) if isinstance(exposures, int) else list(exposures)
    spans = _spans(total_rows, rows_per_pass if span == "pass" else total_rows, strategy, window)
    shares = [_shares(count, [stop - start for start, stop in spans]) for count in counts]  # [unit][span]
    phases = np.random.default_rng([seed, 0]).permutation(len(units))
    placed: list[tuple[int, int]] = []  # (position, unit)
    for number, (start, stop) in enumerate(spans):
        rng = np.random.default_rng([seed, 1, number])
        wanted = _wanted_rows([share[number] for share in shares], stop - start, strategy, phases, rng)
        rows = _fit(units, wanted, stop - start, placement, context_window, sum(counts))
        placed += [(start + row, unit) for row, unit in rows]
    placed.sort()

    statement_ids, exposure = _choose_wordings(units, placed, seed)
    return InjectionPlan(
        positions=np.array([position for position, _ in placed], dtype=np.int64),
        statement_ids=tuple(statement_ids),
        fact_ids=tuple(units[unit].fact_ids for _, unit in placed),
        exposure=np.array(exposure, dtype=np.int64),
        rows_per_step=rows_per_step,
    )


def _check_lengths(units: Sequence[Unit], context_window: int) -> None:
    """Refuse a statement that does not fit into a row: a part of it would not state the fact."""
    for unit in units:
        for statement_id, length in zip(unit.statement_ids, unit.num_tokens, strict=True):
            if length + SEPARATORS > context_window:
                raise UserError(
                    f"statement {statement_id}: {length} tokens and {SEPARATORS} end-of-text do not fit into "
                    f"a row of {context_window}; raise data.context_window or shorten the statement"
                )


def _spans(total_rows: int, length: int, strategy: str, window: float) -> list[tuple[int, int]]:
    """The rows that exposures are spread over, as [start, stop)."""
    spans = []
    for begin in range(0, total_rows, length):
        stop = min(begin + length, total_rows)
        part = max(1, round((stop - begin) * window))
        if strategy == "start":
            spans.append((begin, begin + part))
        elif strategy == "end":
            spans.append((stop - part, stop))
        elif strategy in ("uniform", "random"):
            spans.append((begin, stop))
        else:
            raise ValueError(f"unknown strategy {strategy!r}")
    return spans


def _shares(exposures: int, lengths: list[int]) -> list[int]:
    """Split `exposures` over the spans in proportion to their lengths.

    Rounds the running sum, not each share, so that the shares always add up to `exposures`.
    """
    edges = [exposures * rows // sum(lengths) for rows in np.cumsum(lengths).tolist()]
    return [after - before for before, after in zip([0, *edges], edges, strict=False)]


def _wanted_rows(
    shares: list[int], num_rows: int, strategy: str, phases: np.ndarray, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """`(row, unit)` of each exposure in a span of `num_rows`, before rows are full. Sorted."""
    wanted: list[tuple[int, int]] = []
    for unit, share in enumerate(shares):
        # more exposures than rows cannot be drawn without replacement: `_fit` refuses them
        if strategy == "random" and share <= num_rows:
            rows = np.sort(rng.choice(num_rows, share, replace=False))  # (share,)
        else:
            # each unit has a phase of its own. Otherwise all units would want the same rows
            phase = (phases[unit] + 0.5) / len(shares)  # in (0, 1)
            rows = np.floor((np.arange(share) + phase) * num_rows / max(share, 1)).astype(np.int64)
        wanted += [(row, unit) for row in rows.tolist()]
    return sorted(wanted)


def _fit(
    units: Sequence[Unit],
    wanted: list[tuple[int, int]],
    num_rows: int,
    placement: str,
    context_window: int,
    total_exposures: int,
) -> list[tuple[int, int]]:
    """Give every exposure a row with room: the wanted one, or the next after it.

    A plan that does not fit is refused. With some exposures left out, the numbers of exposures would not be
    those that the config names and that results are compared by.
    """
    # a spliced unit needs room for its longest wording, as wordings are chosen later
    splices = placement == "splice"
    sizes = [max(unit.num_tokens) + SEPARATORS if splices else 1 for unit in units]
    capacity = context_window if splices else 1
    used: dict[int, int] = defaultdict(int)  # by row, only rows in use: a run has millions
    units_in_row: dict[int, set[int]] = defaultdict(set)
    placed: list[tuple[int, int]] = []
    for wanted_row, unit in wanted:
        for distance in range(num_rows):
            row = (wanted_row + distance) % num_rows
            if used[row] + sizes[unit] <= capacity and unit not in units_in_row[row]:
                break
        else:
            remedy = ", or use injection.placement=splice" if placement == "row" else ""
            needed, there = sum(sizes[unit] for _, unit in wanted), num_rows * capacity
            tokens = f" (they take {needed:,} tokens of {there:,})" if splices and needed > there else ""
            raise UserError(
                f"injection.exposures: {total_exposures} exposures of {len(units)} facts do not fit into the "
                f"{num_rows} rows they may stand in{tokens}; lower them, train longer, widen "
                f"injection.window{remedy}"
            )
        used[row] += sizes[unit]
        units_in_row[row].add(unit)
        placed.append((row, unit))
    return placed


def _choose_wordings(
    units: Sequence[Unit], placed: list[tuple[int, int]], seed: int
) -> tuple[list[str], list[int]]:
    """The statement of each placed exposure, and its number among those of its unit, from 1.

    The wordings of a unit take turns. The first one is drawn. Otherwise every unit would begin with the same
    wording, such as the bank's first template.
    """
    first = np.random.default_rng([seed, 2]).integers(0, 1 << 30, len(units)).tolist()
    seen = [0] * len(units)
    statement_ids, exposure = [], []
    for _, unit in placed:
        wordings = units[unit].statement_ids
        statement_ids.append(wordings[(first[unit] + seen[unit]) % len(wordings)])
        seen[unit] += 1
        exposure.append(seen[unit])
    return statement_ids, exposure
