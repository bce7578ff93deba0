"""Kills at random moments, of one process, of two, of one of two, and of a real torchrun."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.trainers.killed import Bench, Command, Outcome
from tests.trainers.kills import Result, Series, check_remedies
from tidy_stlms import configs

TORCHRUN_EVERY = 25  # it imports everything anew, for many seconds
SURVIVAL = 5.0  # seconds that one process may outlive another
BESIDE_END = 1.1  # some kills come when the run has just ended


@dataclass(frozen=True)
class RandomKill:
    command: Command
    seconds: float
    """From the start of the command to the kill."""
    victims: tuple[int, ...] = (0,)
    again: float | None = None
    """Seconds after which the first resume is killed too."""
    torchrun: bool = False

    def __str__(self) -> str:
        launcher = "torchrun" if self.torchrun else f"{self.command.processes} processes"
        again = "" if self.again is None else f", and its resume after {self.again:.2f}"
        ranks = "all" if len(self.victims) == self.command.processes else f"rank {self.victims[0]}"
        how = self.command.how
        return f"random: {launcher}, {how}, {ranks} killed after {self.seconds:.2f} seconds{again}"


def random_kills(number: int, seed: int, usual: Mapping[int, float]) -> list[RandomKill]:
    """The kills that belong to `seed`; `usual` is how long a run of 1 or 2 processes takes."""
    draw = random.Random(seed)
    kills = []
    for index in range(number):
        processes = draw.choice((1, 2))
        both = tuple(range(processes))
        torchrun = index % TORCHRUN_EVERY == TORCHRUN_EVERY - 1
        command = Command(draw.choice(("starts", "starts", "overwrites")), processes=processes)
        seconds = draw.uniform(0, BESIDE_END * usual[processes])
        victims = draw.choice((both, both, both, (draw.choice(both),)))
        again = draw.choice((None, draw.uniform(0, usual[processes])))
        if torchrun:
            command, victims, again = Command(processes=2), (0, 1), None
        kills.append(RandomKill(command, seconds, victims, again, torchrun))
    return kills


def check_random_kill(kill: RandomKill, bench: Bench, whole: Path, old_run: Path) -> list[Result]:
    """Kill, perhaps twice, then try each remedy. `old_run` is what an overwriting command finds."""
    replaces = old_run if kill.command.how == "overwrites" else None
    series = Series("random", kill.command, found=replaces, old_run=replaces)
    series.enter(bench)
    if kill.torchrun:
        outcome = _kill_torchrun(bench, kill.seconds)
    else:
        outcome = _kill(bench, kill.command, kill.seconds, kill.victims)
    if kill.again is not None:
        resume = Command("resumes", kill.command.seed, kill.command.processes)
        second = _kill(bench, resume, kill.again, range(kill.command.processes))
        outcome.saved = max(outcome.saved, second.saved)
    return list(check_remedies(series, bench, outcome, whole, str(kill)))


def _kill(bench: Bench, command: Command, seconds: float, victims: Sequence[int]) -> Outcome:
    """Kill some of the command's processes. A survivor is killed a little later, as torchrun does.

    Most survivors end by themselves before; one whose partner has not joined yet waits for it.
    Returns what the first process has reported, which is the one that saves.
    """
    children = bench.begin(command)
    time.sleep(seconds)
    for rank in victims:
        os.kill(children[rank].pid, signal.SIGKILL)
    deadline = time.monotonic() + SURVIVAL
    while any(child.lives() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    outcomes = [child.wait() for child in children]
    return outcomes[0]


def _kill_torchrun(bench: Bench, seconds: float) -> Outcome:
    """Kill torchrun and the two processes it has started, some time after their run has a folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "tidy_stlms.scripts.train", str(bench.config())]
    path = os.pathsep.join([str(Path(configs.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    with (bench.root / "log").open("a") as log:
        agent = subprocess.Popen(
            command, cwd=bench.work, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )
    while agent.poll() is None and not (bench.work / "run").exists():
        time.sleep(0.01)
    time.sleep(seconds)
    assert (bench.work / "run").exists(), (bench.root / "log").read_text()[-2000:]
    for pid in (agent.pid, *_descendants(agent.pid)):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)
    agent.wait()
    # nothing reports what was saved; the checkpoint before the newest folder surely was
    steps = sorted(int(path.name.rpartition("-")[2]) for path in bench.work.glob("run/checkpoint-*"))
    return Outcome(saved=steps[-2] if len(steps) > 1 else 0)


def _descendants(pid: int) -> list[int]:
    """Processes of torchrun are in sessions of their own, so a process group does not reach them."""
    children = []
    with contextlib.suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]
