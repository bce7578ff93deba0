"""Kills tiny training runs at every file operation and at random moments: nothing may be lost or stuck.

    make fuzz
    python -m tests.fuzz                                 # everything, on all cores
    python -m tests.fuzz first replace --every 10        # two of the series, at every tenth operation
    python -m tests.fuzz random --kills 30 --seed 7

After each kill, on a copy of what it left: a plain start (must refuse and name the remedies, unless there
is nothing to lose), a resume and an overwrite. Both must end equal to the uninterrupted run, bit for bit,
except for figures, timings and training_args.bin. A resume may also refuse if a run that was to be replaced
is whole.
Exits with 1 if a kill lost something. Needs no network and no GPU.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
os.environ.update(TOKENIZERS_PARALLELISM="false")

from tests.trainers.killed import Bench, Command, warm_up
from tests.trainers.kills import Result, Series, check_kill, kills_of
from tests.trainers.operations import Kill
from tests.trainers.random_kills import RandomKill, check_random_kill, random_kills
from tidy_stlms.configs.files import read_jsonl, write_jsonl

FAILURES_SHOWN = 20  # of each series, in full


class Fuzz:
    """The series, and what they share: uninterrupted runs to compare with, and folders to begin with."""

    def __init__(self, root: Path, jobs: int):
        self.root, self.jobs = root, jobs
        self.shared = root / "shared"
        warm_up(self.shared)
        self.benches = [Bench(root / f"bench-{number}", self.shared) for number in range(jobs)]

    def whole(self, command: Command, *, fresh_cache: bool = False) -> Path:
        """The work folder of an uninterrupted run."""
        path = self.shared / f"whole-{command.seed}-{command.processes}-{fresh_cache}"
        if not path.exists():
            series = Series("whole", Command(seed=command.seed, processes=command.processes))
            bench = self.benches[0]
            series.enter(bench)
            bench.use_cache(fresh=fresh_cache)
            outcome = bench.run(series.command)
            assert outcome.end == "finished", outcome.message
            bench.keep(path)
        return path

    def half(self) -> Path:
        """The work folder of a run that was killed when checkpoint-4 had begun."""
        path = self.shared / "half"
        bench = self.benches[0]
        bench.empty()
        bench.use_cache(fresh=False)
        operations = bench.run(Command(), watched=[bench.work]).operations
        bench.empty()
        begun = next(number for number, op in operations.items() if "checkpoint-4" in op.path)
        outcome = bench.run(Command(), Kill(begun + 1), [bench.work])
        assert (outcome.end, outcome.saved) == ("killed", 2)
        return bench.keep(path)

    def series(self, name: str) -> Series:
        if name == "first":
            return Series(name, Command())
        if name == "replace":
            old = self.whole(Command(seed=7))
            return Series(name, Command("overwrites"), found=old, old_run=old)
        if name == "resumed":
            return Series(name, Command("resumes"), found=self.half(), saved=2)
        return Series(name, Command(), fresh_cache=True)

    def kill_at_operations(self, name: str, every: int, seed: int) -> tuple[str, list[Result]]:
        """What was killed, in words, and what followed."""
        series = self.series(name)
        whole = self.whole(series.command, fresh_cache=series.fresh_cache)
        kills = kills_of(series, self.benches[0])
        last = kills[-1].number
        chosen = [kill for kill in kills if kill.number % every == seed % every or kill.number == last]
        results = self.share(lambda bench, kill: check_kill(series, bench, kill, whole), chosen)
        return f"{last - 1} operations, {len(chosen)} kills", results

    def kill_at_random(self, number: int, seed: int) -> tuple[str, list[Result]]:
        wholes, usual = {}, {}
        for processes in (1, 2):
            wholes[processes] = self.whole(Command(processes=processes))
            start = time.monotonic()
            self.benches[0].empty()
            self.benches[0].run(Command(processes=processes))
            usual[processes] = time.monotonic() - start
        kills = random_kills(number, seed, usual)
        old = self.whole(Command(seed=7))

        def check(bench: Bench, kill: RandomKill) -> list[Result]:
            return check_random_kill(kill, bench, wholes[kill.command.processes], old)

        return f"{number} kills", self.share(check, kills)

    def share(self, check: Callable[[Bench, Any], list[Result]], kills: Sequence) -> list[Result]:
        """Do `check(bench, kill)` for all kills, with a process and a bench for each job."""
        workers = []
        for number, bench in enumerate(self.benches):
            file = bench.root / "results.jsonl"
            pid = os.fork()
            if pid == 0:
                try:
                    own = kills[number :: self.jobs]
                    write_jsonl(file, (asdict(result) for kill in own for result in check(bench, kill)))
                    os._exit(0)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                    os._exit(1)
            workers.append((pid, file))
        statuses = [os.waitpid(pid, 0)[1] for pid, _ in workers]
        if any(statuses):
            raise SystemExit("the harness itself has failed, see above")
        return [Result(**row) for _, file in workers for row in read_jsonl(file)]


SERIES = ("first", "replace", "resumed", "cache", "random")


def show(name: str, heading: str, results: list[Result], seconds: float, shown: int | None) -> int:
    """Print a line for the series and its first failures; returns how many there are."""
    failures = [result for result in results if result.failed]
    equal = Counter(result.then for result in results if result.verdict == "equal")
    counts = [f"{equal['resumes']} resumed equal, {equal['overwrites']} overwritten equal"]
    counts += [f"{equal['starts']} started equal"]
    counts += [f"{sum(result.verdict == 'refused' for result in results)} refused rightly"]
    counts += [f"{count} {kind}" for kind, count in Counter(r.verdict for r in failures).most_common()]
    print(f"{name}: {heading}: {', '.join(counts)} ({seconds:.0f} s)", flush=True)
    for failure in failures[:shown]:
        print(f"  {failure}", flush=True)
    if shown is not None and len(failures) > shown:
        print(f"  and {len(failures) - shown} more (--all prints them)", flush=True)
    return len(failures)


def main(argv: list[str] | None = None) -> int:
    cli = argparse.ArgumentParser(prog="tests.fuzz", description=(__doc__ or "").split("\n")[0])
    cli.add_argument("series", nargs="*", metavar="SERIES", help=f"of {', '.join(SERIES)}; default: all")
    cli.add_argument("--every", type=int, default=1, metavar="N", help="kill at every Nth operation")
    cli.add_argument("--kills", type=int, default=100, metavar="N", help="of the series `random`")
    cli.add_argument("--seed", type=int, default=0, help="of the random kills; which of every N operations")
    cli.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    cli.add_argument("--all", action="store_true", help=f"print all failures, not {FAILURES_SHOWN} a series")
    arguments = cli.parse_args(argv)
    if unknown := set(arguments.series) - set(SERIES):
        cli.error(f"no series {', '.join(unknown)}; there are {', '.join(SERIES)}")
    root = Path(tempfile.mkdtemp(prefix="stlm-kills-"))
    failed = 0
    try:
        fuzz = Fuzz(root, arguments.jobs)
        for name in arguments.series or SERIES:
            start = time.monotonic()
            if name == "random":
                heading, results = fuzz.kill_at_random(arguments.kills, arguments.seed)
            else:
                heading, results = fuzz.kill_at_operations(name, arguments.every, arguments.seed)
            shown = None if arguments.all else FAILURES_SHOWN
            failed += show(name, heading, results, time.monotonic() - start, shown)
    finally:
        shutil.rmtree(root)
    print(f"{failed} failures" if failed else "nothing was lost, nothing is stuck")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
