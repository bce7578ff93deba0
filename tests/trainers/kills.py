"""What must hold after a run was killed: whatever the command that follows, nothing is lost and it works.

`tests/fuzz.py` is the command that kills runs at every file operation and at random moments.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trainers.killed import STEPS, Bench, Command, Outcome
from tests.trainers.operations import Kill
from tidy_stlms.eval.run_folder import LOCK

REMEDIES = ("starts", "resumes", "overwrites")
TIMINGS = ("_runtime", "_per_second")
# Pickled with the flag of the resume in it; drawn elsewhere (see `_draw_nothing`).
MAY_DIFFER = ("training_args.bin", "loss.png", "recall.png", "rank_and_bits.png")
# Keys that differ from run to run: its id, hashes of files with timings, a commit made on the way.
OWN_TO_A_RUN = {
    "checkpoint.json": ("run_id", "files", "logs", "sha256"),
    "environment.json": ("run_id", "git_commit"),
}


@dataclass(frozen=True)
class Result:
    """What followed a kill."""

    kill: str
    then: str
    verdict: str
    """`equal`, `refused` (rightly), or a kind of failure"""
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict not in ("equal", "refused")

    def __str__(self) -> str:
        return f"{self.kill}; the command that {self.then}: {self.verdict}: {self.detail}"


@dataclass(frozen=True)
class Series:
    """A command that is killed at all its operations, and the folder that it finds."""

    name: str
    command: Command
    found: Path | None = None
    """The state of the work folder before the command; None is an empty one."""
    saved: int = 0
    """The step of the checkpoint that is there already for the command to go on from."""
    old_run: Path | None = None
    """The finished run that the command replaces."""
    fresh_cache: bool = False
    """The cache lies in the work folder, empty at first; its operations are those that count."""

    def enter(self, bench: Bench) -> None:
        """Lay out what the command finds."""
        bench.take(self.found) if self.found else bench.empty()
        bench.use_cache(fresh=self.fresh_cache)

    def watched(self, bench: Bench) -> list[Path]:
        return [bench.work / "cache"] if self.fresh_cache else [bench.work]


def kills_of(series: Series, bench: Bench) -> list[Kill]:
    """Every kill of the series. The last one comes after the last operation: the run ends by itself."""
    series.enter(bench)
    outcome = bench.run(series.command, watched=series.watched(bench))
    assert outcome.end == "finished", outcome.message
    kills = []
    for number, operation in outcome.operations.items():
        kills.append(Kill(number))
        if operation.grown > 0:
            kills += [Kill(number, "half")]
            # an empty temporary file is as unread as half of one
            kills += [] if Path(operation.path).name.startswith(".") else [Kill(number, "begun")]
    return [*kills, Kill(len(outcome.operations) + 1)]


def check_kill(series: Series, bench: Bench, kill: Kill, whole: Path) -> list[Result]:
    """Kill the command, then try each remedy on a copy of what is left."""
    series.enter(bench)
    outcome = bench.run(series.command, kill, series.watched(bench))
    if kill.moment != "before":  # what was reported since would not have happened yet
        outcome.saved = outcome.saved_before.get(kill.number, outcome.saved)
    when = {"before": "before", "begun": "at the beginning of", "half": "in the middle of"}[kill.moment]
    told = f"{series.name}: killed {when} {outcome.killed_at}"
    if outcome.end == "finished":
        told = f"{series.name}: ended"
    elif outcome.end != "killed":
        return [Result(f"{series.name}: kill {kill}", "was to be killed", outcome.end, outcome.message)]
    return list(check_remedies(series, bench, outcome, whole, told))


def check_remedies(
    series: Series, bench: Bench, outcome: Outcome, whole: Path, told: str
) -> Iterator[Result]:
    """Try each remedy on a copy of what the killed command left."""
    state = bench.keep(bench.root / "state")
    for remedy in REMEDIES:
        bench.take(state)
        command = Command(remedy, series.command.seed, series.command.processes)
        after = bench.run(command)
        verdict = judge(series, bench, state, outcome, command, after, whole)
        if remedy == "resumes" and verdict[0] == "equal":
            # what it left can be resumed too, and has nothing more to train
            verdict = judge(series, bench, state, Outcome(saved=STEPS), command, bench.run(command), whole)
        yield Result(told, remedy, *verdict)


def judge(
    series: Series,
    bench: Bench,
    state: Path,
    killed: Outcome,
    command: Command,
    after: Outcome,
    whole: Path,
) -> tuple[str, str]:
    """The verdict on what `command` has made of `state`, and its reason. `whole` is the uninterrupted run."""
    old_is_whole = series.old_run is not None and contents(series.old_run).items() <= contents(state).items()
    saved = max(killed.saved, series.saved)
    if after.end == "refused":
        if changed := _changed(state, bench.work):
            return "refused with changes", f"{', '.join(changed)}: {after.message}"
        if command.how == "starts":
            named = all(remedy in after.message for remedy in ("--overwrite", "resume_from_checkpoint"))
            return ("refused", "") if named else ("no remedy named", after.message)
        return ("refused", "") if command.how == "resumes" and old_is_whole else ("stuck", after.message)
    if after.end != "finished":
        return after.end, after.message  # crashed or hung
    if command.how == "starts" and (saved or old_is_whole):
        return "run lost", "started, with a run in the folder"
    if command.how == "resumes" and old_is_whole:
        return "run lost", "resumed from nothing, with a finished other run in the folder"
    if command.how == "resumes" and after.steps > STEPS - saved:
        return "steps lost", f"trained {after.steps} steps, with a checkpoint at {saved}"
    return next(differences(bench.work, whole), ("equal", ""))


def differences(work: Path, whole: Path) -> Iterator[tuple[str, str]]:
    """What distinguishes a run from an uninterrupted one, timings aside, the gravest first."""
    found, expected = _paths(work), _paths(whole)
    if missing := sorted(expected - found):
        yield "files lost", ", ".join(missing)
    for name in sorted(expected & found, key=lambda name: (not name.endswith(".safetensors"), name)):
        if (whole / name).is_file() and _content(work / name) != _content(whole / name):
            yield "bits lost", f"{name}: other content"
    if left := sorted(found - expected):
        yield "left over", ", ".join(left)
    for name in sorted(expected & found):
        modes = [(folder / name).stat().st_mode & 0o777 for folder in (work, whole)]
        if modes[0] != modes[1]:
            yield "other permissions", f"{name}: {modes[0]:o}, not {modes[1]:o}"


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder with a hash of each, the lock aside."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else ""
        for name in _paths(folder)
    }


def _changed(state: Path, work: Path) -> list[str]:
    """What a command has changed that refused to run. It may have removed temporary files."""
    before, after = contents(state), contents(work)
    names = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    return sorted(
        name for name in names if name in after or not any(part[0] == "." for part in Path(name).parts)
    )


def _paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != LOCK}


def _content(path: Path) -> Any:
    """What must be equal of a file."""
    if path.name in MAY_DIFFER:
        return None
    if path.name in ("summary.json", "trainer_state.json"):
        return _without_timings(json.loads(path.read_text(encoding="utf-8")))
    if path.name in OWN_TO_A_RUN:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in values.items() if key not in OWN_TO_A_RUN[path.name]}
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_without_timings(json.loads(line)) if line else line for line in lines]
    return path.read_bytes()


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_timings(item) for key, item in value.items() if not key.endswith(TIMINGS)}
    return [_without_timings(item) for item in value] if isinstance(value, list) else value
