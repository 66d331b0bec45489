"""
Fleets of environments against one database: lambdadb's back-off beside what others do, simulated.

Each row is a situation, each cell what one client made of it: the seconds until the last session (from
the end of the resume, if there was one), the attempts beyond one for each session, and the most attempts
in a second. Each is the median of some fleets, which differ in their random numbers: the starts, the
resume (13 to 17 s), the work and the pauses. The least and the most seconds are shown where they differ
by a fifth and a second. The decisions of lambdadb are its own code, in virtual time.

    nox -s fleet                       # about five minutes on two processors
    nox -s fleet -- --write            # also renews the table of docs/fleets.md
    nox -s fleet -- --most 300         # only fleets up to this size
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lambdadb.lab.fleet.clients import CLIENTS
from lambdadb.lab.fleet.report import Row, row_of, simulate
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetSettings

PAGE = Path(__file__).parent.parent / "docs" / "fleets.md"
BEGIN, END = "<!-- nox -s fleet -- --write -->", "<!-- end -->"
NAMES = [name for name in CLIENTS if name != "no retry"]
RESUMES = (13.0, 17.0)


@dataclass(frozen=True)
class Situation:
    """A fleet and its database."""

    environments: int
    slots: int
    database: str
    """`held`, `held unseen` or `refused` until the end of a resume; or `awake`."""
    work: float
    processors: int = 2

    def fleet(self, seed: int) -> FleetSettings:
        """All start in 1 s if it is awake; else 100 in a second, or all in 10 s if they are more."""
        seconds = 1.0 if self.database == "awake" else 10.0 * min(self.environments / 1000.0, 1.0)
        return FleetSettings(
            environments=self.environments,
            starts_per_second=self.environments / seconds,
            timeout=120.0,
            work=self.work,
            seed=seed,
        )

    def server(self, seed: int) -> ServerSettings:
        """Its slots and processors, paused unless it is awake."""
        shapes = {"held": "hold", "held unseen": "hold-unseen", "refused": "refuse", "awake": "hold"}
        return ServerSettings(
            slots=self.slots,
            processors=self.processors,
            resume=None if self.database == "awake" else Random(seed).uniform(*RESUMES),
            shape=shapes[self.database],
        )


SITUATIONS = [
    Situation(60, 40, "held", 0.05),
    Situation(60, 40, "awake", 5.0),
    Situation(300, 189, "held", 0.05),
    Situation(300, 189, "held", 5.0),
    Situation(300, 189, "awake", 5.0),
    Situation(1000, 189, "held", 0.05),
    Situation(1000, 189, "held unseen", 0.05),
    Situation(1000, 189, "refused", 0.05),
    Situation(1000, 189, "awake", 0.05),
    Situation(1000, 189, "held", 5.0),
    Situation(1000, 189, "awake", 5.0),
    Situation(10000, 2000, "held", 0.05, processors=8),
    Situation(10000, 2000, "awake", 0.05, processors=8),
]


def run(job: tuple[Situation, str, int]) -> Row:
    """One client in one situation, with the random numbers of a seed."""
    situation, client, seed = job
    return row_of(simulate(situation.fleet(seed), situation.server(seed), client, "per-invocation"))


def cell(rows: list[Row]) -> str:
    """What the table says of one client."""
    failed = round(statistics.median(row.failed for row in rows))
    seconds = [row.after_resume for row in rows]
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    spread = f" ({least:.1f}-{most:.1f})" if most - least > max(1.0, middle / 5.0) else ""
    wasted = statistics.median(row.wasted for row in rows)
    peak = statistics.median(row.peak_attempts for row in rows)
    return (
        f"**{failed:,} fail**, " if failed else ""
    ) + f"{middle:.1f} s{spread}, {wasted:,.0f}, {peak:,.0f}"


def lines_of(situations: list[Situation], rows: list[Row], seeds: int) -> list[str]:
    """The table of the page."""
    lines = ["| environments, slots | database | a session is used for | " + " | ".join(NAMES) + " |"]
    lines.append("|---" * (3 + len(NAMES)) + "|")
    left = iter(rows)
    for one in situations:
        facts = [f"{one.environments:,}, {one.slots:,}", one.database, f"{one.work:g} s"]
        lines.append(
            "| " + " | ".join([*facts, *(cell(list(islice(left, seeds))) for _ in NAMES)]) + " |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--most", type=int, default=10**6, help="environments of the largest fleet")
    parser.add_argument("--seeds", type=int, default=5, help="fleets of each row and client")
    parser.add_argument("--write", action="store_true", help="renew the table of docs/fleets.md")
    options = parser.parse_args()
    situations = [one for one in SITUATIONS if one.environments <= options.most]
    seeds = range(1, options.seeds + 1)
    jobs = [(situation, name, seed) for situation in situations for name in NAMES for seed in seeds]
    with ProcessPoolExecutor() as executor, Progress(console=Console(stderr=True)) as progress:
        rows = list(progress.track(executor.map(run, jobs), total=len(jobs), description="fleets"))
    lines = lines_of(situations, rows, options.seeds)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]]))
    table = Table(title="Seconds until the last session, wasted attempts, most attempts in a second")
    for name in lines[0].strip("| ").split(" | "):
        table.add_column(name)
    for line in lines[2:]:
        table.add_row(*line.strip("| ").replace("**", "").split(" | "))
    console = Console()
    Console(width=max(console.width, 180)).print(table)


if __name__ == "__main__":
    main()
