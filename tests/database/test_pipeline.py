"""A transaction's first statement takes BEGIN with it, and nothing else is different."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

import lambdadb
from lambdadb.drivers.psycopg import pipeline as cursor

NAMES = text("SELECT name FROM item ORDER BY id")
INSERT = text("INSERT INTO item (name) VALUES (:name)")


def names(engine):
    """What is in the table, by a transaction of its own."""
    with engine.connect() as connection:
        return connection.scalars(NAMES).all()


def driver_of(connection):
    return connection.connection.driver_connection


def is_clean(connection):
    """Whether the connection is out of libpq's pipeline mode, inside a transaction."""
    pgconn = driver_of(connection).pgconn
    begun = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
    return pgconn.pipeline_status == PipelineStatus.OFF and pgconn.transaction_status in begun


@pytest.mark.parametrize(
    "first",
    [
        "INSERT INTO item (name) VALUES ('a')",
        "INSERT INTO item (name) VALUES ('a');",
        "INSERT INTO item (name) VALUES ('a'); SELECT 1",
        "SELECT 1",
        "SELECT ';'",
        "",
        "SAVEPOINT here",
        "DO $$ BEGIN PERFORM 1; END $$",
    ],
)
def test_the_first_statement_is_inside_the_transaction(first, mode, database):
    """Whatever it is, a rollback undoes it and what follows it."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            connection.execute(text(first))
            assert is_clean(connection)
            connection.execute(INSERT, {"name": "b"})
            connection.rollback()
        assert names(engine) == []
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1/0", DataError),
        ("SELECT nothing", ProgrammingError),
        ("SELEC", ProgrammingError),
        ("INSERT INTO item (id) VALUES (1), (1)", IntegrityError),
    ],
)
def test_a_first_statement_that_fails_fails_the_transaction(statement, error, mode, database):
    """Its own error comes back, the transaction is failed until it is rolled back, then all works."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            with pytest.raises(error):
                connection.execute(text(statement))
            assert is_clean(connection)
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                connection.execute(INSERT, {"name": "a"})
            connection.rollback()
            connection.execute(INSERT, {"name": "b"})
            connection.commit()
        assert names(engine) == ["b"]
        engine.dispose()

    mode.run(steps)


def begin_with(command, driver):
    """Let a connection begin its transactions with another command, psycopg's way too."""
    driver._begin_statement = command
    driver.begin_commands = lambda: [command]


@pytest.mark.parametrize("prepare_threshold", [0, None], ids=["prepared", "not prepared"])
@pytest.mark.parametrize(
    ("insert", "parameters"),
    [(INSERT, {"name": "a"}), (text("INSERT INTO item (name) VALUES ('a')"), None)],
    ids=["with parameters", "without"],
)
@pytest.mark.parametrize("begin", ["BEGIN BADLY", "SAVEPOINT outside"])
def test_a_begin_that_fails_executes_nothing(
    begin, insert, parameters, prepare_threshold, mode, database
):
    """The server skips the statement, and the error is BEGIN's."""

    def steps():
        arguments = {"prepare_threshold": prepare_threshold}
        engine = mode.create_engine(database, connect_args=arguments)
        with engine.connect() as connection:
            begin_with(begin.encode(), driver_of(connection))
            with pytest.raises(DBAPIError, match=r"BADLY|SAVEPOINT can only"):
                connection.execute(insert, parameters)
            pgconn = driver_of(connection).pgconn
            assert pgconn.pipeline_status == PipelineStatus.OFF
            assert pgconn.transaction_status == TransactionStatus.IDLE
            begin_with(b"BEGIN", driver_of(connection))
            connection.execute(INSERT, {"name": "b"})
            connection.commit()
        assert names(engine) == ["b"]
        engine.dispose()

    mode.run(steps)


def test_what_libpq_refuses_to_send_costs_no_connection(mode, database):
    """More parameters than the protocol has room for: an error, on a connection that goes on."""
    many = {f"p{number}": number for number in range(70_000)}
    too_much = text(f"SELECT {', '.join(f':{name}' for name in many)}")

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            backend = driver_of(connection).pgconn.backend_pid
            with pytest.raises(DBAPIError, match="number of parameters"):
                connection.execute(too_much, many)
            connection.rollback()
            assert names_of(connection) == []
            assert driver_of(connection).pgconn.backend_pid == backend
        engine.dispose()

    def names_of(connection):
        return connection.scalars(NAMES).all()

    mode.run(steps)


def test_a_statement_too_long_for_one_packet(mode, database):
    """Sent and answered in pieces, in both directions at once."""

    def steps():
        engine = mode.create_engine(database)
        long = "x" * 5_000_000
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT CAST(:long AS text)"), {"long": long}) == long
            assert is_clean(connection)
        engine.dispose()

    mode.run(steps)


def test_statements_are_prepared_as_ever(mode, database):
    """The sixth execution is by name, first in its transaction or not, and one that fails harms none."""

    def steps():
        engine = mode.create_engine(database)
        for number in range(8):
            with engine.begin() as connection:
                connection.execute(INSERT, {"name": f"{number}"})
        with engine.connect() as connection:
            driver = driver_of(connection)
            assert len(driver._prepared._names) == 1
            with pytest.raises(IntegrityError):
                connection.execute(INSERT, {"name": "7"})
            connection.rollback()
            connection.execute(INSERT, {"name": "8"})
            connection.commit()
        assert len(names(engine)) == 9
        engine.dispose()

    mode.run(steps)


