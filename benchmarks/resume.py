"""
How much time is lost after a paused database is awake again, for each way in which it can fail.

Three clients connect to an emulated cold cluster until they have a session: lambdadb, a loop that
tries every 20 s, and tenacity's `@retry` without arguments. The two others use psycopg with
`connect_timeout=10`, so that nothing hangs for psycopg's own 130 s. In one round every client meets
every shape of failure once, each at its own cluster with a real PostgreSQL; a resume takes 13 to 17 s.
The figure is the time from the moment the cluster is available to the client's session.

    nox -s resume            # 5 rounds, about 5 minutes
    nox -s resume -- --rounds 1 --json resume.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lambdadb.lab.aurora import POSTGRES_SHAPES, Cluster, State
from lambdadb.lab.postgres import Postgres

CLIENTS = {"lambdadb": "lambdadb", "fixed": "every 20 s", "tenacity": "tenacity's defaults"}
PATIENCE = 90.0  # seconds until a client is given up


def connect_lambdadb(url: str) -> int:
    # Elsewhere a refused connection means that nothing listens on this machine.
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "resume"

    import lambdadb
    from lambdadb.tracing import Span, Tracer

    attempts = []

    class Count(Tracer):
        def record(self, span: Span) -> None:
            attempts.append(int(span.attributes["lambdadb.attempts"]))

    engine = lambdadb.create_engine(url, tracer=Count())
    engine.raw_connection().close()
    return attempts[0]


def connect_fixed(url: str) -> int:
    import psycopg

    for attempt in range(1, 10):
        try:
            psycopg.connect(url, connect_timeout=10).close()
        except psycopg.OperationalError:
            time.sleep(20.0)
        else:
            return attempt
    raise SystemExit("gave up")


def connect_tenacity(url: str) -> int:
    import psycopg
    import tenacity

    @tenacity.retry
    def connect() -> None:
        psycopg.connect(url, connect_timeout=10).close()

    connect()
    return int(connect.statistics["attempt_number"])  # type: ignore[attr-defined]


def client(name: str, url: str) -> None:
    """One client in a process of its own, so that one that spins disturbs the others least."""
    os.nice(10)
    attempts = {"lambdadb": connect_lambdadb, "fixed": connect_fixed, "tenacity": connect_tenacity}[
        name
    ](url)
    print(json.dumps({"connected": time.monotonic(), "attempts": attempts}))


def pause(cluster: Cluster) -> None:
    """Have the cluster paused, and not again while a client meets it."""
    cluster.auto_pause = 0.2
    end = time.monotonic() + PATIENCE
    while cluster.state is not State.PAUSED:
        if time.monotonic() > end:
            raise SystemExit(f"The {cluster.shape.value} cluster does not pause: {cluster.events[-3:]}")
        time.sleep(0.05)
    cluster.auto_pause = 2 * PATIENCE


def meet(cluster: Cluster, name: str) -> dict[str, object]:
    """Let one client wake one cluster."""
    pause(cluster)
    url = cluster.url()
    if name != "lambdadb":
        url = url.replace("+psycopg", "")
    command = [sys.executable, __file__, "--client", name, url]
    row = {"shape": cluster.shape.value, "client": name}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        return {**row, "lost": None, "attempts": None, "error": str(error)[:200]}
    seen = json.loads(done.stdout)
    return {**row, "lost": seen["connected"] - cluster.available_since, "attempts": seen["attempts"]}


def run(rounds: int, console: Console) -> list[dict[str, object]]:
    """Rows of shape, client, seconds lost and attempts; the clients of a round one after the other."""
    random = Random(20250123)
    rows: list[dict[str, object]] = []
    with ExitStack() as stack, Progress(console=console) as progress:
        clusters = []
        for shape in POSTGRES_SHAPES:
            cluster = Cluster(stack.enter_context(Postgres()), auto_pause=0.2, shape=shape, paused=True)
            clusters.append(stack.enter_context(cluster))
        threads = stack.enter_context(ThreadPoolExecutor(len(clusters)))
        task = progress.add_task("resumes", total=rounds * len(CLIENTS) * len(clusters))
        for _ in range(rounds):
            for name in CLIENTS:
                for cluster in clusters:
                    cluster.resume = random.uniform(13.0, 17.0)
                for row in threads.map(meet, clusters, [name] * len(clusters)):
                    rows.append(row)
                    progress.advance(task)
    return rows


def table(rows: list[dict[str, object]]) -> Table:
    """Median and worst seconds lost, and attempts, for each shape and client."""
    shown = Table(title="Seconds lost after the database was awake: median (worst), attempts")
    shown.add_column("shape")
    for title in CLIENTS.values():
        shown.add_column(title, justify="right")
    for shape in [*(shape.value for shape in POSTGRES_SHAPES), None]:
        cells = []
        for name in CLIENTS:
            mine = [r for r in rows if r["client"] == name and shape in (None, r["shape"])]
            lost = [float(str(r["lost"])) for r in mine if r["lost"] is not None]
            if not lost:
                cells.append("never")
                continue
            attempts = statistics.median(int(str(r["attempts"])) for r in mine if r["lost"] is not None)
            failed = f", {len(mine) - len(lost)} never" if len(lost) < len(mine) else ""
            cells.append(f"{statistics.median(lost):.2f} ({max(lost):.2f}), {attempts:.0f}{failed}")
        shown.add_row(shape or "all", *cells, style=None if shape else "bold")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each client meets each shape")
    parser.add_argument("--json", type=Path, help="write every row to this file")
    parser.add_argument("--client", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.client:
        client(*chosen.client)
        return
    rows = run(chosen.rounds, Console(stderr=True))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))
    console = Console()
    Console(width=max(console.width, 120)).print(table(rows))


if __name__ == "__main__":
    main()
