"""
Ways to use PostgreSQL in a function, each in the best setting that its documentation has for Lambda.

    python benchmarks/clients.py NAME URL            a worker: commands on stdin, one JSON line for each
    python benchmarks/clients.py NAME URL --once     one invocation in a fresh process, for cold starts

An invocation is the same work for all: one statement in a transaction. Nothing is imported before the
client needs it, so that a cold start has only what is its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

ONE = "SELECT 1"
BUDGET = 30.0  # seconds that an invocation has


class Context:
    """What the clients read of Lambda's context object."""

    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:compare"

    def get_remaining_time_in_millis(self) -> int:
        return int(BUDGET * 1000)


class Client:
    """One of them: `invoke` does the work, `drop` gives the connection up, so that the next connects."""

    def __init__(self, invoke: Callable[[], object], drop: Callable[[], Any]) -> None:
        self.invoke = invoke
        self.drop = drop


def bare_psycopg(url: str) -> Client:
    """A connection in a global variable, opened anew when it is closed."""
    import psycopg

    connections: list[psycopg.Connection] = []

    def invoke() -> None:
        if not connections or connections[0].closed:
            connections[:] = [psycopg.connect(url.replace("+psycopg", ""))]
        with connections[0].transaction():
            connections[0].execute(ONE)

    return Client(invoke, lambda: connections and connections.pop().close())


def _sqlalchemy(url: str, **keywords: object) -> Client:
    from sqlalchemy import create_engine, text

    engine = create_engine(url, **keywords)
    one = text(ONE)

    def invoke() -> None:
        with engine.begin() as connection:
            connection.execute(one)

    return Client(invoke, engine.dispose)


def sqlalchemy_defaults(url: str) -> Client:
    """create_engine(url)."""
    return _sqlalchemy(url)


def null_pool(url: str) -> Client:
    """SQLAlchemy's advice for functions: no pool."""
    from sqlalchemy.pool import NullPool

    return _sqlalchemy(url, poolclass=NullPool)


def static_pool(url: str) -> Client:
    """One connection, looked at with a ping before each use."""
    from sqlalchemy.pool import StaticPool

    return _sqlalchemy(url, poolclass=StaticPool, pool_pre_ping=True)


def unpinged_static_pool(url: str) -> Client:
    """One connection, used unseen: after a freeze in which it ended, an invocation fails."""
    from sqlalchemy.pool import StaticPool

    return _sqlalchemy(url, poolclass=StaticPool)


def _psycopg_pool(url: str, kind: str, **keywords: object) -> Client:
    import psycopg_pool

    pools: list[psycopg_pool.ConnectionPool] = []

    def invoke() -> None:
        if not pools:
            pools.append(getattr(psycopg_pool, kind)(url.replace("+psycopg", ""), open=True, **keywords))
        with pools[0].connection() as connection:
            connection.execute(ONE)

    return Client(invoke, lambda: pools and pools.pop().close())


def psycopg_pool(url: str) -> Client:
    """A pool of one, which checks a connection before it gives it out."""
    from psycopg_pool import ConnectionPool

    check = ConnectionPool.check_connection
    return _psycopg_pool(url, "ConnectionPool", min_size=1, max_size=1, check=check)


def psycopg_null_pool(url: str) -> Client:
    """A pool that keeps nothing."""
    return _psycopg_pool(url, "NullConnectionPool", min_size=0, max_size=1)


def aws_wrapper(url: str) -> Client:
    """AWS's wrapper on SQLAlchemy, without the plugins that keep connections and threads."""
    from sqlalchemy.pool import NullPool

    wrapped = url.replace("+psycopg", "+aws_wrapper_psycopg")
    arguments = {"plugins": "", "wrapper_dialect": "pg"}
    return _sqlalchemy(wrapped, connect_args=arguments, poolclass=NullPool)


def _lambdadb(url: str, policy: str) -> Client:
    import lambdadb

    # isort: split
    from sqlalchemy import text  # imported by lambdadb already, without collecting garbage

    engine = lambdadb.create_engine(url, policy=getattr(lambdadb, policy)())
    one = text(ONE)

    @lambdadb.handler(engine)
    def handler(*_: object) -> None:
        with engine.begin() as connection:
            connection.execute(one)

    context = Context()
    return Client(lambda: handler({}, context), engine.dispose)


def per_environment(url: str) -> Client:
    """lambdadb's default: one connection, kept."""
    return _lambdadb(url, "PerEnvironment")


def per_invocation(url: str) -> Client:
    """lambdadb with one connect in each invocation."""
    return _lambdadb(url, "PerInvocation")


CLIENTS: dict[str, Callable[[str], Client]] = {
    "lambdadb PerEnvironment": per_environment,
    "lambdadb PerInvocation": per_invocation,
    "bare psycopg": bare_psycopg,
    "SQLAlchemy defaults": sqlalchemy_defaults,
    "SQLAlchemy NullPool": null_pool,
    "SQLAlchemy StaticPool": unpinged_static_pool,
    "SQLAlchemy StaticPool + pre-ping": static_pool,
    "psycopg_pool": psycopg_pool,
    "psycopg_pool, null": psycopg_null_pool,
    "AWS wrapper, NullPool": aws_wrapper,
}


def measured(work: Callable[[], object], times: int) -> dict[str, float]:
    """Microseconds of CPU and of wall time for one of `times` repetitions."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        work()
    return {
        "cpu": (time.process_time() - cpu) / times * 1e6,
        "wall": (time.perf_counter() - wall) / times * 1e6,
    }


def footprint() -> dict[str, float]:
    """Threads and resident memory in kB, as Linux counts them."""
    from pathlib import Path  # not every client's own import: after the cold start

    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"threads": int(lines["Threads"]), "memory": int(lines["VmRSS"].split()[0])}


def work(client: Client) -> None:
    """Obey: `invoke N`, `connect N` (dropping before each), `drop`, `footprint`."""
    import json

    def reconnect() -> None:
        client.drop()
        client.invoke()

    commands: dict[str, Callable[[int], dict[str, float] | None]] = {
        "invoke": lambda times: measured(client.invoke, times),
        "connect": lambda times: measured(reconnect, times),
        "drop": lambda _: client.drop(),
        "footprint": lambda _: footprint(),
    }
    for line in sys.stdin:
        command, _, times = line.strip().partition(" ")
        answer: dict[str, object] = {}
        try:
            answer = {**(commands[command](int(times or 1)) or {})}
        except Exception as error:  # the other side decides what a failure means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({**answer, "at": time.monotonic()}), flush=True)


def main() -> None:
    name, url, *once = sys.argv[1:]
    client = CLIENTS[name](url)
    if once:
        client.invoke()
    else:
        work(client)


if __name__ == "__main__":
    main()