def test_preparing_a_statement_that_is_wrong(mode, database):
    """The server's error comes back, and the statement counts as never prepared."""

    def steps():
        engine = mode.create_engine(database, connect_args={"prepare_threshold": 0})
        for _ in range(2):
            with engine.connect() as connection, pytest.raises(ProgrammingError, match="nothing"):
                connection.execute(text("SELECT nothing"))
        assert names(engine) == []
        engine.dispose()

    mode.run(steps)


def test_copy_by_execute_says_what_to_use(mode, database):
    """psycopg's own error. Nothing ends the COPY, so what comes next replaces the connection."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            with pytest.raises(ProgrammingError, match="use copy"):
                connection.execute(text("COPY item FROM STDIN"))
            with pytest.raises(DBAPIError, match="another command") as caught:
                connection.rollback()
            assert caught.value.connection_invalidated
        assert names(engine) == []
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("code", ["57014", "40001"])
def test_an_error_between_streamed_rows_leaves_the_connection(code, database):
    """The rows before it are read, and a savepoint can be rolled back to."""
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        connection.execute(text(FAIL))
        connection.commit()
        connection.execute(INSERT, {"name": "before"})
        savepoint = connection.begin_nested()
        rows = (
            driver_of(connection)
            .cursor()
            .stream(f"SELECT fail(n, '{code}') FROM generate_series(1, 5) n")
        )
        assert next(rows) == (1,)
        with pytest.raises(psycopg.OperationalError) as caught:
            list(rows)
        assert caught.value.sqlstate == code
        savepoint.rollback()
        connection.commit()
    assert names(engine) == ["before"]
    engine.dispose()


FAIL = """
    CREATE FUNCTION fail(n int, code text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN IF n = 3 THEN RAISE EXCEPTION 'failed' USING ERRCODE = code; END IF; RETURN n; END $$
"""


def test_a_stream_left_early_leaves_the_connection(database):
    """psycopg cancels the rest of it: the transaction has failed, the connection has not."""
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        driver = driver_of(connection)
        for _ in range(20):
            rows = driver.cursor().stream("SELECT n FROM generate_series(1, 1000000) n")
            assert next(rows) == (1,)
            rows.close()
            assert not driver.closed
            driver.rollback()
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"])
def test_the_isolation_level_is_the_engines(level, mode, database):
    """BEGIN carries it; in AUTOCOMMIT there is none."""

    def steps():
        engine = mode.create_engine(database, isolation_level=level)
        with engine.connect() as connection:
            shown = connection.scalar(text("SHOW transaction_isolation")).upper()
            begun = driver_of(connection).pgconn.transaction_status == TransactionStatus.INTRANS
        assert shown == level.replace("AUTOCOMMIT", "READ COMMITTED")
        assert begun is (level != "AUTOCOMMIT")
        engine.dispose()

    mode.run(steps)


def test_a_read_only_transaction_begins_so(mode, database):
    """SQLAlchemy's `postgresql_readonly` is honoured by the first statement already."""

    def steps():
        engine = mode.create_engine(database)
        reading = engine.execution_options(postgresql_readonly=True)
        with reading.connect() as connection, pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(INSERT, {"name": "a"})
        engine.dispose()

    mode.run(steps)


def test_other_first_ways_into_a_transaction(database):
    """COPY, a server-side cursor, many rows and psycopg's pipeline begin it as psycopg does."""
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        driver = driver_of(connection)
        with driver.cursor().copy("COPY item (name) FROM STDIN") as copy:
            copy.write_row(("copied",))
        driver.rollback()
        driver.cursor().executemany("INSERT INTO item (name) VALUES (%s)", [("many",), ("more",)])
        driver.rollback()
        with driver.pipeline():
            driver.execute("INSERT INTO item (name) VALUES ('piped')")
        driver.rollback()
        with driver.cursor("named") as named:
            assert named.execute("SELECT 1").fetchall() == [(1,)]
            assert driver.pgconn.transaction_status == TransactionStatus.INTRANS
        driver.rollback()
        assert driver.execute("SELECT count(*) FROM item").fetchone() == (0,)
    engine.dispose()


def test_a_cursor_of_ones_own_sends_begin_by_itself(database):
    """The way back to psycopg's behaviour, should anything between client and server need it."""
    engine = lambdadb.create_engine(database, connect_args={"cursor_factory": psycopg.Cursor})
    with engine.connect() as connection:
        assert type(driver_of(connection).cursor()) is psycopg.Cursor
        assert connection.scalar(text("SELECT 1")) == 1
        assert driver_of(connection).pgconn.transaction_status == TransactionStatus.INTRANS
    engine.dispose()


def test_without_libpqs_pipeline_begin_is_sent_by_itself(database, monkeypatch):
    """libpq before 14 has none."""
    monkeypatch.setattr(psycopg.capabilities, "has_pipeline", lambda: False)
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        assert not isinstance(driver_of(connection).cursor(), cursor.Cursor)
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_a_replication_connection_gets_psycopgs_cursor(database):
    """It takes no extended protocol, which two messages at once need."""
    arguments = {"replication": "database"}
    engine = lambdadb.create_engine(database, connect_args=arguments)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_prepared_statements_beyond_the_limit_are_dropped(mode, database):
    """The server keeps as many as psycopg's `prepared_max`, also of first statements."""

    def steps():
        engine = mode.create_engine(database, connect_args={"prepare_threshold": 0})
        with engine.connect() as connection:
            driver_of(connection).prepared_max = 1
            for number in range(3):
                connection.execute(text(f"SELECT {number}"))
                connection.commit()
        with engine.connect() as connection:
            kept = connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        assert kept <= 2
        engine.dispose()

    mode.run(steps)
