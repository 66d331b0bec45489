"""Engines of ours through pgbouncer, which has one session of the server for all of them."""

from __future__ import annotations

import logging
import time

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb import ConnectFailed, Fault, InvalidSettings, PerEnvironment, PerInvocation, ResumeRetry
from lambdadb.lab.context import LambdaContext
from lambdadb.tracing import Tracer

# What a client may leave behind in a session: settings, prepared statements, cursors, listeners, locks,
# temporary tables. `transaction_isolation` and its like are of the transaction, by BEGIN.
LEFT_BEHIND = """
    SELECT (SELECT array_agg(name) FROM pg_settings
            WHERE source = 'session' AND name <> 'application_name' AND name !~ '^transaction_'),
           (SELECT count(*) FROM pg_prepared_statements),
           (SELECT count(*) FROM pg_cursors WHERE name <> ''),
           (SELECT count(*) FROM pg_listening_channels()),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
           (SELECT count(*) FROM pg_class WHERE relpersistence = 't')
"""
NOTHING = (None, 0, 0, 0, 0, 0)


class Spans(Tracer):
    def __init__(self):
        self.spans = []

    def record(self, span):
        self.spans.append(span)


@pytest.fixture
def engines():
    """Makes engines, and closes them at the end."""
    made = []

    def make(url, **keywords):
        made.append(lambdadb.create_engine(url, **keywords))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def count_queries(bouncer):
    """How many queries pgbouncer has passed on to the database."""
    (row,) = [row for row in bouncer.show("stats_totals") if row["database"] == "postgres"]
    return row["query_count"]


def use_everything(engine, name):
    """Everything that lambdadb itself sends."""
    for _ in range(7):  # more often than psycopg's threshold for preparing
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO item (name) VALUES (:name)"), {"name": name})
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    with sessionmaker(engine)() as session:
        session.execute(text("SELECT count(*) FROM item")).scalar_one()
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        connection.execute(select(1))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(select(1))
    with engine.connect().execution_options(postgresql_readonly=True) as connection:
        connection.execute(select(1))
    lambdadb.run_transaction(
        engine, lambda c: c.execute(text("INSERT INTO item (name) VALUES (:n)"), {"n": name})
    )
    with lambdadb.invocation(engine, LambdaContext(30.0)), engine.begin() as connection:
        connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("policy", [PerEnvironment, PerInvocation])
def test_nothing_of_ours_stays_in_a_session(policy, pgbouncer, engines, admin):
    """Two clients on one session of the server: neither waits for the other or finds its state."""
    bouncer = pgbouncer(pool_size=1, settings={"query_wait_timeout": "5"})
    one, two = (engines(bouncer.url(), policy=policy()) for _ in range(2))
    with one.connect(), two.connect():  # both have a connection, and none a session of the server
        pass
    for engine, name in ((one, "one"), (two, "two"), (one, "one")):
        use_everything(engine, name)
        with two.connect() as connection:
            assert tuple(connection.execute(text(LEFT_BEHIND)).one()) == NOTHING
    found = admin.execute("SELECT name, count(*) FROM item GROUP BY name ORDER BY name").fetchall()
    assert found == [("one", 16), ("two", 8)]


def test_it_is_found_by_its_refusal_and_shown(pgbouncer, engines, caplog):
    """The first attempt is refused, the second logs in; the log line and the span name pgbouncer."""
    caplog.set_level(logging.INFO, "lambdadb")
    tracer = Spans()
    engine = engines(pgbouncer().url(), tracer=tracer)
    with engine.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold is None
    assert "through pgbouncer, found by its answer" in caplog.text
    (span,) = tracer.spans
    assert span.attributes["lambdadb.proxy"] == "pgbouncer"
    assert span.attributes["lambdadb.attempts"] == 2
    engine.dispose()
    with engine.connect():
        assert tracer.spans[-1].attributes["lambdadb.attempts"] == 1


def test_a_name_that_is_set_costs_no_attempt(pgbouncer, engines):
    """With proxy="pgbouncer" the first attempt logs in."""
    tracer = Spans()
    engine = engines(pgbouncer().url(), tracer=tracer, proxy="pgbouncer")
    with engine.connect():
        assert tracer.spans[0].attributes["lambdadb.attempts"] == 1


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_it_is_found_where_it_refuses_nothing(pool_mode, pgbouncer, engines):
    """A pgbouncer that ignores options is known by the process id of the session."""
    bouncer = pgbouncer(pool_mode=pool_mode, settings={"ignore_startup_parameters": "options"})
    engine = engines(bouncer.url())
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert (driver.proxy, driver.prepare_threshold) == ("pgbouncer", None)
        assert driver.idle_session_timeout is None


def test_a_caller_may_prepare_statements(pgbouncer, engines):
    """connect_args decide: pgbouncer since 1.21 can keep prepared statements."""
    engine = engines(pgbouncer().url(), connect_args={"prepare_threshold": 3})
    with engine.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == 3


def test_prepared_statements_work_where_pgbouncer_keeps_them(pgbouncer, engines, version):
    """`prepare_threshold` with pgbouncer since 1.21: clients that share a session prepare the same."""
    if version < (1, 21):
        pytest.skip("pgbouncer before 1.21 keeps no prepared statements")
    bouncer = pgbouncer(pool_size=1, settings={"max_prepared_statements": "10"})
    some = [engines(bouncer.url(), connect_args={"prepare_threshold": 1}) for _ in range(3)]
    for number in range(30):  # more statements than pgbouncer keeps
        for engine in some:
            with engine.begin() as connection:
                statement = text(f"SELECT CAST(:given AS integer) + {number // 2}")
                assert connection.scalar(statement, {"given": 1}) == 1 + number // 2


