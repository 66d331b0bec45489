"""What a session tells the server, how it ends, and that its end never reaches a handler."""

from __future__ import annotations

import asyncio
import time
import traceback

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import lambdadb
from lambdadb import ConnectFailed, Fault, PerEnvironment, PerInvocation
from lambdadb.aio import create_async_engine
from lambdadb.deadline import Clock
from lambdadb.lab.context import FakeContext

from .conftest import PASSWORD

PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def in_lambda(monkeypatch):
    """The environment of a function."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders-import")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "12")


def test_the_server_shows_the_functions_name(in_lambda, road, database, sessions):
    """An operator finds the function in pg_stat_activity, from the first moment of the session."""

    def steps():
        engine = road.create_engine(database)
        with engine.connect():
            assert [name for _, name, _ in sessions.become(1)] == ["orders-import"]
        engine.dispose()

    road.run(steps)


def test_the_callers_template_is_used(in_lambda, road, database, sessions):
    """Name, version and alias as the caller wants them."""

    context = FakeContext(arn="arn:aws:lambda:eu-west-1:1:function:orders-import:live")

    def steps():
        engine = road.create_engine(database, tag="{name}/{version}/{alias}", policy=PerInvocation())
        with road.invocation(engine, context), engine.connect():
            assert [name for _, name, _ in sessions.become(1)] == ["orders-import/12/live"]

    road.run(steps)


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_idle_sessions_end_by_default(policy, road, database):
    """The server knows from the startup packet when to end an idle session, in a transaction or not."""

    def steps():
        engine = road.create_engine(database, policy=policy)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW idle_session_timeout")) == "1min"
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"
        engine.dispose()

    road.run(steps)


def test_the_idle_timeout_can_be_left_to_the_server(road, database):
    """None sends nothing."""

    def steps():
        policy = PerEnvironment(idle_session_timeout=None, idle_in_transaction_session_timeout=None)
        engine = road.create_engine(database, policy=policy)
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW idle_session_timeout")) == "0"
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
        engine.dispose()

    road.run(steps)


def test_a_session_that_the_server_ended_for_idleness_is_replaced(road, database, sessions):
    """57P05 while frozen: the next invocation connects again and sees no error."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment(idle_session_timeout=1.0))
        with engine.connect() as connection:
            before = connection.scalar(PID)
        sessions.become(0)
        with engine.begin() as connection:
            assert connection.scalar(PID) != before
        engine.dispose()

    road.run(steps)


@pytest.mark.parametrize("times", [1, 3])
def test_a_session_that_was_killed_is_replaced(times, road, database, sessions):
    """57P01 (operator, failover) between invocations reaches no handler, however often."""

    def steps():
        engine = road.create_engine(database)
        with engine.connect() as connection:
            connection.execute(PID)
        for _ in range(times):
            sessions.terminate()
            with engine.begin() as connection:
                connection.execute(PID)
        engine.dispose()

    road.run(steps)


def test_a_live_session_is_not_pinged(road, database):
    """The check of a connection used a moment ago sends no statement."""

    def steps():
        engine = road.create_engine(database)
        with engine.connect():
            pass
        pings = count_pings(engine)
        with engine.connect():
            pass
        assert pings == []
        engine.dispose()

    road.run(steps)


