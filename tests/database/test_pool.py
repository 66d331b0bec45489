"""One connection, one user: what checkouts, returns, threads, tasks and listeners do to a pool."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

import lambdadb
from lambdadb import (
    ConnectionInUse,
    PerEnvironment,
    PerInvocation,
    aio,
)
from lambdadb.deadline import Clock

POLICIES = pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
PID = text("SELECT pg_backend_pid()")
ADD = text("INSERT INTO item (name) VALUES (:name)")
ONE = text("SELECT 1")


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM item")))


def count_pings(engine):
    pings = []
    original = engine.dialect.do_ping

    def do_ping(connection):
        pings.append(connection)
        return original(connection)

    engine.dialect.do_ping = do_ping
    return pings


@POLICIES
def test_a_second_checkout_is_refused_and_names_the_holder(policy, mode, database, sessions):
    """Two transactions are never mixed: the second is an error, and the first goes on unharmed."""

    def place_order(engine):
        return engine.connect()

    def steps():
        engine = mode.create_engine(database, policy=policy)
        first = place_order(engine)
        first.execute(text("INSERT INTO item (name) VALUES ('kept')"))
        with pytest.raises(ConnectionInUse, match=r"place_order \(test_pool.py:\d+\)") as caught:
            engine.connect()
        assert f"{type(policy).__name__}(connections=2)" in str(caught.value)
        first.commit()
        first.close()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM item")) == 1
        engine.dispose()

    mode.run(steps)


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


def test_a_second_connection_can_be_allowed(mode, database, sessions):
    """`connections=2`: a log that must survive the rollback has a transaction of its own."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(connections=2))
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

    mode.run(steps)


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
    policy, mode, database, sessions
):
    """`dispose()` never pulls a connection from under its holder, and never forgets it."""

    def steps():
        engine = mode.create_engine(database, policy=policy)
        connection = engine.connect()
        engine.dispose()
        connection.execute(PID)
        connection.close()
        sessions.become(0)

    mode.run(steps)


def test_a_failed_first_connect_can_be_repeated(mode, database, sessions):
    """An error while connecting gives the slot back."""

    def steps():
        engine = mode.create_engine(database, connect_args={"dbname": "missing"})
        for _ in range(2):
            with pytest.raises(Exception, match="missing"):
                engine.connect()
        assert "1 free" in engine.pool.status()

    mode.run(steps)


def test_a_late_return_does_not_free_the_next_holders_place(engine):
    """A thread that gives its connection back after its invocation ended mixes no transactions."""
    gate, returning = threading.Event(), threading.Event()

    @event.listens_for(engine, "reset")
    def slow(*_):
        if threading.current_thread().name == "left":
            returning.set()
            gate.wait(10)

    def left():
        with engine.connect() as connection:
            connection.execute(ONE)

    thread = threading.Thread(target=left, name="left")
    with lambdadb.invocation(engine):
        thread.start()
        returning.wait(10)
    with lambdadb.invocation(engine):
        holder = engine.connect()
        holder.execute(ADD, {"name": "kept"})
        gate.set()
        thread.join()
        with pytest.raises(ConnectionInUse):
            engine.connect()
        holder.commit()
        holder.close()
    assert names(engine) == ["kept"]


@pytest.mark.parametrize("name", ["close", "checkin"])
def test_a_listener_that_raises_costs_no_place(name, database, sessions):
    """After whatever a listener raises, the next invocation gets a connection."""
    engine = lambdadb.create_engine(database)
    raising = [True]

    def listener(*_):
        if raising.pop() if raising else False:
            raise ZeroDivisionError

    with lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(ONE)
    sessions.terminate()
    event.listen(engine, name, listener)
    with pytest.raises(ZeroDivisionError), lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(ONE)
    for _ in range(2):
        with lambdadb.invocation(engine), engine.connect() as connection:
            connection.execute(ONE)
    engine.dispose()


