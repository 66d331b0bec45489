"""What a session of MariaDB is opened with, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import lambdadb
from lambdadb import PerEnvironment, PerInvocation
from lambdadb.aio import create_async_engine
from lambdadb.lab.faultproxy.proxy import Direction
from lambdadb.tracing.json_log import JsonLog

from ..waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "mysql.md"
SETTINGS = text("SELECT @@autocommit, @@wait_timeout, @@sql_mode, @@collation_connection")


class Base(DeclarativeBase):
    """The tables of these tests."""


class Unit(Base):
    """The table that the server has."""

    __tablename__ = "unit"
    name: Mapped[str] = mapped_column(primary_key=True)


def flights(server):
    """How often the client spoke and had to wait, since the proxy was armed."""
    directions = [message.direction for message in server.proxy.messages]
    pairs = itertools.pairwise(directions)
    return sum(pair == (Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT) for pair in pairs)


def test_the_server_shows_the_functions_name(mode, server, monkeypatch):
    """From the first moment of the session, in performance_schema.session_connect_attrs."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders-import")

    def steps():
        engine = mode.create_engine(server.url)
        with engine.connect():
            wait_until(lambda: server.sessions() == ["orders-import"])
        engine.dispose()

    mode.run(steps)


def test_a_session_begins_with_its_settings(mode, server):
    """Transactions are on, it ends after a minute unused, and sql_mode is the server's."""
    ((mode_of_server,),) = server.ask("SELECT @@global.sql_mode")

    def steps():
        engine = mode.create_engine(server.url, policy=PerEnvironment(idle_session_timeout=45))
        with engine.connect() as connection:
            autocommit, timeout, sql_mode, collation = connection.execute(SETTINGS).one()
        assert (autocommit, timeout, sql_mode) == (0, 45, mode_of_server)
        assert collation.startswith("utf8mb4")
        engine.dispose()

    mode.run(steps)


def test_what_the_caller_sets_stays(server):
    """`init_command` comes after lambdadb's own settings."""
    command = "SET SESSION wait_timeout = 30, sql_mode = 'ANSI'"
    engine = lambdadb.create_engine(server.url, connect_args={"init_command": command})
    with engine.connect() as connection:
        _, timeout, sql_mode, _ = connection.execute(SETTINGS).one()
    assert timeout == 30
    assert "ANSI" in sql_mode
    engine.dispose()


def test_what_connects_and_transactions_cost(mode, server):
    """Flights on the wire, as docs/mysql.md says: the login, one SET, and one question."""
    counted = {}

    def steps():
        engine = mode.create_engine(server.url, policy=PerInvocation())
        for name in ("first connect", "later connect"):
            with lambdadb.invocation(engine):
                server.proxy.arm(None)
                with engine.connect():
                    counted[name] = flights(server)
                server.proxy.arm(None)
                with engine.begin() as connection:
                    connection.execute(text("INSERT INTO unit VALUES (:name)"), {"name": name})
                counted["transaction"] = flights(server)
                server.proxy.arm(None)
                lambdadb.run_transaction(engine, lambda unit: unit.execute(text("SELECT 1")))
                counted["run_transaction"] = flights(server)
                server.proxy.arm(None)
                with engine.connect():
                    pass
                counted["checkout"] = flights(server)
        engine.dispose()

    mode.run(steps)
    assert counted == {
        "first connect": 3,
        "later connect": 2,
        "transaction": 2,
        "run_transaction": 3,
        "checkout": 0,
    }


def test_autocommit_costs_one_round_trip_for_each_statement(mode, server):
    """An engine in AUTOCOMMIT sends no COMMIT and no ROLLBACK; a transaction that was begun has both."""

    def steps():
        engine = mode.create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect():
            pass
        server.proxy.arm(None)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO unit VALUES ('a')"))
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO unit VALUES ('b')"))
        assert flights(server) == 2
        with engine.connect() as connection:
            connection.exec_driver_sql("START TRANSACTION")
            connection.execute(text("INSERT INTO unit VALUES ('undone')"))
            connection.rollback()
        with engine.connect() as connection:
            connection.exec_driver_sql("START TRANSACTION")
            connection.execute(text("INSERT INTO unit VALUES ('c')"))
            connection.commit()
        engine.dispose()

    mode.run(steps)
    assert server.rows() == ["a", "b", "c"]


