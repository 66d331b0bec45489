"""
Round trips of every callable that reaches the database, counted on the wire by the lab's cluster.

    nox -s round_trips                  a table
    nox -s round_trips -- --write       renews docs/reference/round-trips.md, which the tests hold it to
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pgvector.sqlalchemy  # noqa: F401 an engine that finds it imported learns of its types
from rich.console import Console
from rich.table import Table
from sqlalchemy import Column, Integer, MetaData, insert, text
from sqlalchemy import Table as SQLTable
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

import lambdadb
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.postgres import Postgres

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "round-trips.md"
ONE = text("SELECT 1")
marks = SQLTable("mark", MetaData(), Column("id", Integer, primary_key=True))


@dataclass(frozen=True)
class Case:
    """A callable, the situation that it is called in, and how to get there and call it."""

    callable: str
    situation: str
    run: Callable[[Any], Callable[[], object]]
    """Given a URL, prepares the situation and returns the call to count."""


def warm(call: Callable[[Any], object], **keywords: Any) -> Callable[[Any], Callable[[], object]]:
    """Count `call(engine)` on an engine that has connected, and made the same call, before."""

    def prepare(url: str) -> Callable[[], object]:
        engine = lambdadb.create_engine(url, **keywords)
        call(engine)
        return lambda: call(engine)

    return prepare


def first(call: Callable[[Any], object], **keywords: Any) -> Callable[[Any], Callable[[], object]]:
    """Count `call(engine)` on an engine that has not connected yet."""

    def prepare(url: str) -> Callable[[], object]:
        engine = lambdadb.create_engine(url, **keywords)
        return lambda: call(engine)

    return prepare


def transaction(engine: Any) -> None:
    with lambdadb.invocation(engine), engine.begin() as connection:
        connection.execute(ONE)


def checkout(engine: Any) -> None:
    engine.connect().close()


def failing(engine: Any) -> None:
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT nothing"))
    except ProgrammingError:
        return
    raise AssertionError("the statement is to fail")


def with_a_session(engine: Any) -> None:
    with Session(engine) as session, session.begin():
        session.execute(ONE)


def unit_of_work(engine: Any) -> None:
    lambdadb.run_transaction(engine, lambda connection: connection.execute(ONE))


def unit_with_a_session(engine: Any) -> None:
    lambdadb.run_transaction(sessionmaker(engine), lambda session: session.execute(ONE))


def prepared_marker(url: str) -> Callable[[], object]:
    engine = lambdadb.create_engine(url)
    with engine.begin() as connection:
        marks.metadata.create_all(connection)
        connection.execute(insert(marks).values(id=1))
    work = (marks.c.id, 2)
    return lambda: lambdadb.run_transaction(engine, lambda c: c.execute(ONE), marker=work)


def repeated_once(engine: Any) -> None:
    runs = iter([text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"), ONE])
    lambdadb.run_transaction(engine, lambda connection: connection.execute(next(runs)))


def disposed(url: str) -> Callable[[], object]:
    engine = lambdadb.create_engine(url)
    checkout(engine)
    return engine.dispose


AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}
PER_INVOCATION = {"policy": lambdadb.PerInvocation()}
ALWAYS_PING = {"policy": lambdadb.PerEnvironment(ping_after=0.0)}

CASES = [
    Case("create_engine", "", lambda url: lambda: lambdadb.create_engine(url)),
    Case("engine.connect", "an engine's first: login, and one question to the server", first(checkout)),
    Case("engine.connect", "later, the connection is there: its socket is polled", warm(checkout)),
    Case("engine.connect", "unused for longer than `ping_after`", warm(checkout, **ALWAYS_PING)),
    Case(
        "engine.begin",
        "the first invocation: login, question, BEGIN, a statement, COMMIT",
        first(transaction),
    ),
    Case("engine.begin", "warm: BEGIN, a statement, COMMIT", warm(transaction)),
    Case("engine.begin", "warm, and the statement fails: BEGIN, it, ROLLBACK", warm(failing)),
    Case(
        "engine.begin",
        "`PerInvocation`, each invocation: login and those three",
        warm(transaction, **PER_INVOCATION),
    ),
    Case(
        "engine.begin",
        '`isolation_level="AUTOCOMMIT"`, warm: the statement',
        warm(transaction, **AUTOCOMMIT),
    ),
    Case("Session", "warm: BEGIN, a statement, COMMIT", warm(with_a_session)),
    Case("run_transaction", "warm: BEGIN with its id, a statement, COMMIT", warm(unit_of_work)),
    Case("run_transaction", "with a `sessionmaker`", warm(unit_with_a_session)),
    Case("run_transaction", "with a marker", prepared_marker),
    Case("run_transaction", "repeated once, after a serialization failure", warm(repeated_once)),
    Case("engine.dispose", "the session's end needs no answer", disposed),
]


def counted(case: Case, cluster: Cluster) -> int:
    """What a case costs on the wire."""
    call = case.run(cluster.url() + "?sslmode=disable")
    before = cluster.round_trips
    call()
    return cluster.round_trips - before


@contextmanager
def trusting() -> Iterator[Cluster]:
    """A cluster with trust login and pgvector."""
    with Postgres() as server, Cluster(server) as cluster:
        engine = lambdadb.create_engine(server.url())
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION vector"))
        engine.dispose()
        yield cluster


def page(costs: list[tuple[Case, int]]) -> str:
    """docs/reference/round-trips.md."""
    lines = [PAGE.read_text().partition("| callable |")[0] + "| callable | situation | round trips |"]
    lines += ["|---|---|---|"]
    lines += [f"| `{case.callable}` | {case.situation} | {cost} |" for case, cost in costs]
    rest = PAGE.read_text().partition("\n\n## ")[2]
    return "\n".join(lines) + f"\n\n## {rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.name}")
    chosen = parser.parse_args()
    with trusting() as cluster:
        costs = [(case, counted(case, cluster)) for case in CASES]
    if chosen.write:
        PAGE.write_text(page(costs))
    if chosen.json:
        print(json.dumps([{**vars(case), "run": None, "round_trips": cost} for case, cost in costs]))
        return
    table = Table("callable", "situation", "round trips")
    for case, cost in costs:
        table.add_row(case.callable, case.situation, str(cost))
    Console().print(table)


if __name__ == "__main__":
    main()
