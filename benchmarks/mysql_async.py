"""
PyMySQL on an event loop, as lambdadb runs it, beside asyncmy on SQLAlchemy's asynchronous engine.

For each: the package's size and the time of its import, statements of one task and of twenty at once,
10,000 rows, and the longest time that the event loop stood still meanwhile.

    nox -s mysql_async        needs MariaDB (Debian: mariadb-server); about a minute
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import lambdadb
import lambdadb.aio
from lambdadb.lab.mariadb import MariaDB

TASKS, STATEMENTS, ROWS, IMPORTS, ROUNDS = 20, 50, 10_000, 9, 5
ONE = text("SELECT 1")
MANY = text("SELECT seq, REPEAT('x', 100), NOW(), seq * 1.5 FROM seq_1_to_10000")
BEAT = 0.001
Figures = dict[str, str]


def ours(url: str) -> AsyncEngine:
    """lambdadb's engine."""
    return lambdadb.aio.create_async_engine(url, policy=lambdadb.PerEnvironment(connections=TASKS))


def theirs(url: str) -> AsyncEngine:
    """SQLAlchemy's engine on asyncmy."""
    return create_async_engine(url.replace("pymysql", "asyncmy"), pool_size=TASKS)


def describe_package(name: str) -> Figures:
    """Its size, and the processor's time of its import in a new process, without cryptography."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    size = sum(file.stat().st_size for file in Path(spec.origin).parent.rglob("*") if file.is_file())
    program = (
        "import sqlalchemy.ext.asyncio, ssl, struct, decimal, datetime, asyncio, sys, time; "
        "sys.modules['cryptography'] = None; "  # which a function does not need
        f"began = time.process_time(); import {name}, {name}.cursors; print(time.process_time() - began)"
    )
    command = [sys.executable, "-c", program]
    times = [float(subprocess.check_output(command)) for _ in range(IMPORTS)]
    return {
        "size of the package": f"{size / 1e6:.1f} MB",
        "its import, after SQLAlchemy's": f"{statistics.median(times) * 1e3:.0f} ms",
    }


async def ask(engine: AsyncEngine, times: list[float]) -> None:
    """Statements of one task, on a connection of its own."""
    async with engine.connect() as connection:
        for _ in range(STATEMENTS):
            began = time.perf_counter()
            await connection.execute(ONE)
            times.append(time.perf_counter() - began)


async def longest_stop(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Seconds that the work takes, and the longest that another task had to wait beside it."""
    gaps, done = [0.0], asyncio.Event()

    async def beat() -> None:
        while not done.is_set():
            began = time.perf_counter()
            await asyncio.sleep(BEAT)
            gaps.append(time.perf_counter() - began - BEAT)

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await work()
    took = time.perf_counter() - began
    done.set()
    await beating
    return took, max(gaps)


async def measure(engine: AsyncEngine) -> list[float]:
    """Milliseconds: a statement alone, and of twenty tasks; rows, and how long the loop stood still."""
    await asyncio.gather(*(ask(engine, []) for _ in range(TASKS)))  # warm
    alone: list[float] = []
    together: list[float] = []
    await ask(engine, alone)
    await asyncio.gather(*(ask(engine, together) for _ in range(TASKS)))

    async def fetch() -> None:
        async with engine.connect() as connection:
            assert len((await connection.execute(MANY)).fetchall()) == ROWS

    took, stood = await longest_stop(fetch)
    await engine.dispose()
    figures = (statistics.median(alone), statistics.median(together), took, stood)
    return [figure * 1e3 for figure in figures]


NAMES = (
    "a statement, one task",
    f"a statement, {TASKS} tasks at once",
    f"{ROWS:,} rows of 4 columns",
    "the longest stop of the event loop meanwhile",
)


def main() -> None:
    kinds = {"lambdadb, PyMySQL": ("pymysql", ours), "SQLAlchemy, asyncmy": ("asyncmy", theirs)}
    found: dict[str, Figures] = {}
    with MariaDB() as server:
        rounds: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
        for _ in range(ROUNDS):  # in turn, so that a busy moment of the machine meets both
            for kind, (_, make) in kinds.items():
                rounds[kind].append(asyncio.run(measure(make(server.url()))))
        for kind, (package, _) in kinds.items():
            medians = map(statistics.median, zip(*rounds[kind], strict=True))
            milliseconds = {name: f"{ms:.1f} ms" for name, ms in zip(NAMES, medians, strict=True)}
            found[kind] = {**describe_package(package), **milliseconds}
    table = Table(title=f"SQLAlchemy {sqlalchemy.__version__}")
    for heading in ("", *kinds):
        table.add_column(heading)
    for name in next(iter(found.values())):
        table.add_row(name, *(found[kind][name] for kind in kinds))
    Console().print(table)


if __name__ == "__main__":
    main()
