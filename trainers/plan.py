"""The injection plan: which statement of which fact stands at which position of training.

A plan is data, made before training by the pure function `make_plan` and saved with the run as
Parquet, a row for each exposure: `position, step, unit, statement_id, fact_ids, exposure`. Exposures are
exact: a fact with 16 planned exposures is seen 16 times, or the plan is refused.

Statements that tell the same facts (the wordings of one fact) form a *unit*. A unit has a number of
exposures and takes its wordings in turn, so that each is seen equally often (give or take one).
"""

import hashlib
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
    """Exposures sorted by position; `positions[i]` holds statement `statement_ids[i]`."""

    positions: np.ndarray  # (exposures,) int64, ascending
    statement_ids: tuple[str, ...]
    fact_ids: tuple[tuple[str, ...], ...]
    exposure: np.ndarray  # (exposures,) int64: the how-manieth of its unit, from 1
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

    def exposures_of(self) -> dict[str, int]:
        """How often each fact is seen."""
        counts: dict[str, int] = defaultdict(int)
        for facts in self.fact_ids:
            for fact_id in facts:
                counts[fact_id] += 1
        return dict(counts)

    def table(self) -> pa.Table:
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
        sink = pa.BufferOutputStream()
        pq.write_table(self.table(), sink)
        write_whole(path, sink.getvalue().to_pybytes())

    @classmethod
    def load(cls, path: str | Path) -> "InjectionPlan":
        table = pq.read_table(path)
        return cls(
            positions=table["position"].to_numpy(),
            statement_ids=tuple(table["statement_id"].to_pylist()),
            fact_ids=tuple(tuple(f) for f in table["fact_ids"].to_pylist()),
            exposure=table["exposure"].to_numpy(),
            rows_per_step=int(table.schema.metadata[b"rows_per_step"]),
        )

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(f"{self.rows_per_step}\n".encode())
        for position, statement_id in zip(self.positions.tolist(), self.statement_ids, strict=True):
            digest.update(f"{position} {statement_id}\n".encode())
        return digest.hexdigest()


def units_of(statements: Iterable[tuple[str, tuple[str, ...], int, str]]) -> list[Unit]:
    """Group `(statement_id, fact_ids, num_tokens, kind)` by facts, both in order of appearance.

    Questions with their answers (kind `qa`) make units apart from the texts that tell the same facts.

    Raises UserError if a fact belongs to two units of texts, or to two of questions: it would be seen
    more often than planned.
    """
    groups: dict[tuple[bool, tuple[str, ...]], list[tuple[str, int]]] = defaultdict(list)
    for statement_id, fact_ids, num_tokens, kind in statements:
        groups[kind == "qa", tuple(fact_ids)].append((statement_id, num_tokens))
    told: dict[tuple[bool, str], str] = {}
    for (asked, facts), wordings in groups.items():
        for fact_id in facts:
            if (asked, fact_id) in told:
                raise UserError(
                    f"fact {fact_id}: stands in {told[asked, fact_id]} and in {wordings[0][0]}, which tell "
                    "different sets of facts, so its exposures could not be exact; keep one kind of statement"
                )
            told[asked, fact_id] = wordings[0][0]
    return [
        Unit(facts, tuple(s for s, _ in wordings), tuple(n for _, n in wordings))
        for (_, facts), wordings in groups.items()
    ]