@pytest.mark.parametrize("end", ["lost", "closed"])
def test_rows_that_are_streamed_and_not_read_leave_no_error_behind(server, end):
    """Neither when the connection is lost nor when it is closed; what was not read is no end of rows."""
    query = text("SELECT a.seq, REPEAT('x', 1000) FROM seq_1_to_1000 AS a JOIN seq_1_to_10 AS b")
    engine = lambdadb.create_engine(server.url)
    with engine.connect() as connection:
        rows = connection.execution_options(stream_results=True, max_row_buffer=10).execute(query)
        assert len(rows.fetchmany(5)) == 5
        if end == "lost":
            server.terminate()
            with pytest.raises(OperationalError):
                rows.fetchall()
        else:
            connection.invalidate()
            with pytest.raises(InterfaceError, match="before all rows"):
                rows.fetchall()
        del rows
    engine.dispose()
    gc.collect()  # an error in a finalizer fails the test


def test_rows_are_streamed_on_an_event_loop(server):
    """In the order in which they come, and the connection is used again."""

    async def steps():
        engine = create_async_engine(server.url)
        async with engine.connect() as connection:
            rows = await connection.stream(text("SELECT seq FROM seq_1_to_1000"))
            assert [row.seq async for row in rows] == list(range(1, 1001))
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()

    asyncio.run(steps())


def test_a_session_that_the_server_has_ended_is_replaced(mode, server):
    """After wait_timeout, without an error for the handler and without a round trip to see it."""

    def steps():
        engine = mode.create_engine(
            server.url, connect_args={"init_command": "SET SESSION wait_timeout = 1"}
        )
        with engine.begin() as connection:
            session = connection.connection.driver_connection
            connection.execute(text("INSERT INTO unit VALUES ('a')"))
        driver = engine.pool.connector.driver
        wait_until(lambda: driver.liveness(session) != "quiet")  # the end has arrived here
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO unit VALUES ('b')"))
        engine.dispose()

    mode.run(steps)
    assert server.rows() == ["a", "b"]


def test_the_orm_works(mode, server):
    """A session of the ORM, with a query and a flush."""

    def steps():
        engine = mode.create_engine(server.url)
        with Session(engine) as session, session.begin():
            session.add_all([Unit(name="a"), Unit(name="b")])
        with Session(engine) as session:
            assert session.query(Unit).count() == 2
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_an_isolation_level_is_set_and_taken_back(mode, server, level):
    """For one use of the connection; the next one has the engine's own again."""

    def steps():
        engine = mode.create_engine(server.url)
        with engine.connect() as connection:
            before = connection.get_isolation_level()
        with engine.execution_options(isolation_level=level).connect() as connection:
            if level != "AUTOCOMMIT":  # of which SQLAlchemy's dialect does not tell
                assert connection.get_isolation_level() == level
            connection.execute(text("INSERT INTO unit VALUES ('a')"))
        with engine.connect() as connection:
            assert connection.get_isolation_level() == before
        engine.dispose()

    mode.run(steps)
    assert server.rows() == ["a"] * (level == "AUTOCOMMIT")


def test_the_view_names_who_holds_the_connections(server, monkeypatch):
    """The published incident: of 56 connections one function holds 50, and the page's query shows it."""
    query = re.search(r"```sql\n(SELECT[^`]*session_connect_attrs[^`]*)```", PAGE.read_text())
    assert query, "the page has no such query"
    held = []
    for name, count in {"hot-insert": 50, "cold-insert": 6}.items():
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", name)
        engine = lambdadb.create_engine(server.url, policy=PerEnvironment(connections=count))
        held += [(engine, [engine.connect() for _ in range(count)])]
    expected = [("hot-insert", 50), ("cold-insert", 6)]
    wait_until(lambda: [row[:2] for row in server.ask(query[1])[:2]] == expected)
    for engine, connections in held:
        for connection in connections:
            connection.close()
        engine.dispose()


def test_a_trace_names_mysql_and_shows_no_literal(server):
    """The connect, and a statement with its parameters as placeholders."""
    lines = []
    engine = lambdadb.create_engine(server.url, tracer=JsonLog("all", write=lines.append))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO unit VALUES (:name)"), {"name": "canary-row"})
        connection.execute(text("DELETE FROM unit WHERE name = 'canary-literal'"))
        connection.execute(text('DELETE FROM unit WHERE name = "canary-in-double-quotes"'))
    engine.dispose()
    connect, *statements = [json.loads(line) for line in lines]
    assert connect["lambdadb"] == "connect"
    assert {line["system"] for line in [connect, *statements]} == {"mysql"}
    assert statements
    assert "canary" not in "".join(lines)