def test_a_session_long_unused_is_pinged_once(road, database):
    """After `ping_after` seconds one real ping finds what no socket tells."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment(ping_after=0.0))
        with engine.connect():
            pass
        pings = count_pings(engine)
        with engine.connect():
            pass
        assert len(pings) == 1
        engine.dispose()

    road.run(steps)


def count_pings(engine):
    pings = []
    original = engine.dialect.do_ping

    def do_ping(connection):
        pings.append(connection)
        return original(connection)

    engine.dialect.do_ping = do_ping
    return pings


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_the_orm_works_unchanged(road, database):
    """Insert, flush, select, rollback through an ordinary Session."""

    def steps():
        engine = road.create_engine(database)
        with Session(engine) as session, session.begin():
            session.add_all([Item(name="a"), Item(name="b")])
        with Session(engine) as session:
            session.add(Item(name="c"))
            session.flush()
            session.rollback()
            assert session.scalars(text("SELECT name FROM item ORDER BY id")).all() == ["a", "b"]
        engine.dispose()

    road.run(steps)


def test_psycopgs_own_keywords_reach_the_connection(road, database):
    """autocommit, prepare_threshold and an isolation level behave as with SQLAlchemy alone."""

    def steps():
        engine = road.create_engine(
            database,
            isolation_level="REPEATABLE READ",
            connect_args={"prepare_threshold": None, "options": "-c search_path=pg_catalog"},
        )
        with engine.connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold is None
            assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
            assert connection.scalar(text("SHOW search_path")) == "pg_catalog"
            assert connection.scalar(text("SHOW idle_session_timeout")) == "1min"
        engine.dispose()

    road.run(steps)


def test_adapters_registered_on_the_engine_are_used(road, database):
    """SQLAlchemy's own type adapters (here: jsonb through its dialect) are those of the connection."""

    def steps():
        engine = road.create_engine(database)
        with engine.connect() as connection:
            assert connection.scalar(text("""SELECT '{"a": 1}'::jsonb""")) == {"a": 1}
            assert connection.scalar(text("SELECT ARRAY[1, 2]")) == [1, 2]
        engine.dispose()

    road.run(steps)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"password": "canary-wrong-2b8e"}, Fault.CREDENTIALS),
        ({"username": "nobody_here"}, Fault.CREDENTIALS),
        ({"database": "not_there"}, Fault.MISCONFIGURED),
        ({"host": "no-such-host.invalid"}, Fault.MISCONFIGURED),
        ({"query": {"options": "-c no_such_setting=1"}}, Fault.MISCONFIGURED),
        ({"query": {"sslmode": "verify-full", "sslrootcert": "/none"}}, Fault.UNTRUSTED),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once_without_secrets(change, fault, road, database, log):
    """A real server's answer is understood, and no password is in error, traceback, repr or log."""
    url = database.set(**change)
    text_of = {}

    def steps():
        engine = road.create_engine(url)
        started = time.monotonic()
        with pytest.raises(ConnectFailed) as caught:
            engine.connect()
        assert time.monotonic() - started < 20, "it waited for what cannot pass"
        error = caught.value
        assert error.fault is fault
        assert error.attempts == 1
        chain = [error, error.__cause__, error.__context__, error.orig]
        text_of["all"] = "".join(traceback.format_exception(error)) + repr(chain)
        text_of["all"] += repr([vars(link) for link in chain if link]) + repr(engine) + repr(engine.url)
        text_of["all"] += repr(getattr(error.orig, "pgconn", None))

    road.run(steps)
    logged = "".join(repr(vars(record)) + record.getMessage() for record in log.records)
    for secret in (PASSWORD, "canary-wrong"):
        assert secret not in text_of["all"]
        assert secret not in logged


def test_pool_events_are_sqlalchemys(road, database):
    """Listeners to connect, checkout and checkin are called as with any pool."""

    def steps():
        engine = road.create_engine(database)
        seen = []
        for name in ("connect", "checkout", "checkin"):
            event.listen(engine, name, lambda *_, name=name: seen.append(name))
        for _ in range(2):
            with engine.connect():
                pass
        assert seen == ["connect", "checkout", "checkin", "checkout", "checkin"]
        engine.dispose()

    road.run(steps)


def test_an_interrupted_connect_leaves_no_session(database, sessions):
    """Ctrl-C in the middle of a login closes what was begun and gives the slot back."""

    class Interrupting(Clock):
        def wait(self, sockets, seconds):
            raise KeyboardInterrupt

    engine = lambdadb.create_engine(database)
    engine.pool.connector.clock = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        engine.connect()
    sessions.become(0)
    assert "1 free" in engine.pool.status()


class Delegating:
    """An asynchronous store that passes the question on."""

    def __init__(self, *passwords):
        self.passwords = passwords

    def logins(self, parameters):
        return self._logins()

    async def _logins(self):
        for password in self.passwords:
            await asyncio.sleep(0)
            yield {"password": password}


def test_an_asynchronous_store_is_asked_on_the_loop(database):
    """Also one whose method only returns the generator; a refused login is followed by the next."""
    store = Delegating("canary-3wrong", database.password)

    async def connect():
        engine = create_async_engine(database._replace(password=None), credentials=store)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        await engine.dispose()

    asyncio.run(connect())


def test_an_asynchronous_store_s_own_timeout_is_told_as_its_own(database):
    """Not as the deadline's, which is far away."""

    class Slow:
        async def logins(self, parameters):
            raise TimeoutError("vault: read timed out after 1 s")
            yield

    async def connect():
        engine = create_async_engine(database._replace(password=None), credentials=Slow())
        with pytest.raises(ConnectFailed, match="read timed out after 1 s"):
            await engine.connect()

    asyncio.run(connect())
