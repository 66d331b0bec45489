"""
A connection of lambdadb does what one of SQLAlchemy and psycopg does.

Cases, generated from dimensions, run on an engine of SQLAlchemy and on one of lambdadb, with a fresh
connection each. What is observed is equal, or stands in the table of docs/differences.md.

A run takes a part of the 6,600 cases. `LAMBDADB_DIFFERENCES=all` takes them all.
"""

from __future__ import annotations

import gc
import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import URL, bindparam, text
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

import lambdadb

from .conftest import Mode

# Cases that fail leave cursors open, on either side.
pytestmark = pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")

EVERY_CASE = os.environ.get("LAMBDADB_DIFFERENCES") == "all"
PAGE = Path(__file__).parents[2] / "docs" / "differences.md"

SCHEMA = """
    CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE CHECK (name <> 'bad'));
    CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE ruled (id int);
    CREATE RULE also AS ON INSERT TO ruled DO ALSO SELECT 'also' AS added;
    CREATE TABLE instead (id int);
    CREATE RULE instead AS ON INSERT TO instead DO INSTEAD (SELECT 1 AS one; SELECT 2 AS two);
    CREATE FUNCTION fail(code text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'failed' USING ERRCODE = code; END $$;
    CREATE FUNCTION fail_at(n int, code text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN IF n = 3 THEN PERFORM fail(code); END IF; RETURN n; END $$;
    CREATE PROCEDURE work(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
"""
RESET = """
    SET client_min_messages = error;
    DELETE FROM item; DELETE FROM late; DELETE FROM ruled; SELECT setval('item_id_seq', 1, false);
    DROP TABLE IF EXISTS made; ALTER TABLE item DROP COLUMN IF EXISTS extra
"""

