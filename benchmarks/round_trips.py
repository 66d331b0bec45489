"""
Round trips of every callable that reaches the database, counted on the wire by the lab's cluster.

    nox -s round_trips                  a table
    nox -s round_trips -- --write       writes docs/reference/round-trips.md; the tests compare the two
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from pgvector.sqlalchemy import VECTOR
from rich.console import Console
from rich.table import Table
from sqlalchemy import Column, Integer, MetaData, insert, literal_column, select, text
from sqlalchemy import Table as SQLTable
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

import lambdadb
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.postgres import Postgres

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "round-trips.md"
ONE = text("SELECT 1")
marks = SQLTable("mark", MetaData(), Column("id", Integer, primary_key=True))


Call = Callable[[Any], object]


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


def warm(callable: str, situation: str, call: Call, **keywords: Any) -> Case:
    """A call on an engine that has made the same one before."""
    return Case(callable, situation, call, call, keywords)


def transaction(engine: Any) -> None:
    with lambdadb.invocation(engine), engine.begin() as connection:
        connection.execute(ONE)


def vector_read(engine: Any) -> None:
    one = literal_column("CAST('[1,2,3]' AS vector)", VECTOR(3))
    with lambdadb.invocation(engine), engine.begin() as connection:
        if connection.execute(select(one)).scalar() != [1.0, 2.0, 3.0]:
            raise SystemExit("a vector that was read is not the one that was asked for")


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


def with_a_key(engine: Any) -> None:
    lambdadb.run_transaction(
        engine, lambda connection: connection.execute(ONE), idempotency_key=(marks.c.id, 2)
    )


def make_marks(engine: Any) -> None:
    with engine.begin() as connection:
        marks.metadata.create_all(connection)
        connection.execute(insert(marks).values(id=1))
    unit_of_work(engine)


def send_nothing(engine: Any) -> None:
    lambdadb.run_transaction(engine, lambda _: None)


def repeated_once(engine: Any) -> None:
    runs = iter([text("SELECT raise_conflict()"), ONE])
    lambdadb.run_transaction(engine, lambda connection: connection.execute(next(runs)))


def make_conflict(engine: Any) -> None:
    body = "BEGIN RAISE SQLSTATE '40001'; END"
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION raise_conflict() RETURNS int LANGUAGE plpgsql AS $$ {body} $$"
        )
    unit_of_work(engine)


LONG_UNUSED = {"policy": lambdadb.PerEnvironment(ping_after=0.0)}
RESETS = {"policy": lambdadb.PerEnvironment(reset="session")}
PER_INVOCATION = {"policy": lambdadb.PerInvocation()}
PSYCOPG = {"connect_args": {"cursor_factory": psycopg.Cursor}}
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}
PASSWORD = 2
"""Round trips that a login by password (SCRAM) takes more than one without."""

CASES = [
    Case("create_engine", "", lambda engine: lambdadb.create_engine(engine.url)),
    Case("engine.connect", "an engine's first: login and one query", checkout),
    warm("engine.connect", "later, with the connection open: its socket is polled", checkout),
    warm("engine.connect", "unused for longer than `ping_after`", checkout, **LONG_UNUSED),
    Case("engine.begin", "first invocation: login, query, BEGIN with a statement, COMMIT", transaction),
    Case("engine.begin", "first invocation, with a vector that is read", vector_read),
    warm("engine.begin", "warm: BEGIN with a statement, COMMIT", transaction),
    warm("engine.begin", "warm, the statement fails: BEGIN with it, ROLLBACK", failing),
    warm(
        "engine.begin",
        '`PerEnvironment(reset="session")`, once: reset, BEGIN with a statement, COMMIT',
        transaction,
        **RESETS,
    ),
    warm(
        "engine.begin",
        "`PerInvocation`: login, BEGIN with a statement, COMMIT",
        transaction,
        **PER_INVOCATION,
    ),
    warm(
        "engine.begin",
        "warm, with psycopg's own cursor: BEGIN, a statement, COMMIT",
        transaction,
        **PSYCOPG,
    ),
    warm("engine.begin", "AUTOCOMMIT, warm: a statement", transaction, **AUTOCOMMIT),
    warm("Session", "warm: BEGIN with a statement, COMMIT", with_a_session),
    Case(
        "run_transaction", "a connection's first: BEGIN, a statement, COMMIT", unit_of_work, transaction
    ),
    warm("run_transaction", "later: BEGIN with a statement, COMMIT", unit_of_work),
    warm("run_transaction", "later, with a `sessionmaker`", unit_with_a_session),
    Case("run_transaction", "later, with an idempotency key", with_a_key, make_marks),
    Case(
        "run_transaction", "later, repeated after a serialization failure", repeated_once, make_conflict
    ),
    Case("run_transaction", "later, if `work` sends nothing", send_nothing, unit_of_work),
    Case("engine.dispose", "the end of a session has no answer", lambda e: e.dispose(), checkout),
]


def counted(case: Case, cluster: Cluster) -> int:
    """What a case costs on the wire."""
    engine = lambdadb.create_engine(cluster.url() + "?sslmode=disable", **case.keywords)
    if case.before is not None:
        case.before(engine)
    before = cluster.round_trips, cluster.connects
    case.call(engine)
    logins = cluster.connects - before[1]
    engine.dispose()
    return cluster.round_trips - before[0] - PASSWORD * logins


@contextmanager
def counting() -> Iterator[Cluster]:
    """A cluster that counts round trips, with pgvector."""
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
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    chosen = parser.parse_args()
    with counting() as cluster:
        costs = [(case, counted(case, cluster)) for case in CASES]
    if chosen.write:
        PAGE.write_text(page(costs))
    if chosen.json:
        print(json.dumps([[case.callable, case.situation, cost] for case, cost in costs]))
        return
    table = Table("callable", "situation", "round trips")
    for case, cost in costs:
        table.add_row(case.callable, case.situation, str(cost))
    Console().print(table)


if __name__ == "__main__":
    main()
