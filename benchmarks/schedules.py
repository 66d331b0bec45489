"""
Random fleets on random databases, in virtual time: nobody is lost, doubled, or left waiting.

Each schedule draws up to ten environments with up to four invocations each, their pace and work, and a
database: its slots, its resume and what it does until then. lambdadb's own code makes the connects. Each
invocation must be served or fail, once. No more sessions are open than there are slots, and none in the
end. No invocation waits while a slot is free, but for the pauses between its attempts: 7 s at most.

    nox -s schedules                              # 1,000,000 schedules, about an hour
    nox -s schedules -- --count 10000 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from random import Random, SystemRandom

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from lambdadb import PerEnvironment, PerInvocation
from lambdadb.lab.fleet.clients import CLIENTS
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetSettings, Simulation

BATCH = 500
REPORT = 20_000  # schedules between two lines of a log, where no terminal shows the progress
NEGLECT = 7.0
"""Seconds: the longest pause of a connect that may take 60 s, and its login."""


def find_fault(random: Random) -> str | None:
    """Run one schedule; what it broke, with its settings."""
    fleet = FleetSettings(
        environments=random.randint(1, 10),
        invocations=random.randint(1, 4),
        starts_per_second=10 ** random.uniform(-1.0, 3.0),
        interval=10 ** random.uniform(-2.0, 2.0),
        timeout=random.choice([10.0, 30.0, 60.0]),
        work=10 ** random.uniform(-3.0, 1.0),
        seed=random.getrandbits(32),
    )
    server = ServerSettings(
        slots=random.randint(1, 8),
        processors=random.randint(1, 4),
        resume=random.choice([None, random.uniform(0.0, 40.0)]),
        shape=random.choice(["hold", "hold-unseen", "refuse"]),
    )
    policy = random.choice([PerEnvironment, PerInvocation])(
        idle_session_timeout=random.uniform(1.0, 60.0)
    )
    simulation = Simulation(fleet, server, CLIENTS["lambdadb"], policy)
    result = simulation.run()
    promises = {
        "an invocation is lost or doubled": (
            result.served + result.failed == fleet.environments * fleet.invocations
        ),
        "an attempt is lost or doubled": result.attempts == result.wasted + result.connects,
        "more sessions than slots": result.peak_sessions <= server.slots,
        "a session is left": simulation.server.sessions == 0,
        f"neglected for {result.neglected:.1f} s": result.neglected <= NEGLECT,
    }
    broken = [name for name, kept in promises.items() if not kept]
    return f"{', '.join(broken)}: {fleet} {server} {policy}" if broken else None


def run(batch: tuple[int, int]) -> tuple[int, list[str]]:
    """Run some schedules; how many, and what they broke."""
    seed, count = batch
    random = Random(seed)
    return count, [fault for _ in range(count) if (fault := find_fault(random)) is not None]


def batches(seed: int, count: int) -> Iterable[tuple[int, int]]:
    """Seeds and sizes."""
    for number, start in enumerate(range(0, count, BATCH)):
        yield seed + number, min(BATCH, count - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="how many schedules")
    parser.add_argument("--seed", type=int, help="the first batch's; printed at the start")
    options = parser.parse_args()
    seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}")
    faults: list[str] = []
    done = 0
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    with (
        ProcessPoolExecutor() as executor,
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("schedules", total=options.count)
        for count, found in executor.map(run, batches(seed, options.count)):
            faults += found
            done += count
            progress.update(task, completed=done)
            if not console.is_terminal and done % REPORT == 0:
                console.print(f"{done:,} schedules, {len(faults):,} with a fault")
    for fault in itertools.islice(faults, 10):
        print(fault)
    print(f"{done:,} schedules, {len(faults):,} with a fault")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