def test_a_checkin_that_fails_frees_the_connection_for_other_threads(engine):
    """At once, and not only at the invocation's end or for the thread that had it."""

    def listener(*_):
        event.remove(engine, "checkin", listener)
        raise ZeroDivisionError

    event.listen(engine, "checkin", listener)
    with ThreadPoolExecutor(1) as thread, pytest.raises(ZeroDivisionError):
        thread.submit(lambda: engine.connect().close()).result()
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1


def test_a_ping_that_is_interrupted_costs_no_place(database, sessions):
    """Ctrl-C while a checkout asks the server whether it is there."""
    engine = lambdadb.create_engine(database, policy=PerEnvironment(ping_after=0.0))
    with engine.connect() as connection:
        connection.execute(ONE)
    ping = engine.dialect.do_ping

    def interrupted(connection):
        engine.dialect.do_ping = ping
        raise KeyboardInterrupt

    engine.dialect.do_ping = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.connect()
    sessions.become(0)
    with engine.connect() as connection:
        connection.execute(ONE)
    engine.dispose()


def test_cancelled_tasks_cost_no_place(database, sessions):
    """A task cancelled at any moment of connect, ping, statement and commit gives its place back."""

    async def main():
        engine = aio.create_async_engine(database, policy=PerEnvironment(ping_after=0.0))

        async def work(number):
            async with engine.begin() as connection:
                await connection.execute(ADD, {"name": str(number)})

        for number in range(40):
            task = asyncio.create_task(work(number))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        async with engine.connect() as connection:
            await connection.execute(ONE)
        await engine.dispose()

    asyncio.run(main())
    sessions.become(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_session_of_its_own(engine, sessions):
    """Parent and child never share a transaction, and the child's end does not end the parent's."""
    pid = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        mine = connection.scalar(pid)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with engine.connect() as connection:
                os.write(writer, str(connection.scalar(pid)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 20)) != mine
    os.close(reader)
    os.close(writer)
    with engine.connect() as connection:
        assert connection.scalar(pid) == mine


def test_what_was_held_while_disposed_ends_with_the_invocation(mode, database, sessions):
    """`dispose()` in the middle of an invocation hides nothing from its end."""

    def steps():
        engine = mode.create_engine(database)
        with mode.invocation(engine):
            connection = engine.connect()
            connection.execute(ADD, {"name": "open"})
            engine.dispose()
        sessions.become(0)
        connection.close()

    mode.run(steps)


def test_connecting_while_disposed_leaves_no_session(database, sessions):
    """Threads that connect while others dispose leave nothing behind."""
    engine = lambdadb.create_engine(database)
    stop = threading.Event()

    def use():
        while not stop.is_set():
            try:
                with engine.connect() as connection:
                    connection.execute(ONE)
            except ConnectionInUse:
                pass

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        engine.dispose()
    stop.set()
    for thread in threads:
        thread.join()
    engine.dispose()
    sessions.become(0)


def test_the_holder_of_an_orm_session_is_named(engine):
    """The place in the user's code, not one in SQLAlchemy's or the standard library's."""

    def place_order(session):
        session.execute(ONE)

    with Session(engine) as session:
        place_order(session)
        with pytest.raises(ConnectionInUse, match=r"place_order \(test_pool.py:\d+\)"):
            engine.connect()


def test_a_transaction_left_open_is_not_handed_on(database):
    """Whatever keeps SQLAlchemy from rolling back, the next holder begins afresh."""
    engine = lambdadb.create_engine(database, pool_reset_on_return=None)
    connection = engine.raw_connection()
    connection.cursor().execute("INSERT INTO item (name) VALUES ('not mine')")
    connection.close()
    with engine.begin() as other:
        other.execute(ONE)
    assert names(engine) == []
    engine.dispose()


def test_a_listener_may_bring_its_own_connection(database):
    """`do_connect` may return a connection of psycopg's own: it is pinged instead of polled."""

    engine = lambdadb.create_engine(database)

    @event.listens_for(engine, "do_connect")
    def own(dialect, record, arguments, parameters):
        return psycopg.connect(**{k: v for k, v in parameters.items() if k != "context"})

    for _ in range(3):
        with engine.connect() as connection:
            connection.execute(ONE)
    engine.dispose()


def test_what_psycopg_refuses_to_roll_back_is_not_handed_on(database):
    """A connection that was left in the middle of psycopg's own transaction block is replaced."""
    engine = lambdadb.create_engine(database)
    connection = engine.raw_connection()
    connection.driver_connection.transaction().__enter__()
    connection.close()
    with engine.begin() as other:
        other.execute(ADD, {"name": "fine"})
    assert names(engine) == ["fine"]
    engine.dispose()


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


def test_pool_events_are_sqlalchemys(mode, database):
    """Listeners to connect, checkout and checkin are called as with any pool."""

    def steps():
        engine = mode.create_engine(database)
        seen = []
        for name in ("connect", "checkout", "checkin"):
            event.listen(engine, name, lambda *_, name=name: seen.append(name))
        for _ in range(2):
            with engine.connect():
                pass
        assert seen == ["connect", "checkout", "checkin", "checkout", "checkin"]
        engine.dispose()

    mode.run(steps)


def test_a_session_that_the_server_ended_for_idleness_is_replaced(mode, database, sessions):
    """57P05 while frozen: the next invocation connects again and sees no error."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(idle_session_timeout=1.0))
        with engine.connect() as connection:
            before = connection.scalar(PID)
        sessions.become(0)
        with engine.begin() as connection:
            assert connection.scalar(PID) != before
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("times", [1, 3])
def test_a_session_that_was_killed_is_replaced(times, mode, database, sessions):
    """57P01 (operator, failover) between invocations reaches no handler, however often."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect() as connection:
            connection.execute(PID)
        for _ in range(times):
            sessions.terminate()
            with engine.begin() as connection:
                connection.execute(PID)
        engine.dispose()

    mode.run(steps)


def test_a_live_session_is_not_pinged(mode, database):
    """The check of a connection used a moment ago sends no statement."""

    def steps():
        engine = mode.create_engine(database)
        with engine.connect():
            pass
        pings = count_pings(engine)
        with engine.connect():
            pass
        assert pings == []
        engine.dispose()

    mode.run(steps)


def test_a_session_long_unused_is_pinged_once(mode, database):
    """After `ping_after` seconds one real ping finds what no socket tells."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(ping_after=0.0))
        with engine.connect():
            pass
        pings = count_pings(engine)
        with engine.connect():
            pass
        assert len(pings) == 1
        engine.dispose()

    mode.run(steps)


class LateClock(Clock):
    """A clock on which everything was unused for `seconds` more than it was."""

    def __init__(self, seconds):
        self.seconds = seconds

    def idle_since(self, moment):
        return super().idle_since(moment) + self.seconds


SILENT_ENDS = {
    # the policy, what the connection is opened with, unused seconds, whether the session is kept
    "shorter than the timeout": (PerEnvironment(), {}, 59.0, True),
    "longer than the timeout": (PerEnvironment(), {}, 61.0, False),
    "longer than a long timeout": (PerEnvironment(idle_session_timeout=600.0), {}, 601.0, False),
    "no timeout": (PerEnvironment(idle_session_timeout=None), {}, 3000.0, True),
    "the caller's own": (PerEnvironment(), {"options": "-c idle_session_timeout=120000"}, 90.0, True),
    "the caller's own is over": (
        PerEnvironment(),
        {"options": "-c idle_session_timeout=120000"},
        121.0,
        False,
    ),
    "the caller wants none": (PerEnvironment(), {"options": "-c idle_session_timeout=0"}, 3000.0, True),
}


@pytest.mark.parametrize("case", SILENT_ENDS)
def test_a_session_known_to_be_over_is_not_handed_out(case, database, sessions):
    """Unused for longer than its own idle timeout: replaced without a question; else it lives on."""
    policy, connect_args, unused, kept = SILENT_ENDS[case]
    engine = lambdadb.create_engine(database, policy=policy, connect_args=connect_args)
    with engine.connect() as connection:
        pid = connection.scalar(PID)
    engine.pool.clock = LateClock(unused)
    pings = count_pings(engine)
    with engine.connect() as connection:
        assert (connection.scalar(PID) == pid) is kept
    assert len(pings) == (1 if kept and unused > policy.ping_after else 0)
    sessions.become(1)
    engine.dispose()


@pytest.mark.parametrize("end", ["terminated", "network"])
def test_a_ping_that_fails_is_told_to_listeners(end, mode, database, sessions):
    """`handle_error` with `is_pre_ping`, as SQLAlchemy's own pools tell it; the handler sees nothing."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(ping_after=0.0))
        told = []
        event.listen(engine, "handle_error", lambda context: told.append(context.is_pre_ping))
        with engine.connect() as connection:
            connection.execute(ONE)
        engine.pool.driver.liveness = lambda connection: "quiet"
        sessions.terminate()
        with engine.connect() as connection:
            connection.execute(ONE)
        assert told == [True]
        del engine.pool.driver.liveness
        engine.dispose()

    mode.run(steps)


def test_a_ping_works_without_sqlalchemys_private_one(mode, database, sessions, monkeypatch):
    """Where `_do_ping_w_event` is missing the public `do_ping` does it."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(ping_after=0.0))
        monkeypatch.setattr(type(engine.dialect), "_do_ping_w_event", property(), raising=False)
        for _ in range(2):
            with engine.connect() as connection:
                connection.execute(ONE)
        assert sessions.become(1)
        engine.dispose()

    mode.run(steps)


def test_monitors_can_ask_the_pool(mode, database):
    """The questions that frameworks ask QueuePool, and a status that tells open from empty."""

    def steps():
        engine = mode.create_engine(database, policy=PerEnvironment(connections=2))

        def numbers():
            pool = engine.pool
            return pool.size(), pool.checkedout(), pool.checkedin(), pool.overflow()

        assert numbers() == (2, 0, 0, 0)
        assert engine.pool.status().endswith("0 in use, 2 free, of which 0 open")
        with engine.connect(), engine.connect():
            assert numbers() == (2, 2, 0, 0)
            assert engine.pool.status().endswith("2 in use, 0 free, of which 0 open")
        assert numbers() == (2, 0, 2, 0)
        assert engine.pool.status().endswith("0 in use, 2 free, of which 2 open")
        engine.dispose()

    mode.run(steps)


@pytest.mark.parametrize("how", ["level", "echo_pool"])
def test_the_pools_log_is_where_sqlalchemys_users_look(how, database, log, capsys):
    """Under `sqlalchemy.pool`, so that its level and `echo_pool` work as documented."""
    log.set_level("DEBUG", logger="sqlalchemy.pool")
    keywords = {"echo_pool": "debug"} if how == "echo_pool" else {}
    engine = lambdadb.create_engine(database, pool_logging_name="orders", **keywords)
    with engine.connect():
        pass
    names = {record.name for record in log.records if "checked out" in record.getMessage()}
    assert names == {"sqlalchemy.pool.GuardedPool.orders"}
    engine.dispose()


# Python ignores, with a warning, what is raised in a callback of the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_timeout_by_signal_costs_no_place(database, sessions):
    """SIGALRM at random moments of checkouts, as timeouts of tests and libraries use it."""

    class TimedOut(BaseException):
        pass

    def alarm(*_):
        raise TimedOut

    engine = lambdadb.create_engine(database)
    before = signal.signal(signal.SIGALRM, alarm)
    random = Random(7)
    interrupted = 0
    try:
        for number in range(10_000):  # a slow machine is interrupted elsewhere, so some may not count
            if number >= 300 and interrupted > 50:
                break
            try:
                with lambdadb.invocation(engine):
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3))
                    try:
                        for _ in range(20):
                            engine.raw_connection().close()
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
            except TimedOut:
                interrupted += 1
            except ConnectionInUse:
                raise
            except Exception:  # psycopg or SQLAlchemy was interrupted inside
                continue
        assert interrupted > 50
    finally:
        signal.signal(signal.SIGALRM, before)
    with lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(ONE)
    engine.dispose()
    gc.collect()
    sessions.become(0)
