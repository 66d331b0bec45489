"""
lambdadb beside what a function would use instead, all in one run and in turns.

Round trips are counted on the wire by the lab's emulated cluster. Processor time is each client's own,
in a process of its own. Losses are shown like wins.

    nox -s compare -- --rounds 9
    nox -s compare -- --write          also renews the tables and the picture of docs/compare.md
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clients import CLIENTS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from resume import pause
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from round_trips import PASSWORD

from lambdadb.lab.aurora import Cluster, Shape
from lambdadb.lab.postgres import Postgres

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "compare.md"
BEGIN, END = "<!-- nox -s compare -- --write -->", "<!-- end -->"
OURS = "lambdadb PerEnvironment"
PATIENCE = 45.0  # seconds until an answer is given up
RESUME = 4.0  # seconds of the resume that the clients meet
WARM, CONNECTS = 200, 20  # repetitions in one measurement
SETTLE = 0.5  # seconds in which a connection that was closed is seen to be
SHAPES = (Shape.HOLD, Shape.STARTING, Shape.CLOSE)

# What is measured, a table each: the heading of a column, and of a row the client's name.
TABLES = {
    "Round trips, and what a resume costs": {
        "first": "first invocation",
        "warm": "warm",
        "later": "with a connect",
        "resume": "lost after a resume, s",
    },
    "Processor time": {
        "cpu_warm": "warm, µs",
        "cpu_near": "warm, no network, µs",
        "cpu_connect": "with a connect, µs",
        "cold": "cold start, ms",
    },
    "What an environment holds": {
        "idle": "sessions kept",
        "threads": "threads",
        "memory": "memory, MB",
    },
}
RATIOS = ("cpu_warm", "cpu_near", "cpu_connect", "cold")

# Within an Availability Zone. A client that has to wait gives its processor up and gets it back, which
# costs processor time in each round trip; from a server beside it the answer is there at once.
ROUND_TRIP = 0.001


# Every client with its bytecode, as a layer has it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Worker:
    """A client in a process of its own."""

    def __init__(self, name: str, url: str) -> None:
        command = [sys.executable, str(HERE / "clients.py"), name, url]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def do(self, command: str) -> dict[str, Any]:
        """The answer to a command; an error is one too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The client ended at {command!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def must(self, command: str) -> dict[str, Any]:
        """The answer to a command that may not fail."""
        answer = self.do(command)
        if "error" in answer:
            raise SystemExit(f"{command!r} failed: {answer['error']}")
        return answer


def on_the_wire(name: str, cluster: Cluster) -> dict[str, Any]:
    """Round trips, and what an environment holds when its invocation is over."""
    with Worker(name, cluster.url() + "?sslmode=disable") as worker:
        worker.must("footprint")

        def counted(command: str) -> int:
            before = cluster.round_trips, cluster.connects
            worker.must(command)
            logins = cluster.connects - before[1]
            return cluster.round_trips - before[0] - PASSWORD * logins

        first = counted("invoke 1")
        warm = min(counted("invoke 1") for _ in range(3))
        time.sleep(SETTLE)
        idle = len(cluster.sessions())
        held = worker.must("footprint")
        worker.must("drop")
        later = counted("invoke 1")
    return {
        "first": first,
        "warm": warm,
        "later": later,
        "idle": idle,
        "threads": held["threads"],
        "memory": held["memory"] / 1000,
    }


def cold(name: str, url: str) -> float:
    """Milliseconds of processor time from the start of a process to its first row."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(HERE / "clients.py"), name, url, "--once"]
    subprocess.run(command, check=True, timeout=PATIENCE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def resumed(name: str, cluster: Cluster) -> float | None:
    """Seconds lost after a paused cluster was awake; None if the first invocation failed."""
    pause(cluster)
    with Worker(name, cluster.url() + "?sslmode=disable") as worker:
        answer = worker.do("invoke 1")
    return None if "error" in answer else max(answer["at"] - cluster.available_since, 0.0)


def measure(rounds: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """The figures of each client: single ones, and a list where each round gave one."""
    figures: dict[str, dict[str, Any]] = {name: {} for name in CLIENTS}
    steps = progress.add_task("", total=len(CLIENTS) * (1 + len(SHAPES) + 3 * rounds))

    def measure_cpu(url: str, commands: dict[str, str]) -> None:
        progress.update(steps, description="processor time")
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(name, url)) for name in CLIENTS}
            for worker in workers.values():
                worker.must("connect 3")
            for _ in range(rounds):
                for name, worker in workers.items():
                    for what, command in commands.items():
                        figures[name].setdefault(what, []).append(worker.must(command)["cpu"])
                    progress.advance(steps)

    with Postgres() as server, Cluster(server) as cluster:
        for name in CLIENTS:
            progress.update(steps, description="round trips")
            figures[name] |= on_the_wire(name, cluster)
            progress.advance(steps)
        with Cluster(server, round_trip=ROUND_TRIP) as away:
            url = f"{away.url()}?sslmode=disable"
            measure_cpu(url, {"cpu_warm": f"invoke {WARM}", "cpu_connect": f"connect {CONNECTS}"})
        near = f"{server.url()}?sslmode=disable"
        measure_cpu(near, {"cpu_near": f"invoke {WARM}"})
        for _ in range(rounds):
            progress.update(steps, description="cold starts")
            for name in CLIENTS:
                figures[name].setdefault("cold", []).append(cold(name, near))
                progress.advance(steps)
    for shape in SHAPES:
        progress.update(steps, description=f"resume: {shape.value}")
        with Postgres() as server, Cluster(server, resume=RESUME, shape=shape, paused=True) as cluster:
            for name in CLIENTS:
                figures[name].setdefault("resume", []).append(resumed(name, cluster))
                progress.advance(steps)
    return figures


def ratios(figures: dict[str, dict[str, Any]], name: str, what: str) -> list[float]:
    """Of each round: this client's figure over lambdadb's."""
    return sorted(a / b for a, b in zip(figures[name][what], figures[OURS][what], strict=True))


def cells(figures: dict[str, dict[str, Any]], name: str, columns: Iterable[str]) -> list[str]:
    """One client's row of one table."""
    mine, shown = figures[name], []
    for what in columns:
        value = mine[what]
        if what in RATIOS:
            all_ratios = ratios(figures, name, what)
            spread = f"{all_ratios[0]:.2f}-{all_ratios[-1]:.2f}"
            middle = statistics.median(all_ratios)
            shown.append(f"{statistics.median(value):.0f} ({middle:.2f}, {spread})")
        elif what == "resume":
            shown.append(", ".join("fails" if lost is None else f"{lost:.1f}" for lost in value))
        else:
            shown.append(f"{value:.0f}")
    return shown


def draw(figures: dict[str, dict[str, Any]], file: Path) -> None:
    """A row of bars for each client: round trips, processor time, cold start."""
    panels = {
        "round trips of an invocation,\nfirst (pale) and warm": ("first", "warm"),
        "CPU of an invocation, µs,\nwith a connect (pale) and warm": ("cpu_connect", "cpu_warm"),
        "CPU of a cold start\nto the first row, ms": (None, "cold"),
        "memory, MB": (None, "memory"),
    }
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    names = [*figures][::-1]
    for axes, (title, (pale, full)) in zip(
        figure.subplots(1, 4, sharey=True), panels.items(), strict=True
    ):
        for what, alpha in ((pale, 0.35), (full, 1.0)):
            if what is None:
                continue
            values = [statistics.median(_list(figures[name][what])) for name in names]
            colours = ["#009E73" if name.startswith("lambdadb") else "#777777" for name in names]
            axes.barh(names, values, color=colours, alpha=alpha, height=0.7)
            if alpha == 1.0:
                axes.bar_label(axes.containers[-1], fmt="%.0f", padding=3, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=130)


def _list(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def write(figures: dict[str, dict[str, Any]], rounds: int) -> None:
    """The tables and the picture of the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [
        f"Medians of {rounds} rounds; in brackets the ratio to {OURS}, with its lowest and highest.",
    ]
    for title, columns in TABLES.items():
        lines += ["", f"## {title}", "", "| " + " | ".join(["client", *columns.values()]) + " |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        lines += ["| " + " | ".join([name, *cells(figures, name, columns)]) + " |" for name in figures]
    PAGE.write_text("\n".join([before + BEGIN, *lines, END + after]))
    draw(figures, PAGE.parent / "images" / "compare.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured, in turns")
    parser.add_argument("--json", action="store_true", help="print every figure instead of the table")
    parser.add_argument("--write", action="store_true", help="renew docs/compare.md and its picture")
    arguments = parser.parse_args()
    with Progress(console=Console(stderr=True)) as progress:
        figures = measure(arguments.rounds, progress)
    if arguments.write:
        write(figures, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        console = Console()
        for title, columns in TABLES.items():
            table = Table(title=f"{title}, medians of {arguments.rounds} rounds", min_width=60)
            for heading in ("client", *columns.values()):
                table.add_column(heading, justify="left" if heading == "client" else "right")
            for name in figures:
                table.add_row(name, *cells(figures, name, columns))
            console.print(table)
        console.print(f"In brackets the ratio to {OURS}, with its lowest and highest.")


if __name__ == "__main__":
    main()
