"""When connections are opened and closed, as the server itself sees it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

import lambdadb
from lambdadb import ConnectionInUse, PerEnvironment, PerInvocation

from .conftest import Road

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
PID = text("SELECT pg_backend_pid()")


@POLICIES
def test_building_an_engine_opens_nothing(policy, road, database, sessions):
    """Module scope has no time to wait: the first checkout connects."""
    sessions.become(0)
    road.create_engine(database, policy=policy)
    assert sessions() == []


def test_an_environment_keeps_one_session(road, database, sessions):
    """Invocation after invocation uses the same session of the server."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment())
        pids = []
        for _ in range(3):
            with road.invocation(engine), Session(engine) as session:
                pids.append(session.scalar(PID))
        assert [pid for pid, *_ in sessions.become(1)] == [pids[0]]
        assert pids == [pids[0]] * 3
        engine.dispose()

    road.run(steps)
    sessions.become(0)


def test_an_invocation_leaves_no_session(road, database, sessions):
    """One session for all of one invocation, none after it, another in the next."""

    def steps():
        engine = road.create_engine(database, policy=PerInvocation())
        seen = []
        for _ in range(2):
            with road.invocation(engine):
                pids = set()
                for _ in range(3):
                    with engine.begin() as connection:
                        pids.add(connection.scalar(PID))
                assert len(pids) == 1
                assert sessions.become(1)
                seen.append(pids)
            sessions.become(0)
        assert seen[0] != seen[1]

    road.run(steps)


def test_outside_an_invocation_a_session_ends_with_its_checkout(road, database, sessions):
    """A script without `handler` leaves nothing behind either."""

    def steps():
        engine = road.create_engine(database, policy=PerInvocation())
        with engine.connect() as connection:
            connection.execute(PID)
            assert sessions.become(1)
        sessions.become(0)

    road.run(steps)


@POLICIES
def test_a_failed_invocation_ends_like_any_other(policy, road, database, sessions):
    """An exception leaves no transaction open and no session more than the policy keeps."""

    def steps():
        engine = road.create_engine(database, policy=policy)
        with pytest.raises(ZeroDivisionError), road.invocation(engine), engine.begin() as connection:  # noqa: PT012
            connection.execute(text("INSERT INTO item (name) VALUES ('lost')"))
            _ = 1 / 0
        left = sessions.become(1 if policy.keeps else 0)
        assert all(state == "idle" for *_, state in left)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        engine.dispose()

    road.run(steps)


@POLICIES
def test_a_second_checkout_is_refused_and_names_the_holder(policy, road, database, sessions):
    """Two transactions are never mixed: the second is an error, and the first goes on unharmed."""

    def place_order(engine):
        return engine.connect()

    def steps():
        engine = road.create_engine(database, policy=policy)
        first = place_order(engine)
        first.execute(text("INSERT INTO item (name) VALUES ('kept')"))
        with pytest.raises(ConnectionInUse, match=r"place_order \(test_policies.py:\d+\)") as caught:
            engine.connect()
        assert f"{type(policy).__name__}(connections=2)" in str(caught.value)
        first.commit()
        first.close()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 1
        engine.dispose()

    road.run(steps)


def test_eight_threads_at_first_use_open_one_session(database, sessions):
    """While one thread connects, the others are refused: there is never a second connection."""
    engine = lambdadb.create_engine(database)
    barrier, got, refused = threading.Barrier(8), [], []

    def use():
        barrier.wait()
        try:
            connection = engine.connect()
        except ConnectionInUse as error:
            refused.append(error)
        else:
            got.append(connection)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert sessions.become(1)
    got[0].close()
    engine.dispose()


def test_a_second_connection_can_be_allowed(road, database, sessions):
    """`connections=2`: a log that must survive the rollback has a transaction of its own."""

    def steps():
        engine = road.create_engine(database, policy=PerEnvironment(connections=2))
        with engine.connect() as main, engine.connect() as log:
            main.execute(text("INSERT INTO item (name) VALUES ('work')"))
            log.execute(text("INSERT INTO item (name) VALUES ('log')"))
            log.commit()
            main.rollback()
            with pytest.raises(ConnectionInUse, match="connections=3"):
                engine.connect()
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT name FROM item")).all() == ["log"]
        assert sessions.become(2)
        engine.dispose()

    road.run(steps)


@POLICIES
def test_a_session_never_closed_is_ended_with_the_invocation(policy, road, database, sessions, caplog):
    """A forgotten session is rolled back and named; the next invocation works as ever."""

    def forget(engine):
        connection = engine.connect()
        connection.execute(text("INSERT INTO item (name) VALUES ('forgotten')"))
        return connection

    def steps():
        engine = road.create_engine(database, policy=policy)
        with road.invocation(engine):
            forgotten = forget(engine)
        sessions.become(0)
        assert "forget (test_policies.py" in caplog.text
        with road.invocation(engine), engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 0
        forgotten.close()
        with road.invocation(engine), engine.connect() as connection:
            connection.execute(PID)
        engine.dispose()

    road.run(steps)


