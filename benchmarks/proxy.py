"""
200 clients over a proxy with 5 sessions of the server: mixed transactions, errors and pins.

Behind pgbouncer (transaction pooling) and an emulated RDS Proxy, for lambdadb and for SQLAlchemy with
psycopg as most people set it up: the default pool with a ping at each checkout. Each client runs
transactions of two inserts and a read, on a connection that it keeps.

  mixed     a transaction whose rows are of two clients, are not both there, or were not seen together
  wrong     rows that are stored and not acknowledged, or the other way round
  failed    transactions that ended with an error, and those that a client gave up after it waited in
            vain for a session; the kinds of errors are listed below the table
  pins      clients that kept a session of the server, by AWS's rules; pgbouncer pins nobody

    nox -s proxy_clients
    nox -s proxy_clients -- --clients 50 --transactions 20 --json proxy.json
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import lambdadb
from lambdadb.lab.pgbouncer import PgBouncer
from lambdadb.lab.postgres import Postgres
from lambdadb.lab.rds_proxy import RdsProxy

SESSIONS = 5
# Seconds that a proxy waits for a free session. A client that waited in vain gives up, so that a run
# with pins ends.
BORROW_TIMEOUT = 15
NO_SESSION = ("query_wait_timeout", "Timed-out waiting")
INSERT = text(
    "INSERT INTO mixed (xid, client, number) VALUES (pg_current_xact_id()::text, :client, :number)"
)
SEEN = text("SELECT count(*), count(DISTINCT client) FROM mixed WHERE xid = pg_current_xact_id()::text")
# Transactions whose rows are not exactly two of one client.
MIXED = (
    "SELECT count(*) FROM (SELECT FROM mixed GROUP BY xid"
    " HAVING count(*) <> 2 OR count(DISTINCT (client, number)) <> 1) AS found"
)


@dataclass
class Result:
    """What a run showed."""

    proxy: str
    client: str
    clients: int
    transactions: int
    mixed: int = 0
    wrong: int = 0
    failed: int = 0
    pins: int | None = None
    sessions: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


def make_ours(url: str) -> sqlalchemy.Engine:
    """lambdadb's engine, with its defaults."""
    return lambdadb.create_engine(url)


def make_plain(url: str) -> sqlalchemy.Engine:
    """SQLAlchemy's engine, as most people set it up."""
    return sqlalchemy.create_engine(url, pool_pre_ping=True)


MAKERS: dict[str, Callable[[str], sqlalchemy.Engine]] = {
    "lambdadb": make_ours,
    "SQLAlchemy, psycopg": make_plain,
}


def work(
    engine: sqlalchemy.Engine, client: int, transactions: int, done: set[tuple[int, int]], said: Any
) -> None:
    """One client's transactions; what was acknowledged, and what was said instead."""
    for number in range(transactions):
        try:
            with engine.begin() as connection:
                connection.execute(INSERT, {"client": client, "number": number})
                connection.execute(INSERT, {"client": client, "number": number})
                rows, clients = connection.execute(SEEN).one()
                if (rows, clients) != (2, 1):
                    said["a transaction saw the rows of another"] += 1
        except (lambdadb.LambdaDBError, DBAPIError) as error:
            if any(text in str(error) for text in NO_SESSION):
                said[describe(error)] += transactions - number
                return
            said[describe(error)] += 1
        else:
            done.add((client, number))


def describe(error: Exception) -> str:
    """An error in one line, without what differs between two of the same kind."""
    original = getattr(error, "orig", None)
    first = str(original or error).strip().splitlines()[0].split('"')[0]
    return f"{type(original or error).__name__}: {first.strip()[:90]}"


def run(proxy: Any, server: Postgres, name: str, clients: int, transactions: int) -> Result:
    """All clients of one kind, each in a thread."""
    result = Result(type(proxy).__name__, name, clients, clients * transactions)
    admin = psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True)
    admin.execute("DROP TABLE IF EXISTS mixed")
    admin.execute("CREATE TABLE mixed (xid text, client int, number int)")
    engines = [MAKERS[name](proxy.url()) for _ in range(clients)]
    done: set[tuple[int, int]] = set()
    said: Counter[str] = Counter()
    threads = [
        threading.Thread(target=work, args=(engine, number, transactions, done, said))
        for number, engine in enumerate(engines)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        open_now = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        ).fetchone()
        result.sessions = max(result.sessions, open_now[0] if open_now else 0)
        time.sleep(0.1)
    result.seconds = round(time.monotonic() - began, 1)
    for engine in engines:
        engine.dispose()
    stored = set(admin.execute("SELECT DISTINCT client, number FROM mixed").fetchall())
    (result.mixed,) = admin.execute(MIXED).fetchone() or (0,)
    result.mixed += said.pop("a transaction saw the rows of another", 0)
    result.wrong = len(stored ^ done)
    result.failed = sum(said.values())
    result.errors = dict(said.most_common())
    admin.close()
    return result


def measure(clients: int, transactions: int, console: Console) -> list[Result]:
    """Every proxy with every kind of client; each run has a proxy of its own."""
    results = []
    with Postgres() as server:

        def pgbouncer() -> AbstractContextManager[Any]:
            settings = {"query_wait_timeout": str(BORROW_TIMEOUT), "max_client_conn": "1000"}
            return PgBouncer(server, pool_size=SESSIONS, settings=settings)

        def rds_proxy() -> AbstractContextManager[Any]:
            return RdsProxy(server, sessions=SESSIONS, borrow_timeout=BORROW_TIMEOUT)

        for name in MAKERS:
            for make in (pgbouncer, rds_proxy):
                with make() as proxy:
                    console.print(f"{type(proxy).__name__}, {name}: {clients} clients")
                    result = run(proxy, server, name, clients, transactions)
                    result.pins = len(proxy.pins) if isinstance(proxy, RdsProxy) else None
                results.append(result)
    return results


def make_table(results: list[Result]) -> Table:
    """The results."""
    table = Table(title=f"{results[0].clients} clients, {SESSIONS} sessions of the server")
    for column in ("client", "proxy"):
        table.add_column(column)
    for column in ("transactions", "mixed", "wrong", "failed", "pins", "sessions", "seconds"):
        table.add_column(column, justify="right")
    for one in results:
        proxy = "pgbouncer" if one.proxy == "PgBouncer" else "RDS Proxy (emulated)"
        pins = "-" if one.pins is None else str(one.pins)
        counts = (one.transactions, one.mixed, one.wrong, one.failed, pins, one.sessions, one.seconds)
        table.add_row(one.client, proxy, *map(str, counts))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--transactions", type=int, default=20, help="of each client")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args()
    for name in ("lambdadb", "psycopg", "sqlalchemy.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    results = measure(chosen.clients, chosen.transactions, Console(stderr=True))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    console = Console()
    Console(width=max(console.width, 120)).print(make_table(results))
    for result in results:
        for error, count in result.errors.items():
            console.print(f"{result.client}, {result.proxy}: {count} x {error}", highlight=False)
    ours = [result for result in results if result.client == "lambdadb"]
    if any(result.mixed or result.wrong or result.failed or result.pins for result in ours):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