LOSE = "SELECT pg_terminate_backend(pg_backend_pid())"
STATEMENTS = {
    "select": "SELECT 1 AS one, 'a' AS letter",
    "select no rows": "SELECT * FROM item",
    "select nothing": "SELECT",
    "several rows": "SELECT n FROM generate_series(1, 3) n",
    "values": "VALUES (1), (2)",
    "insert": "INSERT INTO item (name) VALUES ('a'), ('b')",
    "insert;": "INSERT INTO item (name) VALUES ('a') ;  ",
    "returning": "INSERT INTO item (name) VALUES ('a') RETURNING id, name",
    "update": "UPDATE item SET name = 'c'",
    "delete": "DELETE FROM item",
    "merge": "MERGE INTO item USING (SELECT 'a') s (n) ON name = n "
    "WHEN NOT MATCHED THEN INSERT (name) VALUES (n)",
    "with": "WITH made AS (INSERT INTO item (name) VALUES ('a') RETURNING id) SELECT id FROM made",
    "rule also": "INSERT INTO ruled VALUES (1)",
    "rule instead": "INSERT INTO instead VALUES (1)",
    "create": "CREATE TABLE made (id int)",
    "create as": "CREATE TABLE made AS SELECT 1 AS id",
    "alter": "ALTER TABLE item ADD extra int",
    "comment on": "COMMENT ON TABLE item IS 'x'",
    "lock": "LOCK TABLE item",
    "do": "DO $$ BEGIN PERFORM 1; END $$",
    "notice": "DO $$ BEGIN RAISE NOTICE 'noted'; END $$",
    "warning": "DROP TABLE IF EXISTS absent",
    "call": "CALL work(1)",
    "call that commits": "CALL commits()",
    "copy in": "COPY item (name) FROM STDIN",
    "copy out": "COPY item TO STDOUT",
    "commented copy": "/* x */ COPY item (name) FROM STDIN",
    "two": "SELECT 1 AS one; SELECT 2 AS two",
    "two inserts": "INSERT INTO item (name) VALUES ('a'); INSERT INTO item (name) VALUES ('b')",
    "two, second fails": "INSERT INTO item (name) VALUES ('a'); SELECT 1/0",
    "two, second wrong": "INSERT INTO item (name) VALUES ('a'); SELEC",
    "two, commits": "INSERT INTO item (name) VALUES ('a'); COMMIT; SELECT 1",
    "two, commits and fails": "INSERT INTO item (name) VALUES ('a'); COMMIT; SELECT 1/0",
    "two, with empty": "; SELECT 1; ;",
    "empty": "",
    "blank": "  \n",
    "semicolon": ";",
    "comment": "-- nothing",
    "block comment": "/* nothing */",
    "select after comment": "-- a comment\nSELECT 1",
    "quoted semicolon": "SELECT ';' AS s",
    "dollar quoted": "SELECT $x$;$1$x$ AS s",
    "notify": "NOTIFY here, 'payload'",
    "listen and notify": "LISTEN here; NOTIFY here, 'payload'",
    "listen": "LISTEN here",
    "unlisten": "UNLISTEN *",
    "set": "SET search_path = pg_catalog",
    "set local": "SET LOCAL work_mem = '1MB'",
    "set transaction": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "set role": "SET ROLE none",
    "reset": "RESET ALL",
    "show": "SHOW transaction_isolation",
    "show read only": "SHOW transaction_read_only",
    "explain": "EXPLAIN (COSTS off) SELECT 1",
    "explain analyze": "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) SELECT 1",
    "prepare": "PREPARE q AS SELECT 1",
    "prepare and execute": "PREPARE q AS SELECT 1 AS one; EXECUTE q",
    "execute unknown": "EXECUTE q",
    "deallocate": "DEALLOCATE ALL",
    "discard": "DISCARD ALL",
    "declare": "DECLARE c CURSOR FOR SELECT 1",
    "declare and fetch": "DECLARE c CURSOR FOR SELECT 1 AS one; FETCH c",
    "savepoint": "SAVEPOINT here",
    "release unknown": "RELEASE SAVEPOINT nowhere",
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "commit and chain": "COMMIT AND CHAIN",
    "prepare transaction": "PREPARE TRANSACTION 'x'",
    "vacuum": "VACUUM item",
    "temporary": "CREATE TEMPORARY TABLE made (id int) ON COMMIT DROP",
    "dollar parameter": "SELECT $1",
    "dollar parameter, two": "SELECT 1; SELECT $1",
    "percent": "SELECT '%' AS s",
    "null character": "SELECT 1\0, 2",
    "syntax error": "SELEC 1",
    "syntax error, line 3": "SELECT\n1\nFRO item",
    "unterminated": "SELECT 'x",
    "unknown column": "SELECT nothing",
    "unknown table": "SELECT 1 FROM nowhere",
    "unknown table in insert": "INSERT INTO nowhere VALUES (1)",
    "unknown function": "SELECT nothing()",
    "division": "SELECT 1/0",
    "division of a column": "SELECT 1 / (n - 2) FROM generate_series(1, 3) n",
    "bad cast": "SELECT 'x'::int",
    "unique": "INSERT INTO item (name) VALUES ('a'), ('a')",
    "check": "INSERT INTO item (name) VALUES ('bad')",
    "deferred": "INSERT INTO late VALUES (1), (1)",
    "deferred, now": "INSERT INTO late VALUES (1), (1); SET CONSTRAINTS ALL IMMEDIATE",
    "canceled": "SELECT fail('57014')",
    "conflict": "SELECT fail('40001')",
    "deadlock": "SELECT fail('40P01')",
    "canceled in a row": "SELECT fail_at(n, '57014') FROM generate_series(1, 5) n",
    "conflict in a row": "SELECT fail_at(n, '40001') FROM generate_series(1, 5) n",
    "division in a row": "SELECT fail_at(n, '22012') FROM generate_series(1, 5) n",
    "timeout": "SET LOCAL statement_timeout = 20; SELECT pg_sleep(10)",
    "lost": LOSE,
    "lost in a row": f"SELECT CASE n WHEN 3 THEN ({LOSE}) END FROM generate_series(1, 5) n",
    "current query": "SELECT current_query() AS q",
    "time": "SELECT now() = statement_timestamp() AS same",
}
# Statements with parameters, and what is wrong with them.
PARAMETERS: dict[str, tuple[str, Any]] = {
    "good": ("SELECT %s::int AS n, %s::text AS t", [1, "a"]),
    "named": ("SELECT %(n)s::int AS n", {"n": 1}),
    "insert": ("INSERT INTO item (name) VALUES (%s)", ["a"]),
    "returning": ("INSERT INTO item (name) VALUES (%s) RETURNING id", ["a"]),
    "rule also": ("INSERT INTO ruled VALUES (%s)", [1]),
    "nothing": ("SELECT 1", []),
    "percent": ("SELECT '%%' AS s", []),
    "unique": ("INSERT INTO item (name) VALUES (%s), ('a')", ["a"]),
    "deferred": ("INSERT INTO late VALUES (%s), (1)", [1]),
    "syntax error": ("SELEC %s", [1]),
    "unknown column": ("SELECT nothing, %s", [1]),
    "division": ("SELECT 1 / %s", [0]),
    "bad text": ("SELECT %s::int", ["x"]),
    "unknown type": ("SELECT %s", [None]),
    "two statements": ("SELECT %s; SELECT 2", [1]),
    "not adaptable": ("SELECT %s", [object()]),
    "null character": ("SELECT %s", ["a\0b"]),
    "surrogate": ("SELECT %s", ["\ud800"]),
    "too few": ("SELECT %s, %s", [1]),
    "too many": ("SELECT %s", [1, 2]),
    "missing name": ("SELECT %(n)s", {"m": 1}),
    "bad placeholder": ("SELECT %z", [1]),
    "incomplete placeholder": ("SELECT %(n", {"n": 1}),
    "mixed placeholders": ("SELECT %s, %(n)s", [1]),
    "mapping for positions": ("SELECT %s", {"n": 1}),
    "no sequence": ("SELECT %s", 1),
    "not a query": (1, None),  # type: ignore[dict-item]
    "huge": ("SELECT length(%s)", ["x" * 200_000]),
    "copy": ("COPY (SELECT %s) TO STDOUT", [1]),
    "canceled": ("SELECT fail(%s)", ["57014"]),
    "conflict": ("SELECT fail(%s)", ["40001"]),
    "lost": (f"{LOSE} OR %s", [True]),
}
POSITIONS = {
    "first": [],
    "second": ["SELECT 1"],
    "after a savepoint": ["SAVEPOINT before"],
    "after an error": ["SELECT 1/0"],
    "after a rollback": ["INSERT INTO item (name) VALUES ('gone')", None],
}


