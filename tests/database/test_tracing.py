"""The spans of an engine's work against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import lambdadb
import lambdadb.aio
from lambdadb.testing import SpanRecorder


class Recorder(SpanRecorder):
    """Keeps spans, and can stop doing so."""

    on = True

    def recording(self):
        return self.on


@pytest.fixture
def recorder():
    return Recorder()


def test_a_statement_is_recorded_with_its_time_and_without_its_values(mode, database, recorder):
    """The text with placeholders, where it ran and how long; nothing that was passed or written."""

    def steps():
        engine = mode.create_engine(database, tracer=recorder)
        with engine.begin() as connection:
            query = text("SELECT 'canary-0literal', pg_sleep(0.05) WHERE :value <> '1'")
            connection.execute(query, {"value": "canary-0value"})
        engine.dispose()

    mode.run(steps)
    (span,) = recorder.named("statement")
    assert "canary" not in repr(span)
    recorded = span.attributes
    assert recorded["db.query.text"] == "SELECT ?, pg_sleep(?) WHERE %(value)s <> ?"
    assert recorded["db.operation.name"] == "SELECT"
    assert (recorded["db.namespace"], recorded["server.port"]) == (database.database, database.port)
    assert recorded["lambdadb.driver"].startswith("psycopg 3.")
    assert 0.05 <= span.seconds < 5.0
    (connect,) = recorder.named("connect")
    assert connect.began + connect.seconds <= span.began + 0.001


def test_a_batch_is_one_span_with_its_size(mode, database, recorder):
    """Rows of one `executemany` are one statement."""

    def steps():
        engine = mode.create_engine(database, tracer=recorder)
        with engine.begin() as connection:
            insert = text("INSERT INTO item (name) VALUES (:name)")
            connection.execute(insert, [{"name": "a"}, {"name": "b"}, {"name": "c"}])
        engine.dispose()

    mode.run(steps)
    (span,) = recorder.named("statement")
    assert span.attributes["db.operation.batch.size"] == 3


@pytest.mark.parametrize(
    ("query", "sqlstate"),
    [("SELECT nothing", "42703"), ("SELECT pg_terminate_backend(pg_backend_pid())", "57P01")],
)
def test_a_failed_statement_is_recorded_with_its_sqlstate(
    mode, database, recorder, query, sqlstate, caplog
):
    """Also where its connection is lost, of which the driver then knows nothing more."""

    def steps():
        engine = mode.create_engine(database, tracer=recorder)
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(query))
        engine.dispose()

    mode.run(steps)
    (span,) = recorder.named("statement")
    assert span.attributes["db.response.status_code"] == sqlstate
    assert span.error is not None
    assert "failed; the traced work" not in caplog.text


@pytest.mark.parametrize(
    ("statements", "recorded"), [("all", 2), ("none", 0), ("traced", 1), (0.04, 1), (60.0, 0)]
)
def test_only_the_selected_statements_are_recorded(mode, database, statements, recorded):
    """All, none, those inside a block of the user's own, or those that take long."""
    recorder = Recorder(statements)

    def steps():
        engine = mode.create_engine(database, tracer=recorder)
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            with lambdadb.trace("slow"):
                connection.execute(text("SELECT pg_sleep(0.05)"))
        engine.dispose()

    mode.run(steps)
    assert len(recorder.named("statement")) == recorded


def test_nothing_is_recorded_in_an_invocation_that_is_not_sampled(mode, database, recorder):
    """An invocation that is not sampled."""
    recorder.on = False

    def steps():
        engine = mode.create_engine(database, tracer=recorder)
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()

    mode.run(steps)
    assert not recorder.spans


def test_a_tracer_that_fails_changes_no_result(mode, database, caplog):
    """Neither a connect nor a statement: its failure is logged."""

    class Broken(Recorder):
        def record(self, span):
            raise ZeroDivisionError

    def steps():
        engine = mode.create_engine(database, tracer=Broken())
        with engine.begin() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()

    mode.run(steps)
    assert caplog.text.count("Broken failed") == 2


def test_a_repeated_transaction_is_recorded(database, recorder):
    """How often it ran; one that ran once, as usual, is no news."""
    engine = lambdadb.create_engine(database, tracer=recorder)
    runs = iter(["DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", "SELECT 1"])
    lambdadb.run_transaction(engine, lambda connection: connection.execute(text(next(runs))))
    lambdadb.run_transaction(engine, lambda connection: connection.execute(text("SELECT 1")))
    engine.dispose()
    (span,) = recorder.named("transaction")
    assert span.attributes == {"lambdadb.runs": 2}
    assert span.error is None


def test_a_reconnect_records_how_long_the_lost_connection_was_idle(database, recorder, sessions):
    """The connect after a thaw is recorded apart from a first one."""
    engine = lambdadb.create_engine(database, tracer=recorder)
    engine.connect().close()
    sessions.terminate()
    engine.connect().close()
    engine.dispose()
    first, second = recorder.named("connect")
    assert "lambdadb.idle" not in first.attributes
    assert 0.0 <= second.attributes["lambdadb.idle"] < 60.0


def test_the_login_is_a_part_of_the_connect(database, recorder):
    """So that a slow store of secrets is not taken for a slow database."""

    class Store:
        def logins(self, parameters):
            yield {"password": database.password}

    url = database._replace(password=None)
    engine = lambdadb.create_engine(url, tracer=recorder, credentials=Store())
    engine.connect().close()
    engine.dispose()
    (connect,) = recorder.named("connect")
    assert [part.name for part in connect.children] == ["login", "attempt"]
    assert connect.attributes["lambdadb.user"] == database.username


def test_a_cancelled_connect_is_recorded(recorder):
    """Its span tells what was tried, and that it was cancelled."""

    async def steps():
        accepted = asyncio.Event()

        async def stay_silent(reader, writer):
            accepted.set()
            await reader.read()  # until the connect has gone
            writer.close()

        async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"postgresql+psycopg://app@127.0.0.1:{port}/shop"
            engine = lambdadb.aio.create_async_engine(url, tracer=recorder)
            task = asyncio.create_task(engine.connect().start())
            await accepted.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await engine.dispose()

    asyncio.run(steps())
    (span,) = recorder.named("connect")
    assert isinstance(span.error, asyncio.CancelledError)
    assert span.attributes["lambdadb.attempts"] == 1
    assert (span.attributes["db.namespace"], span.attributes["lambdadb.user"]) == ("shop", "app")


def test_a_connect_and_its_login_are_started_before_they_end(mode, database):
    """What a store of logins does runs inside `login`, and that inside `connect`."""

    class Started(Recorder):
        @contextlib.contextmanager
        def start_span(self, name, began):
            before = current.get()
            current.set((*before, name))
            yield current.get()
            current.set(before)

    class Store:
        def logins(self, parameters):
            seen.append(current.get())
            yield {"password": database.password}

    class AsyncStore:
        async def logins(self, parameters):
            seen.append(current.get())
            yield {"password": database.password}

    current = contextvars.ContextVar("current", default=())
    seen = []
    recorder = Started()
    stores = [Store(), AsyncStore()] if mode.asynchronous else [Store()]

    def steps():
        for store in stores:
            url = database._replace(password=None)
            engine = mode.create_engine(url, tracer=recorder, credentials=store)
            engine.connect().close()
            engine.dispose()
            assert current.get() == ()

    mode.run(steps)
    assert seen == [("connect", "login")] * len(stores)
    for connect in recorder.named("connect"):
        assert connect.handle == ("connect",)
        assert [part.handle for part in connect.children if part.name == "login"] == [
            ("connect", "login")
        ]
