"""
`lambdadb advise` beside what was measured: the benchmark's cold cluster, and 200 real processes.

The paused share is measured between whole intervals, on the emulated cluster. The server's sessions are
counted every 20 ms. What the model needs besides (how long an invocation took) is measured in the
same run. Idle time passes faster; connects, resumes and statements take their real time.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.bench.config import AUTO_PAUSE, INTERVAL, BenchConfig
from lambdadb.lab.bench.runner import Bench
from lambdadb.lab.bench.summary import cells
from lambdadb.lab.clock import LabClock
from lambdadb.lab.environment import Environment
from lambdadb.lab.postgres import Postgres
from lambdadb.operate.cost_model import Capacity, Choice, Workload, predict, read_prices

PAGE = Path(__file__).parents[1] / "docs" / "advise.md"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
POLICIES = (Choice.PER_INVOCATION, Choice.PER_ENVIRONMENT)
CELLS = {"per_invocation": Choice.PER_INVOCATION, "per_environment": Choice.PER_ENVIRONMENT}
PRICES = read_prices()
RESUME, PAUSE, IDLE = 15.0, 300.0, 60.0
EVERY, HOLD, ROUNDS, SPEED = 1200.0, 8.0, 3, 60.0
TOLERANCE = 0.05


@dataclass(frozen=True)
class Row:
    """A figure, predicted and measured."""

    run: str
    what: str
    predicted: float
    measured: float
    percent: bool = False

    @property
    def difference(self) -> float:
        """Relative to what was measured."""
        return abs(self.predicted - self.measured) / self.measured if self.measured else self.predicted

    def cells(self) -> list[str]:
        """A row of the table."""
        both = (self.predicted, self.measured)
        shown = [f"{value:.1%}" if self.percent else f"{value:.0f}" for value in both]
        return [self.run, self.what, *shown, f"{self.difference:.1%}"]


def from_the_benchmark(rounds: int) -> list[Row]:
    """The cold cluster of `lambdadb bench`: an invocation every 12 minutes, a pause after 7."""
    config = BenchConfig(rounds=rounds, steady=False)
    with Bench(config) as running:
        records = list(running.records())
    rows = []
    for cell in cells(records):
        if cell.aurora_type != "cold" or cell.policy not in CELLS:
            continue
        assert not cell.errors
        assert cell.paused_share is not None
        assert cell.elapsed_median is not None
        workload = Workload(
            per_hour=3600 / INTERVAL["cold"],
            shape="regular",
            duration=max(cell.elapsed_median - config.resume, 0.001),
        )
        capacity = Capacity(pause=AUTO_PAUSE, resume=config.resume, idle_timeout=IDLE)
        choice = CELLS[cell.policy]
        found = predict(choice, workload, capacity, PRICES)
        run = f"`lambdadb bench`, {choice.value}"
        rows.append(Row(run, "time paused", found.paused, cell.paused_share, percent=True))
        if choice is Choice.PER_INVOCATION:
            rows.append(Row(run, "sessions left", 0, cell.sessions_left or 0))
    return rows


class Counts:
    """The most sessions of the function that the server had at a time."""

    def __init__(self) -> None:
        self.in_use = 0
        """That ran their statement."""
        self.open = 0
        """With attempts that were logged in beside another one, and closed at once."""


@contextmanager
def counted(server: Postgres) -> Iterator[Counts]:
    """Count the function's sessions every 20 ms, while the server runs."""
    counts, stop = Counts(), threading.Event()
    # Beside the cluster, which does not see this connection.
    url = server.url().replace("+psycopg", "")
    query = (
        "SELECT count(*) FILTER (WHERE state = 'active'), count(*) FROM pg_stat_activity "
        "WHERE application_name = 'workload' AND state <> ''"
    )

    def count() -> None:
        while not stop.wait(0.02):
            with suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
                while not stop.wait(0.02):
                    in_use, opened = connection.execute(query).fetchone() or (0, 0)
                    counts.in_use = max(counts.in_use, in_use)
                    counts.open = max(counts.open, opened)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def from_processes(number: int) -> list[Row]:
    """So many execution environments at once, every 20 minutes, under each policy."""
    rows = []
    with ExitStack() as stack:
        server = stack.enter_context(Postgres(settings={"max_connections": str(number + 50)}))
        clock = LabClock()
        cluster = stack.enter_context(Cluster(server, auto_pause=PAUSE, resume=RESUME, clock=clock))
        variables = {"DATABASE_URL": cluster.url(), "IDLE_SESSION_TIMEOUT": str(IDLE / SPEED)}
        environments = [
            stack.enter_context(
                Environment(
                    "workload.handler",
                    function_name="workload",
                    timeout=300,
                    path=[Path(__file__).parent],
                    environment=variables,
                )
            )
            for _ in range(number)
        ]
        threads = stack.enter_context(ThreadPoolExecutor(number))
        say(f"starting {number} processes")
        event = {"policy": Choice.PER_INVOCATION.value, "seconds": 0.0}
        for some in range(0, number, 8):  # as many at a time as start within Lambda's limit for an init
            list(threads.map(lambda one: one.invoke(event), environments[some : some + 8]))
        for choice in POLICIES:
            rows += bursts(choice, environments, server, cluster, clock, threads)
    return rows


def bursts(
    choice: Choice,
    environments: list[Environment],
    server: Postgres,
    cluster: Cluster,
    clock: LabClock,
    threads: ThreadPoolExecutor,
) -> list[Row]:
    """Bursts at equal distances: the connections at their peak, and the time paused between them."""
    event = {"policy": choice.value, "seconds": HOLD}
    say(f"{choice.value}: letting the cluster pause")
    clock.speed = SPEED
    time.sleep((PAUSE + IDLE + 60) / SPEED)
    began, since, took = clock.now(), None, []
    with counted(server) as counts:
        for burst in range(ROUNDS + 1):
            time.sleep(max(began + burst * EVERY - clock.now(), 0) / SPEED)
            clock.speed = 1.0
            start = clock.now()
            list(threads.map(lambda one: one.invoke(event), environments))
            took.append(clock.now() - start)
            since = since or clock.now()
            say(f"{choice.value}: burst {burst} took {took[-1]:.1f} s, {counts.in_use} sessions")
            if burst < ROUNDS:
                clock.speed = SPEED
        paused = cluster.paused_share(since)
    duration = sum(took[1:]) / ROUNDS - RESUME
    number = len(environments)
    workload = Workload(per_hour=number * 3600 / EVERY, shape="regular", burst=number, duration=duration)
    capacity = Capacity(pause=PAUSE, resume=RESUME, idle_timeout=IDLE)
    found = predict(choice, workload, capacity, PRICES)
    run = f"{number} processes, {choice.value}"
    say(f"{run}: at most {counts.open} sessions for a moment, while the cluster resumed")
    return [
        Row(run, "connections in use at the peak", found.connections, counts.in_use),
        Row(run, "time paused", found.paused, paused, percent=True),
    ]


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| run | figure | predicted | measured | difference |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows)])


def main() -> None:
    """Measure, print the table, and fail if a figure differs by more than 5 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4, help="of the benchmark")
    parser.add_argument("--write", action="store_true", help=f"renew the table in {PAGE.name}")
    options = parser.parse_args()
    rows = [*from_the_benchmark(options.rounds), *from_processes(options.processes)]
    print(table(rows))
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")
    wrong = [row for row in rows if row.difference > TOLERANCE]
    sys.exit(f"more than 5 % off: {wrong}" if wrong else 0)


if __name__ == "__main__":
    main()