@dataclass(frozen=True)
class Case:
    """One thing to do with a connection."""

    name: str
    do: Callable[[Any], Any]
    """With the driver's connection, or SQLAlchemy's; returns what it saw."""
    position: str = "first"
    keywords: dict[str, Any] = field(default_factory=dict)
    """Of the engine."""
    level: str = "driver"


def settled(value: Any) -> Any:
    """`value`, or what it awaits."""
    return await_only(value) if inspect.isawaitable(value) else value


def shown(error: BaseException) -> dict[str, Any]:
    """What a caller can see of an error."""
    original = getattr(error, "orig", None) or error
    diagnosis = getattr(original, "diag", None)
    # Addresses of objects differ, and with the length of a cursor's name all that comes after it.
    message, *_ = re.split(r"c_[0-9a-f]+_[0-9a-f]+", re.sub(r"0x[0-9a-f]+|port \d+", "_", str(original)))
    whole = message == str(original)
    return {
        "type": type(error).__name__,
        "original": type(original).__name__,
        "sqlstate": getattr(original, "sqlstate", None),
        "text": message,
        "statement_position": diagnosis.statement_position if whole and diagnosis else None,
        "invalidated": getattr(error, "connection_invalidated", None),
    }


def results(cursor: Any) -> list[Any]:
    """Each result of a cursor."""
    found = []
    while True:
        description = cursor.description and [(c.name, c.type_code) for c in cursor.description]
        rows = None if description is None else settled(cursor.fetchall())
        found.append((description, rows, cursor.rowcount, cursor.statusmessage))
        if not cursor.nextset():
            return found


def execute(connection: Any, statement: Any, parameters: Any = None, **keywords: Any) -> Any:
    """By a cursor of the driver."""
    cursor = connection.cursor()
    settled(cursor.execute(statement, parameters, **keywords))
    return results(cursor)


def execute_repeatedly(connection: Any, statement: Any, parameters: Any = None) -> Any:
    """Until it is prepared."""
    return [execute(connection, statement, parameters, prepare=True) for _ in range(3)]


def execute_by_name(connection: Any, statement: Any, parameters: Any = None) -> Any:
    """By a cursor on the server."""
    cursor = connection.cursor("named")
    try:
        settled(cursor.execute(statement, parameters))
        return [settled(cursor.fetchone()), settled(cursor.fetchall())]
    finally:
        settled(cursor.close())