def test_the_tag_reaches_the_server(pgbouncer, engines, admin):
    """pgbouncer passes application_name on to the session that a transaction gets."""
    engine = engines(pgbouncer().url(), tag="orders")
    with engine.connect() as connection:
        name = connection.execute(text("SELECT current_setting('application_name')")).scalar_one()
    assert name == "orders"


def test_a_policy_that_resets_sessions_is_refused_when_the_proxy_is_found(pgbouncer, engines):
    """The session would be reset for other clients too."""
    engine = engines(pgbouncer().url(), policy=PerEnvironment(reset="session"))
    with pytest.raises(ConnectFailed, match="SET LOCAL"):
        engine.connect()
    ignoring = pgbouncer(settings={"ignore_startup_parameters": "options"})
    with pytest.raises((InvalidSettings, ConnectFailed), match="SET LOCAL"):
        engines(ignoring.url(), policy=PerEnvironment(reset="session")).connect()


class Passwords:
    """A store with an old password and a new one, as during a rotation."""

    def __init__(self, *passwords):
        self.passwords = passwords

    def logins(self, parameters):
        for password in self.passwords:
            yield {"password": password}


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "plain"])
def test_after_a_refused_password_the_stores_next_one_is_tried(auth_type, pgbouncer, engines, server):
    """pgbouncer refuses in its own words, which depend on how it asks for the password."""
    bouncer = pgbouncer(settings={"auth_type": auth_type})
    url = f"postgresql+psycopg://%s@127.0.0.1:{bouncer.port}/postgres"
    keywords = {"allow_unverified_server": True, "proxy": "pgbouncer"}
    rotated = engines(url % "postgres", credentials=Passwords("canary-old", server.password), **keywords)
    with rotated.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    for name in ("postgres", "nobody_here"):
        refused = engines(url % name, credentials=Passwords("canary-old"), **keywords)
        with pytest.raises(ConnectFailed) as caught:
            refused.connect()
        assert caught.value.fault is Fault.CREDENTIALS


def test_no_ping_is_sent_and_a_closed_socket_is_seen(pgbouncer, engines):
    """A checkout after a long time sends nothing. A connection that the proxy closed is replaced."""
    bouncer = pgbouncer()
    engine = engines(bouncer.url(), policy=PerEnvironment(ping_after=0.0), proxy="pgbouncer")
    with engine.connect() as connection:
        first = connection.connection.driver_connection
    before = count_queries(bouncer)
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.connection.driver_connection is first
    assert count_queries(bouncer) == before
    bouncer.stop()
    bouncer.start()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_transaction_that_gets_no_session_is_a_connect_that_failed(pgbouncer, engines):
    """Nothing was sent; the error says whose sessions are in use, and that another try may help."""
    bouncer = pgbouncer(pool_size=1, settings={"query_wait_timeout": "1"})
    one, two = engines(bouncer.url()), engines(bouncer.url())
    with two.connect():
        pass
    with one.begin() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(ConnectFailed, match="default_pool_size") as caught, two.begin() as other:
            other.execute(text("SELECT 1"))
    assert caught.value.fault is Fault.EXHAUSTED
    assert caught.value.safe_to_repeat
    assert caught.value.retry_after
    with two.begin() as other:
        assert other.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.sweep
def test_a_unit_of_work_waits_for_a_session(pgbouncer, engines):
    """run_transaction begins again: the proxy gave it no session, so nothing was done."""
    bouncer = pgbouncer(pool_size=1, settings={"query_wait_timeout": "1"})
    one, two = engines(bouncer.url()), engines(bouncer.url())
    with two.connect():
        pass
    connection = one.connect()
    connection.execute(text("SELECT 1"))
    ends = time.monotonic() + 1.5
    runs = []

    def work(target):
        runs.append(target.execute(text("SELECT 1")).scalar_one())

    def close_later(*_):
        if time.monotonic() > ends:
            connection.close()

    event.listen(two, "checkout", close_later)
    lambdadb.run_transaction(two, work)
    assert runs == [1]


@pytest.mark.sweep
def test_a_server_that_is_down_behind_it_is_named(pgbouncer, engines, server):
    """pgbouncer accepts logins while the server is down. The error says so, and work waits for it."""
    bouncer = pgbouncer(settings={"query_wait_timeout": "1", "server_login_retry": "1"})
    engine = engines(bouncer.url())
    impatient = engines(bouncer.url(), retry=ResumeRetry(timeout=2.0))
    with engine.connect(), impatient.connect():
        pass
    server.stop("immediate")
    try:
        with pytest.raises(ConnectFailed) as caught:
            lambdadb.run_transaction(impatient, lambda c: c.execute(text("SELECT 1")))
    finally:
        server.start()
    assert caught.value.fault in (Fault.UNREACHABLE, Fault.EXHAUSTED)
    assert lambdadb.run_transaction(engine, lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1


def test_a_deadline_cancels_through_pgbouncer(pgbouncer, engines, admin):
    """pgbouncer passes a cancel on. The statement ends on the server too."""
    engine = engines(pgbouncer(pool_size=1).url(), retry=ResumeRetry(reserve=1.0))
    with engine.connect():
        pass
    sleep = text("SELECT pg_sleep(60)")
    with lambdadb.invocation(engine, LambdaContext(1.5)), engine.connect() as connection:  # noqa: SIM117
        with pytest.raises(lambdadb.OutOfTime):
            connection.execute(sleep)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
