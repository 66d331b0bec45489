"""What handlers, threads, tasks and listeners do to a pool: no slot lost, no transaction mixed."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session, sessionmaker

import lambdadb
from lambdadb import (
    ConnectionInUse,
    InvalidSettings,
    InvocationEnded,
    PerEnvironment,
    TransactionEnded,
    aio,
    run_transaction,
)
from lambdadb.lab.context import FakeContext

ADD = text("INSERT INTO item (name) VALUES (:name)")
ONE = text("SELECT 1")


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM item")))


@pytest.fixture
def engine(database):
    engine = lambdadb.create_engine(database)
    yield engine
    engine.dispose()


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


def test_a_task_left_behind_disturbs_no_other_invocation(database, sessions):
    """Its statement is cancelled on the server, its error is its own, and the next handler works."""
    engine = aio.create_async_engine(database)
    tasks = []

    async def background():
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))

    @lambdadb.handler(engine)
    async def lambda_handler(what, context=None):
        if what == "leave a task":
            tasks.append(asyncio.create_task(background()))
            while not [state for *_, state in sessions() if state == "active"]:
                await asyncio.sleep(0.01)
            return None
        if what == "end":
            return await engine.dispose()
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 42"))

    lambda_handler("leave a task")
    assert [lambda_handler("work") for _ in range(3)] == [42, 42, 42]
    assert [state for *_, state in sessions.become(1)] == ["idle"]
    assert tasks[0].exception() is not None
    lambda_handler("end")


@pytest.mark.parametrize("moment", ["connecting", "executing"])
def test_a_thread_left_behind_is_woken(moment, engine, sessions):
    """A thread that waits for the server when its invocation ends gets an error and does not hang."""
    errors, there, gate = [], threading.Event(), threading.Event()
    if moment == "connecting":
        gate.clear()
    else:
        gate.set()

    @event.listens_for(engine, "connect")
    def connecting(*_):
        there.set()
        gate.wait(10)

    def left():
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(30)"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=left)
    with lambdadb.invocation(engine):
        thread.start()
        there.wait(10)
        while moment == "executing" and "active" not in [state for *_, state in sessions()]:
            pass
    gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert errors
    with lambdadb.invocation(engine), engine.connect() as connection:
        connection.execute(ONE)


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


def test_what_was_held_while_disposed_ends_with_the_invocation(road, database, sessions):
    """`dispose()` in the middle of an invocation hides nothing from its end."""

    def steps():
        engine = road.create_engine(database)
        with road.invocation(engine):
            connection = engine.connect()
            connection.execute(ADD, {"name": "open"})
            engine.dispose()
        sessions.become(0)
        connection.close()

    road.run(steps)


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


def test_a_global_session_is_told_that_its_invocation_ended(engine):
    """A session that was never closed says so when it is used again, and works after a rollback."""
    session = Session(engine)
    with lambdadb.invocation(engine):
        session.execute(ADD, {"name": "lost"})
    with lambdadb.invocation(engine):
        with pytest.raises(InvocationEnded, match="inside the handler"):
            session.execute(ONE)
        session.rollback()
        session.execute(ADD, {"name": "kept"})
        session.commit()
    assert names(engine) == ["kept"]


def test_the_holder_of_an_orm_session_is_named(engine):
    """The place in the user's code, not one in SQLAlchemy's or the standard library's."""

    def place_order(session):
        session.execute(ONE)

    with Session(engine) as session:
        place_order(session)
        with pytest.raises(ConnectionInUse, match=r"place_order \(test_trouble.py:\d+\)"):
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


def test_an_error_after_the_commit_repeats_nothing(database):
    """`after_commit` fails with a serialization error of its own: the row is committed, once."""
    engine, other = lambdadb.create_engine(database), lambdadb.create_engine(database)
    sessions = sessionmaker(engine)
    audits = []

    def audit(session):
        audits.append(1)
        with other.connect() as connection:
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING errcode = '40001'; END $$"))

    event.listen(sessions, "after_commit", audit)
    with pytest.raises(Exception, match="x"):
        run_transaction(sessions, lambda session: session.execute(ADD, {"name": "once"}))
    assert names(engine) == ["once"]
    assert audits == [1]
    engine.dispose()
    other.dispose()


def test_a_unit_that_commits_itself_is_never_repeated(engine, sessions):
    """It broke the rule, and then lost its connection: what is committed is not done again."""

    def work(connection):
        connection.execute(ADD, {"name": "once"})
        connection.connection.driver_connection.execute("COMMIT")
        sessions.terminate()
        connection.execute(ONE)

    with pytest.raises(TransactionEnded):
        run_transaction(engine, work)
    assert names(engine) == ["once"]


def test_coroutine_functions_and_two_phase_sessions_are_refused(engine):
    """What could not be repeated, or would not run at all, is an error and not a silence."""

    async def work(connection):
        pass

    with pytest.raises(InvalidSettings, match=r"aio\.run_transaction"):
        run_transaction(engine, work)
    with pytest.raises(InvalidSettings, match="two-phase"):
        run_transaction(sessionmaker(engine, twophase=True), print)