def execute_in_pipeline(connection: Any, statement: Any, parameters: Any = None) -> Any:
    """In psycopg's own pipeline."""

    async def run() -> Any:
        async with connection.pipeline():
            return await connection.execute(statement, parameters)

    if isinstance(connection, psycopg.AsyncConnection):
        return results(await_only(run()))
    with connection.pipeline():
        cursor = connection.execute(statement, parameters)
    return results(cursor)


def execute_many(connection: Any, statement: Any, parameters: Any = None) -> Any:
    """For two sets of parameters."""
    cursor = connection.cursor()
    settled(cursor.executemany(statement, [parameters or []] * 2))
    return cursor.rowcount, cursor.statusmessage


def stream(connection: Any, statement: Any, parameters: Any = None, limit: int = 100) -> Any:
    """Row by row, `limit` at most."""

    async def run() -> None:
        generator = connection.cursor().stream(statement, parameters)
        try:
            async for row in generator:
                rows.append(row)
                if len(rows) == limit:
                    break
        finally:
            await generator.aclose()

    rows: list[Any] = []
    try:
        if isinstance(connection, psycopg.AsyncConnection):
            await_only(run())
            return rows
        for row in (generator := connection.cursor().stream(statement, parameters)):
            rows.append(row)
            if len(rows) == limit:
                break
        generator.close()
    except psycopg.Error as error:
        return rows, shown(error)
    return rows


def copy(connection: Any, statement: Any, parameters: Any = None) -> Any:
    """By `copy()`, written to or read."""

    async def run() -> Any:
        async with connection.cursor().copy(statement, parameters) as operation:
            if "FROM" in str(statement):
                return await operation.write_row(("copied",))
            return [bytes(data) async for data in operation]

    if isinstance(connection, psycopg.AsyncConnection):
        return await_only(run())
    with connection.cursor().copy(statement, parameters) as operation:
        return (
            operation.write_row(("copied",)) if "FROM" in str(statement) else list(map(bytes, operation))
        )


def attempt(do: Callable[[], Any]) -> Any:
    """What `do` returns, or its error."""
    try:
        return do()
    except Exception as error:
        return shown(error)


def observe(connection: sqlalchemy.Connection, case: Case) -> dict[str, Any]:
    """Everything that is compared."""
    driver: Any = connection.connection.driver_connection
    seen: dict[str, Any] = {}
    heard: list[Any] = []
    driver.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary)))
    driver.add_notify_handler(lambda notify: heard.append((notify.channel, notify.payload)))
    subject = driver if case.level == "driver" else connection
    for preceding in POSITIONS[case.position]:
        attempt(partial(before, subject, preceding))
    seen["did"] = attempt(lambda: case.do(subject))
    seen["status"] = driver.pgconn.transaction_status
    seen["pipeline"] = driver.closed or driver.pgconn.pipeline_status
    seen["closed"] = driver.closed
    seen["next"] = attempt(partial(before, subject, "SELECT 'next'"))
    seen["rollback"] = attempt(lambda: settled(subject.rollback()))
    seen["reset"] = driver.pgconn.transaction_status, driver.closed
    seen["usable"] = attempt(partial(before, subject, "SELECT name FROM item ORDER BY id"))
    seen["commit"] = attempt(lambda: settled(subject.commit()))
    seen["heard"] = heard
    return seen


def before(subject: Any, statement: str | None) -> Any:
    """A statement (None: a rollback) beside the one that is compared."""
    if statement is None:
        return settled(subject.rollback())
    if isinstance(subject, sqlalchemy.Connection):
        return [tuple(row) for row in subject.execute(text(statement))]
    return execute(subject, statement)


# The cases

WAYS: dict[str, Callable[..., Any]] = {
    "execute": execute,
    "prepared": partial(execute, prepare=True),
    "prepared thrice": execute_repeatedly,
    "never prepared": partial(execute, prepare=False),
    "binary": partial(execute, binary=True),
    "stream": stream,
    "stream left early": partial(stream, limit=2),
    "copy": copy,
    "server-side cursor": execute_by_name,
    "pipeline": execute_in_pipeline,
    "executemany": execute_many,
}
ENGINES: dict[str, dict[str, Any]] = {
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "prepare at once": {"connect_args": {"prepare_threshold": 0}},
    "never prepare": {"connect_args": {"prepare_threshold": None}},
}
EXECUTION_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stream_results": {"stream_results": True, "max_row_buffer": 2},
    "serializable": {"isolation_level": "SERIALIZABLE"},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
    "read only": {"postgresql_readonly": True},
    "deferrable": {"postgresql_deferrable": True, "postgresql_readonly": True},
}
ALL = [(name, statement, None) for name, statement in STATEMENTS.items()]
ALL += [(f"{name} (parameters)", *given) for name, given in PARAMETERS.items()]
# What ends psycopg's own pipeline ends it in one of two ways, by chance.
BY_CHANCE = {(way, end) for way in ("pipeline", "executemany") for end in ("copy", "lost")}
BY_CHANCE |= {("server-side cursor", "lost")}