def test_a_session_left_to_the_garbage_collector_comes_back(database, sessions):
    """A session that nobody refers to any more does not block the engine."""
    engine = lambdadb.create_engine(database)
    session = Session(engine)
    session.execute(PID)
    del session
    gc.collect()
    with engine.connect() as connection:
        connection.execute(PID)
    assert sessions.become(1)
    engine.dispose()


@POLICIES
def test_dispose_while_a_connection_is_out_closes_it_when_it_comes_back(
    policy, road, database, sessions
):
    """`dispose()` never pulls a connection from under its holder, and never forgets it."""

    def steps():
        engine = road.create_engine(database, policy=policy)
        connection = engine.connect()
        engine.dispose()
        connection.execute(PID)
        connection.close()
        sessions.become(0)

    road.run(steps)


def test_a_failed_first_connect_can_be_repeated(road, database, sessions):
    """An error while connecting gives the slot back."""

    def steps():
        engine = road.create_engine(database, connect_args={"dbname": "missing"})
        for _ in range(2):
            with pytest.raises(Exception, match="missing"):
                engine.connect()
        assert "1 free" in engine.pool.status()

    road.run(steps)


AHEAD = PerEnvironment(connect_ahead=True)


class Gate:
    """Credentials that keep a connect waiting: the first one, until they are opened."""

    def __init__(self, database):
        self._login = {"user": database.username, "password": database.password}
        self.asked = 0
        self.reached, self.open = threading.Event(), threading.Event()

    def logins(self, parameters):
        del parameters
        self.asked += 1
        if self.asked == 1:
            self.reached.set()
            assert self.open.wait(10.0)
        return [self._login]


def gated(road, database, **keywords):
    """An engine that connects ahead, and its gate."""
    gate = Gate(database)
    url = database._replace(password=None)
    return road.create_engine(url, policy=AHEAD, credentials=gate, **keywords), gate


def test_connecting_ahead_needs_no_checkout(road, database, sessions):
    """The session is there before anybody has asked for it, and serves the first who does."""
    engine = road.create_engine(database, policy=AHEAD)
    ((pid, *_),) = sessions.become(1)

    def steps():
        with engine.connect() as connection:
            assert connection.scalar(PID) == pid
        engine.dispose()

    road.run(steps)


def test_a_checkout_waits_for_the_connect_ahead(road, database, sessions):
    """One connect, not two; and a second session at once is refused as ever."""
    engine, gate = gated(road, database)
    threading.Timer(0.1, gate.open.set).start()

    def steps():
        with engine.connect() as connection:
            connection.execute(PID)
            assert (gate.asked, len(sessions.become(1))) == (1, 1)
            with pytest.raises(ConnectionInUse):
                engine.connect()
        engine.dispose()

    road.run(steps)


def test_a_connect_ahead_that_takes_long_is_given_up(road, database, sessions, monkeypatch):
    """The checkout connects by itself, and what comes of the other one later is closed."""
    monkeypatch.setattr("lambdadb.connect.AHEAD", 0.01)
    before = set(threading.enumerate())
    engine, gate = gated(road, database)

    def steps():
        with engine.connect() as connection:
            pid = connection.scalar(PID)
            gate.open.set()
            for thread in set(threading.enumerate()) - before:
                thread.join(10.0)
            assert [one for one, *_ in sessions.become(1)] == [pid]
        engine.dispose()

    road.run(steps)


def checked_out(engine, sessions):
    """A checkout that is the only session, whoever opened it; and the engine's end."""
    with engine.connect() as connection:
        connection.execute(PID)
        assert len(sessions.become(1)) == 1
    engine.dispose()


def test_a_connect_ahead_that_was_refused_is_tried_again(road, database, sessions, caplog):
    """The first checkout says what is wrong, or finds that it is right by now."""
    caplog.set_level("INFO", "lambdadb")
    tries = iter([{"user": "nobody_at_all"}, {"password": database.password}])

    class Store:
        def logins(self, parameters):
            del parameters
            return [next(tries)]

    url = database._replace(password=None)
    engine = road.create_engine(url, policy=AHEAD, credentials=Store())

    road.run(lambda: checked_out(engine, sessions))
    assert "Connecting ahead to" in caplog.text


def test_a_session_that_ended_before_anybody_took_it(road, database, sessions):
    """As in an environment that was provisioned an hour ago: the checkout connects."""
    engine = road.create_engine(database, policy=AHEAD)
    sessions.become(1)
    sessions.terminate()

    road.run(lambda: checked_out(engine, sessions))


def test_listeners_that_come_later_are_told_of_the_session_ahead(database, sessions):
    """An engine's listeners can only be added once there is an engine."""
    engine = lambdadb.create_engine(database, policy=AHEAD)
    ((pid, *_),) = sessions.become(1)

    @event.listens_for(engine, "connect")
    def search_path(dbapi_connection, _):
        dbapi_connection.execute("SET search_path = tenant")
        dbapi_connection.commit()

    with engine.connect() as connection:
        assert connection.scalar(PID) == pid
        assert connection.scalar(text("SHOW search_path")) == "tenant"
    engine.dispose()


