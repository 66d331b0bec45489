"""A real fleet: real processes, a real PostgreSQL, an emulated cluster that pauses in front of it."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from os import environ
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import text

from lambdadb.engine import create_engine
from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, Shape
from lambdadb.lab.environment.environment import INHERITED
from lambdadb.lab.fleet.server import ServerSettings
from lambdadb.lab.fleet.simulation import FleetResult, FleetSettings
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.process import Directory, Process

SAMPLE = 0.1  # seconds between two looks at the cluster's count of connections
START = 60.0  # seconds for the start of all processes
WORKER = Path(__file__).with_name("worker.py")
MEASURED = 30  # logins, and as many refusals
LONGEST_END = 30.0  # seconds after which a session that was closed has to be gone
PAUSE = 0.05  # seconds after which a session that has ended has left its slot


def run_fleet(
    fleet: FleetSettings,
    server: ServerSettings,
    client: str,
    policy: str,
    progress: Callable[[int], None] = lambda _: None,
) -> FleetResult:
    """
    Run a fleet of processes with one invocation each.

    Args:
        fleet: Its environments, the pace of their starts, the timeout and the work.
        server: The slots, the resume and its shape. The rest is what this machine is.
        client: "lambdadb", or a name of `lambdadb.lab.fleet.clients.LOOPS`.
        policy: "per-environment" or "per-invocation".
        progress: Called with the number of environments that have ended.

    Raises:
        LabError: The server, the cluster or the processes did not start, or did not end in time.
    """
    with Postgres(settings=_settings(server.slots)) as postgres:
        paused = server.resume is not None
        cluster = Cluster(
            postgres, resume=server.resume or 0.0, shape=Shape(server.shape), paused=paused
        )
        folder = Directory("lambdadb-fleet-")
        try:
            with cluster:
                plan = {
                    "url": cluster.url(),
                    "client": client,
                    "policy": policy,
                    "environments": fleet.environments,
                    "starts_per_second": fleet.starts_per_second,
                    "timeout": fleet.timeout,
                    "work": fleet.work,
                }
                lines, samples = _observe(plan, folder.path / "lines", cluster, progress)
                available = cluster.available_since
        finally:
            folder.close()
    return _summarize(lines, samples, available if paused else None, keeps=policy == "per-environment")


def measure_machine(server: ServerSettings) -> ServerSettings:
    """
    Return the settings with what a login and a refusal take on this machine, for a simulation of it.

    The clients, the cluster and the server of a real fleet share its processors. So a login costs what
    it takes from its start to the answer to its first statement, while nothing else of the fleet runs.

    Raises:
        LabError: The server or the cluster did not start.
    """
    logins, refusals = [], []
    with Postgres(settings=_settings(slots=1)) as postgres, Cluster(postgres) as cluster:
        for _ in range(MEASURED):
            engine = create_engine(cluster.url())
            began = time.perf_counter()
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                logins.append(time.perf_counter() - began)
                began = time.perf_counter()
                _is_refused(cluster)
                refusals.append(time.perf_counter() - began)
            engine.dispose()
            _wait_for_slot(cluster)
            time.sleep(PAUSE)
    return replace(
        server,
        processors=os.cpu_count() or 1,
        login=statistics.median(logins),
        refusal=statistics.median(refusals),
    )


def _wait_for_slot(cluster: Cluster) -> None:
    """Wait until the server, which ends a session a moment later, has a free slot again."""
    end = time.monotonic() + LONGEST_END
    while _is_refused(cluster):
        if time.monotonic() > end:
            raise LabError(f"The server has not ended a session within {LONGEST_END:.0f} s.")


def _is_refused(cluster: Cluster) -> bool:
    """Whether a login is refused because all slots are in use."""
    try:
        psycopg.connect(cluster.url().replace("+psycopg", "")).close()
    except psycopg.OperationalError:
        return True
    return False


def _settings(slots: int) -> dict[str, str]:
    return {
        "max_connections": str(slots),
        "superuser_reserved_connections": "0",
        "autovacuum": "off",
    }


def _observe(
    plan: dict[str, Any], output: Path, cluster: Cluster, progress: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Run the processes until each has written its line; count the cluster's connections meanwhile."""
    variables = {name: environ[name] for name in INHERITED if name in environ}
    process = Process(
        [sys.executable, str(WORKER)], env={**variables, "FLEET": json.dumps(plan)}, output=output
    )
    samples = [0]
    end = time.monotonic() + START + plan["environments"] / plan["starts_per_second"] + plan["timeout"]
    try:
        while (done := output.read_bytes().count(b"\n")) < plan["environments"]:
            progress(done)
            if not process.running or time.monotonic() > end:
                raise LabError(f"The fleet has failed: {output.read_text()[-500:]}")
            time.sleep(SAMPLE)
            samples.append(cluster.connects)
        samples.append(cluster.connects)
        progress(done)
    finally:
        process.kill()
    return [json.loads(line) for line in output.read_text().splitlines()], samples


def _summarize(
    lines: list[dict[str, Any]], samples: list[int], available: float | None, *, keeps: bool
) -> FleetResult:
    began = min(line["began"] for line in lines)
    served = [line for line in lines if line["connected"] is not None]
    last = max((line["connected"] for line in served), default=began)
    changes = [(line["connected"] - began, 1) for line in served]
    if not keeps:
        changes += [(line["ended"] - began, -1) for line in served]
    timeline, sessions = [], 0
    for moment, change in sorted(changes):
        sessions += change
        timeline.append((moment, sessions))
    window = round(1.0 / SAMPLE)
    steps = [after - before for before, after in zip(samples, samples[window:], strict=False)]
    return FleetResult(
        waits=[line["connected"] - line["began"] for line in served],
        served=len(served),
        failed=len(lines) - len(served),
        connects=len(served),
        attempts=samples[-1],
        wasted=samples[-1] - len(served),
        peak_sessions=max((count for _, count in timeline), default=0),
        peak_attempts=max(steps, default=samples[-1]),
        last_success=last - began,
        after_resume=last - (available or began),
        timeline=timeline,
    )