def driver_cases(way: str) -> list[Case]:
    """By a cursor of the driver."""

    def run(statement: Any, parameters: Any, connection: Any) -> Any:
        return WAYS[way](connection, statement, parameters)

    return [
        Case(f"{way}: {name}", partial(run, statement, parameters), position)
        for name, statement, parameters in ALL
        for position in (POSITIONS if way == "execute" else ["first"])
        if not any(way == w and end in name for w, end in BY_CHANCE)
    ]


def engine_cases() -> list[Case]:
    """By a cursor of the driver, which the engine's options have changed."""

    def run(statement: Any, parameters: Any, connection: Any) -> Any:
        return execute(connection, statement, parameters)

    return [
        Case(f"{option}: {name}", partial(run, statement, parameters), keywords=keywords)
        for option, keywords in ENGINES.items()
        for name, statement, parameters in ALL
    ]


def sqlalchemy_cases() -> list[Case]:
    """By SQLAlchemy's `Connection.execute`."""

    def run(options: Any, statement: Any, parameters: Any, connection: Any) -> Any:
        result = connection.execution_options(**options).execute(statement, parameters)
        if not result.returns_rows:
            return result.rowcount
        return list(result.keys()), [tuple(row) for row in result], result.rowcount

    def case(option: str, name: str, statement: Any, parameters: Any, position: str) -> Case:
        options = EXECUTION_OPTIONS[option]
        return Case(
            f"SQLAlchemy, {option}: {name}",
            partial(run, options, statement, parameters),
            position,
            level="SQLAlchemy",
        )

    insert = text("INSERT INTO item (name) VALUES (:n)")
    typed = text("SELECT :n AS n").bindparams(bindparam("n", type_=sqlalchemy.Integer))
    with_parameters = [
        ("many", insert, [{"n": "a"}, {"n": "b"}]),
        ("many, one wrong", insert, [{"n": "a"}, {"n": "a"}]),
        ("not adaptable", typed, {"n": object()}),
        ("null character", insert, {"n": "a\0"}),
        ("missing", insert, {}),
        ("unique", text("INSERT INTO item (name) VALUES (:n), (:n)"), {"n": "a"}),
    ]
    # Where the server refuses the first row, it depends on the network which of two errors comes first.
    half_adaptable = ("many, one not adaptable", insert, [{"n": "a"}, {"n": object()}])
    unfailed = [position for position in POSITIONS if position != "after an error"]
    writable = [o for o, keywords in EXECUTION_OPTIONS.items() if "postgresql_readonly" not in keywords]
    plain = [(n, text(s), None) for n, s in STATEMENTS.items() if ":" not in s and "\0" not in s]
    return [
        *(case(o, *one, "first") for o in EXECUTION_OPTIONS for one in plain),
        *(case(o, *one, p) for o in EXECUTION_OPTIONS for one in with_parameters for p in POSITIONS),
        *(case(o, *half_adaptable, p) for o in writable for p in unfailed),
    ]


GROUPS: dict[str, list[Case]] = {
    **{f"driver, {way}": driver_cases(way) for way in WAYS},
    "engine": engine_cases(),
    "SQLAlchemy": sqlalchemy_cases(),
}


# What is different, by its name in the table of docs/differences.md


def less_positions(seen: Any) -> str:
    return re.sub(r"LINE \d+:|'statement_position': '\d+'", "", repr(seen))


def is_error_position(case: Case, what: str, theirs: Any, ours: Any) -> bool:
    return what == "did" and less_positions(theirs[what]) == less_positions(ours[what])


def is_current_query(case: Case, what: str, theirs: Any, ours: Any) -> bool:
    same = repr(theirs[what]) == re.sub(r"BEGIN[A-Z ]*;\\n", "", repr(ours[what]))
    return what == "did" and "current query" in case.name and same


