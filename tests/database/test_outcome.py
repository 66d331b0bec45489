"""The server is asked what became of a transaction: nothing lost or doubled, whatever the answer."""

from __future__ import annotations

import contextlib
import importlib
import threading
from random import Random

import psycopg
import pytest
from sqlalchemy import Column, MetaData, Table, Text, event, make_url, text
from sqlalchemy.exc import DBAPIError

import lambdadb
from lambdadb import CommitInDoubt, PerInvocation, ResumeRetry, run_transaction
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.faultproxy.unit_shapes import HOSTILE, SETTINGS, draw_settings
from lambdadb.lab.postgres import Postgres, Standby

from .lost_answers import LostAnswers

PASSWORD = "canary-7f3a9c51"
ADD = text("INSERT INTO unit (name) VALUES ('a')")
KEY = Table("marker", MetaData(), Column("name", Text, primary_key=True)).c.name
TABLES = (
    "CREATE TABLE IF NOT EXISTS unit (name text);"
    " CREATE TABLE IF NOT EXISTS marker (name text PRIMARY KEY)"
)


def dsn(url):
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def here(direct, database):
    """A direct connection to the test's database, with the tables of a unit of work."""
    with psycopg.connect(dsn(direct.set(database=database.database)), autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(HOSTILE)
        yield connection


@pytest.fixture
def shared(direct, shared_database):
    """The same to the file's own, with its tables empty."""
    name = shared_database.database
    with psycopg.connect(dsn(direct.set(database=name)), autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(HOSTILE)
        connection.execute("TRUNCATE unit, marker")
        yield connection


@pytest.fixture
def lose(monkeypatch):
    """Loses the answers to the next COMMITs."""
    made = []

    def lose(**keywords):
        made.append(LostAnswers(monkeypatch, **keywords))

    yield lose
    for one in made:
        one.close()


def rows(connection):
    return connection.execute("SELECT count(*) FROM unit").fetchone()[0]


def add(target):
    target.execute(ADD)
    return "added"


def restart(connection):
    """What a restart changes, without one: from then on "committed" proves nothing."""
    connection.execute("SELECT pg_stat_reset_shared('bgwriter')")


SINGLE = [{name: value} for name, values in SETTINGS.items() for value in values]
DRAWN = [draw_settings(Random(seed)) for seed in range(20)]


@pytest.mark.parametrize(
    ("done", "which"), [(True, "all"), (True, "first"), (False, "all")], ids=lambda value: str(value)
)
@pytest.mark.parametrize("settings", SINGLE + DRAWN, ids=lambda settings: ",".join(settings) or "none")
def test_no_setting_changes_the_answer(settings, done, which, shared_database, shared, lose):
    """Set earlier in the session that begins, or also in those that ask: the row is there once."""
    database, here = shared_database, shared
    options = {"postgresql_readonly": False} if "default_transaction_read_only" in settings else {}
    engine = lambdadb.create_engine(database, execution_options=options)
    sessions = []

    @event.listens_for(engine, "checkout")
    def set_all(connection, *_):
        sessions.append(connection)
        if len(sessions) > 1 and which == "first":
            return
        for name, value in settings.items():
            listed = value if name == "search_path" else f"'{value}'"
            connection.execute(f"SET {name} = {listed}")
        connection.commit()

    lose(done=done)
    assert run_transaction(engine, add) == "added"
    assert rows(here) == 1
    engine.dispose()


def test_a_session_that_still_has_it_open_is_ended(mode, database, here, sessions, lose):
    """COMMIT never arrived, and the server's session waits for it: it is ended, and its lock is free."""
    seen = []

    def work(connection):
        seen.append(connection.scalar(text("SELECT pg_backend_pid()")))
        connection.execute(text("INSERT INTO marker VALUES ('one')"))  # its index entry is locked
        return add(connection)

    def steps():
        engine = mode.create_engine(database)
        lose(done=False)
        assert run_transaction(engine, work) == "added"
        assert seen[0] not in [pid for pid, *_ in sessions()]
        engine.dispose()

    mode.run(steps)
    assert rows(here) == 1
    assert len(seen) == 2


def test_only_its_own_session_is_ended(database, here, sessions):
    """A transaction of another epoch with the same id and process is somebody else's."""
    engine, other = (lambdadb.create_engine(database) for _ in range(2))
    driver = engine.pool.connector.driver
    with engine.connect() as connection, other.connect() as asking:
        begun = driver.begin(connection)
        pid = int(begun.unit.identity.backend)
        assert not begun.is_lost
        restart(here)
        assert driver.ask_outcome(asking, begun) == "aborted"  # as far as the new epoch can tell
        assert pid in [session[0] for session in sessions()]
        begun.leave()
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize("key", [None, (KEY, "a")], ids=["no key", "key"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_after_a_restart_only_committed_is_in_doubt(done, key, database, here, lose, sessions):
    """The same server, started anew: "aborted" is trusted, and the key's row proves the rest."""
    engine = lambdadb.create_engine(database)

    def restarted():
        restart(here)
        if not done:
            sessions.terminate(besides=here.info.backend_pid)

    lose(done=done, then=restarted)
    if done and key is None:
        with pytest.raises(CommitInDoubt, match="proves nothing"):
            run_transaction(engine, add)
    else:
        assert run_transaction(engine, add, idempotency_key=key) == "added"
    assert rows(here) == 1
    engine.dispose()


def test_a_key_is_looked_for_in_its_own_table_only(database, here, lose):
    """A search_path that was set earlier leads the question to another table: that is doubt."""
    here.execute("CREATE SCHEMA tenant; CREATE TABLE tenant.marker (name text PRIMARY KEY)")
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        connection.execute(text("SET search_path = tenant, public"))
        connection.commit()
    lose(done=True, then=lambda: restart(here))
    with pytest.raises(CommitInDoubt):
        run_transaction(engine, add, idempotency_key=(KEY, "a"))
    assert rows(here) == 1
    engine.dispose()


# Questions that fail


@pytest.fixture
def role(here, database):
    """A role without privileges of its own, and the URL that logs in as it."""
    name = f"app_{make_url(database).database}"
    here.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'canary-7f3a9c51'")
    here.execute(f"GRANT ALL ON unit, marker TO {name}")
    yield name, make_url(database).set(username=name, password="canary-7f3a9c51")
    here.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def _raising(*_):
    raise ZeroDivisionError("a listener's own")


SABOTAGE = {
    "revoked": "REVOKE EXECUTE ON FUNCTION pg_xact_status(xid8) FROM PUBLIC",
    "revoked snapshot": "REVOKE EXECUTE ON FUNCTION pg_current_snapshot() FROM PUBLIC",
    "no login": "ALTER ROLE {role} NOLOGIN",
    "no connections": "ALTER ROLE {role} CONNECTION LIMIT 0",
    "statement_timeout": "ALTER ROLE {role} SET statement_timeout = 100",
    "bad default": "ALTER ROLE {role} SET default_transaction_isolation = 'serializable'",
}


@pytest.mark.parametrize("how", [*SABOTAGE, "connect", "checkout", "begin", "out of time", "lost again"])
def test_a_question_that_fails_leaves_doubt_and_says_why(how, role, here, lose, monkeypatch):
    """After COMMIT was sent, no error reads as "not committed": CommitInDoubt, with its cause."""
    name, url = role
    engine = lambdadb.create_engine(url, retry=ResumeRetry(timeout=5 if how != "lost again" else 0.4))

    def sabotage():
        if how in SABOTAGE:
            here.execute(SABOTAGE[how].format(role=name))
        elif how in ("connect", "checkout"):
            event.listen(engine, how, _raising)
        elif how == "begin":
            transactions = importlib.import_module("lambdadb.drivers.psycopg.transaction")
            monkeypatch.setattr(transactions, "_QUESTION", "BEGIN ISOLATION LEVEL NONE")
        elif how == "out of time":
            monkeypatch.setattr(engine.pool.connector.clock, "now", lambda: float("inf"))
        elif how == "lost again":
            event.listen(engine, "checkout", lambda connection, *_: connection.close())
        if how == "statement_timeout":
            transactions = importlib.import_module("lambdadb.drivers.psycopg.transaction")
            slow = f"{transactions._QUESTION}; SELECT pg_catalog.pg_sleep(60)"
            monkeypatch.setattr(transactions, "_QUESTION", slow)

    lose(done=True, then=sabotage)
    if how == "bad default":  # which does not matter
        assert run_transaction(engine, add) == "added"
    else:
        with pytest.raises(CommitInDoubt, match="could not be asked") as raised:
            run_transaction(engine, add)
        assert raised.value.__cause__ is not None
    assert rows(here) == 1
    monkeypatch.undo()
    engine.dispose()


@pytest.mark.parametrize("function", ["pg_control_system()", "pg_walfile_name(pg_lsn)"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_server_that_does_not_tell_its_id_space(function, done, role, here, lose, sessions):
    """It works without: only a restart leaves doubt then, both ways."""
    here.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    engine = lambdadb.create_engine(role[1], policy=PerInvocation())
    for _ in range(2):
        assert run_transaction(engine, add) == "added"
    lose(done=done)
    assert run_transaction(engine, add) == "added"
    assert rows(here) == 3

    def restarted():
        restart(here)
        sessions.terminate(besides=here.info.backend_pid)

    lose(done=done, then=restarted)
    with pytest.raises(CommitInDoubt):
        run_transaction(engine, add)
    assert rows(here) == 3 + done
    engine.dispose()


# Other servers


@pytest.fixture(scope="module")
def primary():
    """A server of this file's own, that may be stopped and reconfigured."""
    with Postgres(password=PASSWORD) as server:
        with psycopg.connect(dsn(server.url()), autocommit=True) as connection:
            connection.execute(TABLES)
        yield server


@pytest.fixture
def emptied(primary):
    """The primary's tables, empty."""
    with psycopg.connect(dsn(primary.url()), autocommit=True) as connection:
        connection.execute("TRUNCATE unit, marker")
        yield connection


class Name:
    """A host name that leads from one server to another: an engine's connects follow it."""

    def __init__(self, server, **keywords):
        self.server = server
        self.engine = lambdadb.create_engine(server.url(), **keywords)

        @event.listens_for(self.engine, "do_connect")
        def follow(dialect, record, arguments, parameters):
            parameters["port"] = self.server.port

    def lead_to(self, server):
        self.server = server


@pytest.mark.parametrize("key", [None, (KEY, "a")], ids=["no key", "key"])
@pytest.mark.parametrize("others", [0, 200], ids=["id in the future", "id in the past"])
def test_another_servers_ids_prove_nothing(others, key, primary, emptied, lose):
    """Green is asked for blue's transaction, as after a switchover: doubt, unless a key decides."""
    with (
        Postgres(password=PASSWORD) as green,
        psycopg.connect(dsn(green.url()), autocommit=True) as there,
    ):
        there.execute(TABLES)
        for _ in range(others):
            there.execute("SELECT pg_current_xact_id()")
        name = Name(primary)

        def switch_over():
            there.execute("INSERT INTO unit VALUES ('a')")  # as logical replication does
            there.execute("INSERT INTO marker SELECT 'a' WHERE %s", [key is not None])
            name.lead_to(green)

        lose(done=True, then=switch_over)
        if key is None:
            with pytest.raises(CommitInDoubt, match="another one"):
                run_transaction(name.engine, add)
        else:
            assert run_transaction(name.engine, add, idempotency_key=key) == "added"
        assert rows(there) == 1
        name.engine.dispose()


@pytest.mark.parametrize(
    ("key", "done"),
    [
        (None, True),
        ((KEY, "a"), False),
        pytest.param((KEY, "a"), True, marks=pytest.mark.sweep),
        pytest.param(None, False, marks=pytest.mark.sweep),
    ],
)
def test_a_promoted_standby_proves_nothing_by_its_ids(key, done, primary, emptied, lose):
    """It has another timeline, also in the moment after its promotion: a key decides, or doubt."""
    with Standby(primary) as standby:
        name = Name(primary)

        def fail_over():
            catch_up(emptied, standby)
            standby.promote()
            name.lead_to(standby)

        lose(done=done, then=fail_over)
        if key is None:
            with pytest.raises(CommitInDoubt):
                run_transaction(name.engine, add)
        else:
            assert run_transaction(name.engine, add, idempotency_key=key) == "added"
        with psycopg.connect(dsn(standby.url())) as there:
            assert rows(there) == (done if key is None else 1)
        name.engine.dispose()


def catch_up(primary, standby):
    """Wait until the standby has all that the primary has written."""
    (written,) = primary.execute("SELECT pg_current_wal_lsn()").fetchone()
    with psycopg.connect(dsn(standby.url()), autocommit=True) as there:
        caught_up = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        for _ in range(3000):
            if there.execute(caught_up, [written]).fetchone()[0]:
                return
            there.execute("SELECT pg_sleep(0.01)")
    pytest.fail("the standby did not catch up in 30 s")


@contextlib.contextmanager
def time_over(engine, monkeypatch, moment, *, after):
    """Let the time be over when something happens to a connection for the `after`th time."""
    clock, happened = engine.pool.connector.clock, []
    now = clock.now

    def note(*_):
        happened.append(1)

    event.listen(engine, moment, note)
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", lambda: now() + 1e6 * (len(happened) >= after))
        yield
    event.remove(engine, moment, note)


def test_a_standby_is_asked_again_until_it_is_promoted(primary, emptied, monkeypatch):
    """A failover to a node that is still a standby: the unit waits there, and none of it is lost."""
    with Standby(primary) as standby:
        name = Name(primary)
        run_transaction(name.engine, add)
        catch_up(emptied, standby)
        name.engine.dispose()
        name.lead_to(standby)
        for isolation in ("READ COMMITTED", "SERIALIZABLE"):
            engine = name.engine.execution_options(isolation_level=isolation)
            for moment in ("invalidate", "do_connect"):
                with (
                    time_over(name.engine, monkeypatch, moment, after=2),
                    lambdadb.invocation(name.engine, LambdaContext(60.0)),
                    pytest.raises(DBAPIError, match="standby"),
                ):
                    run_transaction(engine, add)
        reading = name.engine.execution_options(postgresql_readonly=True)
        assert run_transaction(reading, lambda c: c.scalar(text("SELECT count(*) FROM unit"))) == 1
        promotion = threading.Timer(0.3, standby.promote)
        promotion.start()
        assert run_transaction(name.engine, add) == "added"
        promotion.join()
        with psycopg.connect(dsn(standby.url())) as there:
            assert rows(there) == 2
        name.engine.dispose()


def test_a_session_that_is_ended_while_commit_waits_for_a_standby_is_committed(primary, emptied):
    """PostgreSQL answers that COMMIT with FATAL, though it is done: the server is asked."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    engine = lambdadb.create_engine(primary.url())

    def end_it():
        for _ in range(3000):
            for (pid,) in emptied.execute(waiting).fetchall():
                emptied.execute("ALTER SYSTEM RESET synchronous_standby_names")
                emptied.execute("SELECT pg_reload_conf()")
                emptied.execute("SELECT pg_terminate_backend(%s)", [pid])
                return
            emptied.execute("SELECT pg_sleep(0.01)")

    run_transaction(engine, lambda connection: None)
    emptied.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    emptied.execute("SELECT pg_reload_conf()")
    thread = threading.Thread(target=end_it)
    thread.start()
    assert run_transaction(engine, add) == "added"
    thread.join()
    assert rows(emptied) == 1
    engine.dispose()