def exposures_for_fraction(units: Sequence[Unit], fraction: float, total_tokens: int) -> int:
    """The exposures a unit that bring injected tokens nearest to `fraction` of all.

    Raises UserError if that is none at all.
    """
    per_round = sum(float(np.mean(unit.num_tokens)) for unit in units)
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

    `uniform` gives exposure k of E a place in the k-th of E equal parts of the span, at a phase of
    the unit's own; `random` draws rows without replacement; `start` and `end` are `uniform` within
    the first or last `window` of the span. With `span="pass"` each pass over the corpus is a span of
    its own, and exposures are shared among the passes by their length. A row that is full, or that
    already tells the same fact, hands an exposure on to the nearest later row of the span with room
    (round to its beginning if there is none).

    Raises UserError if a statement is longer than a row or the exposures do not fit.
    """
    capacity = context_window if placement == "splice" else 1
    for unit in units:
        for statement_id, length in zip(unit.statement_ids, unit.num_tokens, strict=True):
            if length + SEPARATORS > context_window:
                raise UserError(
                    f"statement {statement_id}: {length} tokens and {SEPARATORS} end-of-text do not fit into "
                    f"a row of {context_window}; raise data.context_window or shorten the statement"
                )

    counts = [exposures] * len(units) if isinstance(exposures, int) else list(exposures)
    spans = _spans(total_rows, rows_per_pass if span == "pass" else total_rows, strategy, window)
    lengths = [stop - start for start, stop in spans]
    shares = [_shares(count, lengths) for count in counts]  # by unit, then by span
    phases = np.random.default_rng([seed, 0]).permutation(len(units))
    placed: list[tuple[int, int]] = []  # (position, unit)
    for number, (start, stop) in enumerate(spans):
        share = [own[number] for own in shares]
        wanted = _wanted(share, start, stop, strategy, phases, [seed, 1, number])
        placed += _fit(units, wanted, start, stop, capacity, placement, sum(counts))
    placed.sort()

    turn = np.random.default_rng([seed, 2]).integers(0, 1 << 30, len(units)).tolist()
    seen = [0] * len(units)
    statement_ids, ordinals = [], []
    for _, index in placed:
        wordings = units[index].statement_ids
        statement_ids.append(wordings[(turn[index] + seen[index]) % len(wordings)])
        seen[index] += 1
        ordinals.append(seen[index])
    return InjectionPlan(
        positions=np.array([position for position, _ in placed], dtype=np.int64),
        statement_ids=tuple(statement_ids),
        fact_ids=tuple(units[unit].fact_ids for _, unit in placed),
        exposure=np.array(ordinals, dtype=np.int64),
        rows_per_step=rows_per_step,
    )


def _spans(total_rows: int, length: int, strategy: str, window: float) -> list[tuple[int, int]]:
    """The stretches of rows that are used, [start, stop)."""
    spans = []
    for begin in range(0, total_rows, length):
        stop = min(begin + length, total_rows)
        part = max(1, round((stop - begin) * window))
        if strategy == "start":
            spans.append((begin, begin + part))
        elif strategy == "end":
            spans.append((stop - part, stop))
        else:
            spans.append((begin, stop))
    return spans


def _shares(exposures: int, lengths: list[int]) -> list[int]:
    """Split `exposures` over the spans in proportion to their lengths, exactly."""
    edges = [exposures * reached // sum(lengths) for reached in np.cumsum(lengths).tolist()]
    return [after - before for before, after in zip([0, *edges], edges, strict=False)]


def _wanted(
    shares: list[int], start: int, stop: int, strategy: str, phases: np.ndarray, seed: list[int]
) -> list[tuple[int, int]]:
    """The row that each exposure would like, and its unit: sorted by row, then by unit."""
    rows = stop - start
    rng = np.random.default_rng(seed)
    wanted: list[tuple[int, int]] = []
    for unit, share in enumerate(shares):
        if strategy == "random" and share <= rows:
            own = np.sort(rng.choice(rows, share, replace=False))
        else:
            phase = (phases[unit] + 0.5) / len(shares)  # in (0, 1)
            own = np.floor((np.arange(share) + phase) * rows / max(share, 1)).astype(np.int64)
        wanted += [(start + row, unit) for row in own.tolist()]
    return sorted(wanted)


def _fit(
    units: Sequence[Unit],
    wanted: list[tuple[int, int]],
    start: int,
    stop: int,
    capacity: int,
    placement: str,
    exposures: int,
) -> list[tuple[int, int]]:
    """Give every exposure a row with room, the wanted one or the next after it."""
    used: dict[int, int] = defaultdict(int)  # by row, only those in use: a run has millions
    sizes = [max(unit.num_tokens) + SEPARATORS if placement == "splice" else 1 for unit in units]
    standing: dict[int, set[int]] = defaultdict(set)  # units by row
    placed: list[tuple[int, int]] = []
    for liked, unit in wanted:
        row = liked - start
        for step in range(stop - start):
            candidate = (row + step) % (stop - start)
            if used[candidate] + sizes[unit] <= capacity and unit not in standing[candidate]:
                break
        else:
            remedy = ", or use injection.placement=splice" if placement == "row" else ""
            raise UserError(
                f"injection.exposures: {exposures} exposures of {len(units)} facts do not fit into the "
                f"{stop - start} rows they may stand in; lower them, train longer, widen "
                f"injection.window{remedy}"
            )
        used[candidate] += sizes[unit]
        standing[candidate].add(unit)
        placed.append((start + candidate, unit))
    return placed