def is_transaction_time(case: Case, what: str, theirs: Any, ours: Any) -> bool:
    return what == "did" and case.name.endswith(": time")


def is_rollback_of_lost(case: Case, what: str, theirs: Any, ours: Any) -> bool:
    return what == "rollback" and ours[what] is None and "connection is lost" in repr(theirs[what])


def is_stuck_in_copy(case: Case, what: str, theirs: Any, ours: Any) -> bool:
    return "already in progress" in repr(theirs["usable"]) and ours["reset"] == (4, True)


ACCEPTED: dict[str, tuple[Callable[[Case, str, Any, Any], bool], str]] = {
    "position of an error": (is_error_position, "execute: unknown column"),
    "current_query()": (is_current_query, "execute: current query"),
    "statement_timestamp()": (is_transaction_time, "execute: time"),
    "rollback of a lost connection": (is_rollback_of_lost, "execute: lost"),
    "COPY by execute()": (is_stuck_in_copy, "execute: copy in"),
}
"""Each with a test for it, and a case in which it is seen."""


class Comparison:
    """Runs cases on both sides."""

    def __init__(self, url: URL, admin: psycopg.Connection[Any]) -> None:
        self.url, self.admin = url, admin

    def differences(self, mode: Mode, cases: list[Case]) -> list[tuple[Case, str, Any, Any]]:
        """What is different in each case: case, what, and both observations."""
        found = []
        for keywords in {repr(case.keywords): case.keywords for case in cases}.values():
            engines = self.engines(mode, keywords)
            for case in cases:
                if case.keywords == keywords:
                    theirs, ours = (self.run(engine, case) for engine in engines)
                    found += [(case, w, theirs, ours) for w in theirs if theirs[w] != ours[w]]
            for engine in engines:
                engine.dispose()
        gc.collect()  # those cursors, here and not in another test
        return found

    def engines(self, mode: Mode, keywords: dict[str, Any]) -> tuple[Any, Any]:
        """SQLAlchemy's and ours, each with a connection for each use."""
        ours = mode.create_engine(self.url, policy=lambdadb.PerInvocation(), **keywords)
        if not mode.asynchronous:
            return sqlalchemy.create_engine(self.url, poolclass=NullPool, **keywords), ours
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(self.url, poolclass=NullPool, **keywords).sync_engine, ours

    def run(self, engine: Any, case: Case) -> dict[str, Any]:
        """What is observed, in tables that are as at the beginning."""
        self.admin.execute(RESET)
        connection = engine.connect()
        try:
            return observe(connection, case)
        finally:
            connection.invalidate()
            connection.close()


@pytest.fixture(scope="module")
def comparison(server: URL, admin: psycopg.Connection[Any]) -> Iterator[Comparison]:
    name = f"differences_{os.getpid()}"
    admin.execute(f"CREATE DATABASE {name}")
    admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    url = server.set(database=name)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as own:
        own.execute(SCHEMA)
        yield Comparison(url, own)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", GROUPS)
def test_it_does_what_sqlalchemy_and_psycopg_do(group, mode, comparison):
    """In each case of the group, except for the accepted differences."""
    cases = GROUPS[group]
    if not EVERY_CASE:  # another part for each group, mode and position
        step = 11
        cases = cases[(list(GROUPS).index(group) + mode.asynchronous) % step :: step]

    def steps():
        return [
            f"{case.name}, {case.position}, {what}:\n  {theirs[what]}\n  {ours[what]}"
            for case, what, theirs, ours in comparison.differences(mode, cases)
            if not any(accepts(case, what, theirs, ours) for accepts, _ in ACCEPTED.values())
        ]

    unexpected = mode.run(steps)
    assert not unexpected, "\n".join(unexpected)


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_accepted_difference_is_still_one(name, mode, comparison):
    """It is seen in its case: the table claims none that has gone."""
    accepts, wanted = ACCEPTED[name]
    every = [case for cases in GROUPS.values() for case in cases]
    cases = [case for case in every if case.name == wanted and case.position == "first"]
    assert any(accepts(*found) for found in mode.run(lambda: comparison.differences(mode, cases)))


def test_the_table_names_the_accepted_differences():
    """All of them, and no others."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == list(ACCEPTED)