def test_another_login_than_the_one_ahead(database, sessions):
    """A listener that changes what is connected with gets a session of its own, and the other ends."""
    engine = lambdadb.create_engine(database, policy=AHEAD)
    sessions.become(1)

    @event.listens_for(engine, "do_connect")
    def other(dialect, record, arguments, parameters):
        del dialect, record, arguments
        parameters["application_name"] = "other"

    with engine.connect() as connection:
        connection.execute(PID)
        assert [name for _, name, _ in sessions.become(1)] == ["other"]
    engine.dispose()


def test_disposing_an_engine_ends_the_session_ahead(database, sessions):
    """It leaves nothing behind, as ever."""
    engine = lambdadb.create_engine(database, policy=AHEAD)
    sessions.become(1)
    engine.dispose()
    sessions.become(0)


def test_a_child_connects_by_itself_while_its_parent_connects_ahead(database):
    """It has neither the thread nor the session."""
    engine, gate = gated(Road(asynchronous=False), database)
    assert gate.reached.wait(10.0)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # ends it, should it hang
        try:
            with engine.connect() as connection:
                os._exit(connection.scalar(text("SELECT 0")))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    gate.open.set()
    with engine.connect() as connection:
        connection.execute(PID)
    engine.dispose()


def test_a_snapshot_gets_no_session(database, sessions, monkeypatch):
    """Every environment restored from it would believe to have it."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    engine, gate = gated(Road(asynchronous=False), database)
    assert engine.pool.ahead == []
    gate.open.set()
    with engine.connect() as connection:
        connection.execute(PID)
    assert gate.asked == 1
    engine.dispose()


def test_a_child_leaves_its_parents_session_ahead_alone(database, sessions):
    """Taken by both, it would carry two conversations; ended by one, the other's is lost."""
    engine = lambdadb.create_engine(database, policy=AHEAD)
    ((pid, *_),) = sessions.become(1)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            with engine.connect() as connection:
                same = connection.scalar(PID) == pid
            engine.dispose()
            os._exit(same)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 0
    with engine.connect() as connection:
        assert connection.scalar(PID) == pid
    engine.dispose()


@pytest.mark.parametrize(
    "keywords", [{"policy": PerEnvironment(connect_ahead=True, ping_after=0.0)}, {"tag": "{alias}"}]
)
def test_a_session_ahead_that_is_too_old_or_has_another_name(keywords, database, sessions, monkeypatch):
    """The end of an old one may be invisible; a name is how operators know whose it is."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    engine = lambdadb.create_engine(database, **{"policy": AHEAD, **keywords})
    ((pid, *_),) = sessions.become(1)
    context = SimpleNamespace(
        get_remaining_time_in_millis=lambda: 60_000,
        invoked_function_arn="arn:aws:lambda:eu-west-1:123456789012:function:orders:live",
    )
    with lambdadb.invocation(engine, context), engine.connect() as connection:
        assert connection.scalar(PID) != pid
        ((_, name, _),) = sessions.become(1)
        assert name == ("live" if "tag" in keywords else "orders")
    engine.dispose()


def test_connect_args_hold_for_the_session_ahead_too(database, sessions):
    """What is connected with is the same as without it."""
    arguments = {"application_name": "mine"}
    engine = lambdadb.create_engine(database, policy=AHEAD, connect_args=arguments)
    ((pid, name, _),) = sessions.become(1)
    with engine.connect() as connection:
        assert (connection.scalar(PID), name) == (pid, "mine")
    engine.dispose()


def test_giving_up_a_connect_ahead_ends_its_attempts(database):
    """A server that is waking up is not called on for a connection that nobody waits for any more."""
    with socket.create_server(("127.0.0.1", 0)) as waking:
        url = database.set(port=waking.getsockname()[1])
        retry = lambdadb.ResumeRetry(max_backoff=0.05)
        engine = lambdadb.create_engine(url, policy=AHEAD, retry=retry)
        for _ in range(3):
            waking.accept()[0].close()
        engine.dispose()
        waking.settimeout(1.0)
        more = 0
        with contextlib.suppress(TimeoutError):
            while more < 10:
                waking.accept()[0].close()
                more += 1
    assert more <= 2


@pytest.mark.parametrize("value", ["false", None, 0])
def test_connect_ahead_is_true_or_false(value):
    """An environment variable that says "false" is a text, and true."""
    with pytest.raises(lambdadb.InvalidSettings, match="connect_ahead"):
        PerEnvironment(connect_ahead=value)


def test_asynchronous_credentials_cannot_connect_ahead(database):
    """No event loop runs while a module is imported."""

    class Store:
        async def logins(self, parameters):
            yield parameters

    url = database._replace(password=None)
    with pytest.raises(lambdadb.InvalidSettings, match="asynchronous credentials"):
        lambdadb.aio.create_async_engine(url, policy=AHEAD, credentials=Store())