def test_the_asynchronous_decorator(database):
    """`aio.transactional`: the connection comes first, the caller's arguments after it."""

    async def main():
        engine = aio.create_async_engine(database)

        @aio.transactional(engine)
        async def place(connection, name):
            await connection.execute(ADD, {"name": name})
            return name

        assert await place("a") == "a"
        await engine.dispose()

    asyncio.run(main())


def test_several_engines_in_one_handler(database):
    """`handler(orders, logs)`: all are inside the invocation."""
    engines = [lambdadb.create_engine(database) for _ in range(2)]

    @lambdadb.handler(*engines)
    def lambda_handler(event, context):
        return [engine.pool.invocations.active for engine in engines]

    assert lambda_handler({}, None) == [True, True]


def test_pg_variables_work_as_with_sqlalchemy(server, database, monkeypatch):
    """An empty URL means libpq's environment variables."""
    for name, value in {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.username,
        "PGPASSWORD": server.password,
        "PGDATABASE": database.database,
    }.items():
        monkeypatch.setenv(name, value)
    engine = lambdadb.create_engine("postgresql+psycopg://")
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1
    engine.dispose()


def test_a_host_name_is_resolved_outside_of_the_loop(road, database):
    """`localhost` has two addresses: the one that answers is found."""

    def steps():
        engine = road.create_engine(database.set(host="localhost"))
        with engine.connect() as connection:
            assert connection.scalar(ONE) == 1
        engine.dispose()

    road.run(steps)


def test_a_name_server_that_does_not_answer_cannot_outlast_the_limit(road, database, monkeypatch):
    """Resolving is bounded like everything else of a connect, and blocks no event loop."""
    answered = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answered.wait(10) and [])

    def steps():
        engine = road.create_engine(
            database.set(host="db.example"), retry=lambdadb.ResumeRetry(timeout=0.5, hedge_after=0.2)
        )
        with pytest.raises(lambdadb.ConnectFailed, match="resolving the host name"):
            engine.connect()
        assert not answered.is_set()

    road.run(steps)
    answered.set()


def test_a_silent_first_host_hides_no_other(road, database):
    """With several hosts each attempt begins at the next one."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = {
            "host": f"127.0.0.1:{silent.getsockname()[1]}",
            "second": f"{database.host}:{database.port}",
        }
        url = database.set(host=None, port=None, query={"host": tuple(hosts.values())})

        def steps():
            engine = road.create_engine(url, retry=lambdadb.ResumeRetry(timeout=10))
            with engine.connect() as connection:
                assert connection.scalar(ONE) == 1
            engine.dispose()

        road.run(steps)


def test_a_unit_left_in_a_thread_is_not_repeated_after_its_invocation(engine, sessions):
    """What the end of an invocation broke does not begin anew outside of it."""
    runs, errors, started = [], [], threading.Event()

    def work(connection):
        runs.append(1)
        started.set()
        connection.execute(text("INSERT INTO item (name) SELECT 'late' FROM pg_sleep(30)"))

    def left():
        try:
            run_transaction(engine, work)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=left)
    with lambdadb.invocation(engine):
        thread.start()
        started.wait(10)
        while "active" not in [state for *_, state in sessions()]:
            pass
    thread.join(10)
    assert [type(error) for error in errors] == [InvocationEnded]
    assert runs == [1]
    sessions.become(0)


def test_a_unit_without_time_is_not_sent_and_costs_no_connection(database, sessions):
    """`OutOfTime` before BEGIN: nothing was sent, and the warm session is still there."""
    engine = lambdadb.create_engine(database)
    with engine.connect() as connection:
        connection.execute(ONE)
    (before,) = sessions.become(1)
    with lambdadb.invocation(engine, FakeContext(0.5)), pytest.raises(lambdadb.OutOfTime) as caught:
        run_transaction(engine, lambda connection: connection.execute(ADD, {"name": "no"}))
    assert not caught.value.sent
    assert [pid for pid, *_ in sessions()] == [before[0]]
    assert names(engine) == []
    engine.dispose()


def test_a_listener_may_bring_its_own_connection(database):
    """`do_connect` may return a connection of psycopg's own: it is pinged instead of polled."""
    import psycopg

    engine = lambdadb.create_engine(database)

    @event.listens_for(engine, "do_connect")
    def own(dialect, record, arguments, parameters):
        return psycopg.connect(**{k: v for k, v in parameters.items() if k != "context"})

    for _ in range(3):
        with engine.connect() as connection:
            connection.execute(ONE)
    engine.dispose()


def test_a_failed_unit_in_autocommit_leaves_no_transaction(database, sessions):
    """Where SQLAlchemy does not roll back, because it believes to be in autocommit."""
    engine = lambdadb.create_engine(database, isolation_level="AUTOCOMMIT")

    def work(connection):
        connection.execute(ADD, {"name": "undone"})
        raise KeyError

    with pytest.raises(KeyError):
        run_transaction(engine, work)
    assert {state for *_, state in sessions()} == {"idle"}
    assert names(engine) == []
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
