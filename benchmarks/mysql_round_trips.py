"""
Round trips on MySQL, counted on the wire by the lab's cluster, beside SQLAlchemy as people set it up.

    nox -s mysql_round_trips                  a table; needs MariaDB (Debian: mariadb-server)
    nox -s mysql_round_trips -- --write       writes it to docs/reference/round-trips.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from rich.console import Console
from rich.table import Table
from round_trips import (
    AUTOCOMMIT,
    LONG_UNUSED,
    ONE,
    PAGE,
    PER_INVOCATION,
    checkout,
    make_marks,
    unit_of_work,
    unit_with_a_session,
    with_a_key,
    with_a_session,
)
from sqlalchemy import text
from sqlalchemy.pool import NullPool

import lambdadb
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.mariadb import MariaDB

HEADER = "| callable | situation on MySQL | lambdadb | SQLAlchemy |\n|---|---|---|---|"
Call = Callable[[Any], object]
# What is common on Lambda: a connection for each invocation, or a pool that pings.
EACH_TIME = {"poolclass": NullPool}
PINGED = {"pool_pre_ping": True}


@dataclass(frozen=True)
class Case:
    """A callable, and the situation in which it is called."""

    callable: str
    situation: str
    call: Call
    """What is counted, given an engine."""
    before: Call | None = None
    """What the engine has done before; None if it has not connected yet."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """The engine's."""
    peer: Mapping[str, Any] | None = None
    """The keywords of SQLAlchemy's engine beside it; None where it has nothing of the kind."""


def transaction(engine: Any) -> None:
    with engine.begin() as connection:
        connection.execute(ONE)


def invocation(engine: Any) -> None:
    """A transaction, and the end of the invocation that it is in."""
    if isinstance(engine.pool, NullPool):
        transaction(engine)
        return
    with lambdadb.invocation(engine):
        transaction(engine)


def repeated_once(engine: Any) -> None:
    runs = iter([text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"), ONE])
    lambdadb.run_transaction(engine, lambda connection: connection.execute(next(runs)))


def warm(
    callable: str, situation: str, call: Call, peer: Mapping[str, Any] | None = None, **keywords: Any
) -> Case:
    """A call on an engine that has made the same one before."""
    return Case(callable, situation, call, call, keywords, peer)


CASES = [
    Case("engine.connect", "an engine's first: login, SET, one query", checkout, peer=EACH_TIME),
    warm("engine.connect", "later, with the connection open", checkout, PINGED),
    warm("engine.connect", "unused for longer than `ping_after`", checkout, PINGED, **LONG_UNUSED),
    Case(
        "engine.begin",
        "first invocation: login, SET, query, a statement, COMMIT",
        transaction,
        peer=EACH_TIME,
    ),
    warm("engine.begin", "warm: a statement, COMMIT", transaction, PINGED),
    warm(
        "engine.begin",
        "a connection for each invocation: login, SET, a statement, COMMIT",
        invocation,
        EACH_TIME,
        **PER_INVOCATION,
    ),
    warm(
        "engine.begin",
        "AUTOCOMMIT, warm: a statement",
        transaction,
        {**PINGED, **AUTOCOMMIT},
        **AUTOCOMMIT,
    ),
    warm("Session", "warm: a statement, COMMIT", with_a_session, PINGED),
    warm("run_transaction", "warm: its session's id, a statement, COMMIT", unit_of_work),
    warm("run_transaction", "with a `sessionmaker` on MySQL", unit_with_a_session),
    Case("run_transaction", "with an idempotency key on MySQL", with_a_key, make_marks),
    warm("run_transaction", "repeated once, after a deadlock", repeated_once),
]


def counted(case: Case, cluster: Cluster) -> tuple[int, int | None]:
    """What a case costs on the wire, and what SQLAlchemy's engine costs in its place."""
    ours = _count(case, cluster, lambdadb.create_engine(cluster.url(), **case.keywords))
    if case.peer is None:
        return ours, None
    return ours, _count(case, cluster, sqlalchemy.create_engine(cluster.url(), **case.peer))


def _count(case: Case, cluster: Cluster, engine: Any) -> int:
    if case.before is not None:
        case.before(engine)
    before = cluster.round_trips
    case.call(engine)
    engine.dispose()
    return cluster.round_trips - before


@contextmanager
def counting() -> Iterator[Cluster]:
    """A cluster that counts round trips; raises `LabError` where MariaDB is not installed."""
    with MariaDB() as server, Cluster(server) as cluster:
        yield cluster


def row(case: Case, costs: tuple[int, int | None]) -> str:
    """A row of the page."""
    ours, peer = costs
    return f"| `{case.callable}` | {case.situation} | {ours} | {'' if peer is None else peer} |"


def page(rows: list[str]) -> str:
    """docs/reference/round-trips.md with these rows."""
    before, _, after = PAGE.read_text().partition(HEADER)
    rest = after.partition("\n\n")[2]
    return "\n".join([before + HEADER, *rows]) + f"\n\n{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--write", action="store_true", help=f"write {Path(PAGE).name}")
    chosen = parser.parse_args()
    with counting() as cluster:
        costs = [(case, counted(case, cluster)) for case in CASES]
    if chosen.write:
        PAGE.write_text(page([row(case, cost) for case, cost in costs]))
    if chosen.json:
        print(json.dumps([[case.callable, case.situation, *cost] for case, cost in costs]))
        return
    table = Table("callable", "situation", "lambdadb", "SQLAlchemy")
    for case, (ours, peer) in costs:
        table.add_row(case.callable, case.situation, str(ours), "" if peer is None else str(peer))
    Console().print(table)


if __name__ == "__main__":
    main()
