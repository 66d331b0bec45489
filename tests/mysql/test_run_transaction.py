"""Units of work on MariaDB: nothing lost, nothing done twice, and the truth about what is committed."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import column, insert, make_url, table, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import sessionmaker

import lambdadb
from lambdadb import CommitInDoubt, TransactionEnded, run_transaction
from lambdadb.lab.faultproxy.proxy import Action, Direction, FaultPoint

from ..waiting import wait_until

UNIT = table("unit", column("name"))
NAME = UNIT.c.name


def add(connection, name):
    connection.execute(insert(UNIT).values(name=name))


@pytest.fixture(params=["engine", "ORM"])
def target(request):
    """Makes an engine, or a sessionmaker bound to one."""
    return (lambda engine: engine) if request.param == "engine" else sessionmaker


@pytest.fixture(scope="module")
def procedures(shared_server):
    """Procedures that do, and do not, commit."""
    for name, body in {
        "adds": "INSERT INTO unit VALUES ('in'); SELECT 1;",
        "commits": "INSERT INTO unit VALUES ('in'); COMMIT; INSERT INTO unit VALUES ('after');",
        "fails_later": "COMMIT; SIGNAL SQLSTATE '45000';",
        "deadlocks_later": "COMMIT; SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213;",
        "sleeps": "INSERT INTO unit VALUES ('in'); COMMIT; DO SLEEP(60);",
    }.items():
        shared_server.ask(f"CREATE OR REPLACE PROCEDURE {name}() BEGIN {body} END")


def test_a_procedure_may_take_part(server, procedures, target, mode):
    """One that does not commit belongs to the unit."""

    def steps():
        engine = mode.create_engine(server.url)

        def work(connection):
            connection.execute(text("CALL adds()"))
            add(connection, "a")

        run_transaction(target(engine), work)
        engine.dispose()

    mode.run(steps)
    assert server.rows() == ["a", "in"]


@pytest.mark.parametrize("procedure", ["commits", "fails_later"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_procedure_that_commits_is_told(server, procedures, target, procedure, first):
    """As the unit's first statement too; what it did after its COMMIT is rolled back."""
    engine = lambdadb.create_engine(server.url)

    def work(connection):
        if not first:
            add(connection, "a")
        connection.execute(text(f"CALL {procedure}()"))
        add(connection, "b")

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(target(engine), work)
    assert raised.value.committed
    assert server.rows() == ["a"] * (not first) + ["in"] * (procedure == "commits")
    run_transaction(target(engine), lambda connection: add(connection, "c"))
    engine.dispose()


@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_a_deadlock_in_a_procedure_that_may_have_committed(server, procedures, key):
    """A key tells that it had. Without one it is in doubt, and is not run again."""
    engine = lambdadb.create_engine(server.url)
    runs = []

    def work(connection):
        runs.append(1)
        connection.execute(text("CALL deadlocks_later()"))

    with pytest.raises(TransactionEnded if key else CommitInDoubt):
        run_transaction(engine, work, idempotency_key=(NAME, "a") if key else None)
    assert len(runs) == 1
    engine.dispose()


@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_an_unanswered_procedure_is_not_taken_for_aborted(server, procedures, key, mode):
    """It may have committed. A key tells; without one it is in doubt."""

    def steps():
        engine = mode.create_engine(server.url)

        def work(connection):
            connection.execute(text("CALL sleeps()"))

        thread = threading.Thread(target=end_when_committed)
        thread.start()
        with pytest.raises(TransactionEnded if key else CommitInDoubt):
            run_transaction(engine, work, idempotency_key=(NAME, "a") if key else None)
        thread.join()
        engine.dispose()

    def end_when_committed():
        wait_until(lambda: "in" in server.rows())
        server.terminate()

    mode.run(steps)
    assert server.rows() == ["a"] * key + ["in"]


def test_autocommit_does_not_end_a_unit(server, target):
    """A transaction is begun, also in Oracle's dialect, where BEGIN would begin a block."""
    command = "SET autocommit = 1, sql_mode = 'ORACLE'"
    engine = lambdadb.create_engine(server.url, connect_args={"init_command": command})

    def work(connection):
        add(connection, "a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_transaction(target(engine), work)
    assert server.rows() == []
    run_transaction(target(engine), lambda connection: add(connection, "b"))
    assert server.rows() == ["b"]
    engine.dispose()


def test_ddl_is_refused(server, target):
    """It would commit what came before. Nothing is committed, and the error says so."""
    engine = lambdadb.create_engine(server.url)

    def work(connection):
        add(connection, "a")
        connection.execute(text("CREATE TABLE other (n INT)"))

    with pytest.raises(TransactionEnded, match="CREATE would commit") as raised:
        run_transaction(target(engine), work)
    assert not raised.value.committed
    assert server.rows() == []
    engine.dispose()


def make_accounts(server):
    """Rows 1 and 2 that two units lock in opposite order."""
    server.ask("CREATE TABLE IF NOT EXISTS account (id INT PRIMARY KEY, n INT)")
    server.ask("REPLACE INTO account VALUES (1, 0), (2, 0)")


def lock(connection, number):
    connection.execute(text("UPDATE account SET n = n + 1 WHERE id = :id"), {"id": number})


def test_a_real_deadlock_is_repeated(server):
    """Two units lock two rows in opposite order: both are done, each once."""
    make_accounts(server)
    barrier = threading.Barrier(2, timeout=60)
    runs = []

    def transfer(first, second):
        engine = lambdadb.create_engine(server.url)
        met = []

        def work(connection):
            runs.append(1)
            lock(connection, first)
            if not met:
                met.append(1)
                barrier.wait()
            lock(connection, second)

        run_transaction(engine, work)
        engine.dispose()

    threads = [threading.Thread(target=transfer, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ask("SELECT n FROM account ORDER BY id") == [(2,), (2,)]
    assert len(runs) == 3


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in a savepoint"])
def test_a_lock_wait_timeout(server, nested):
    """It ends one statement: the unit runs again, or goes on after its savepoint."""
    make_accounts(server)
    engine = lambdadb.create_engine(server.url)
    other = lambdadb.create_engine(server.url)
    runs = []

    def work(connection):
        runs.append(1)
        add(connection, "a")
        connection.execute(text("SET SESSION innodb_lock_wait_timeout = 0"))
        if nested:
            with pytest.raises(OperationalError, match="1205"), connection.begin_nested():
                lock(connection, 1)
            return
        if len(runs) == 2:
            holder.rollback()
        lock(connection, 1)

    with other.connect() as holder:
        lock(holder, 1)
        run_transaction(engine, work)
    assert server.rows() == ["a"]
    assert len(runs) == (1 if nested else 2)
    engine.dispose()
    other.dispose()


def test_a_swallowed_deadlock_commits_nothing_by_half(server):
    """What the unit does after it is not stored alone: the unit runs again as a whole."""
    engine = lambdadb.create_engine(server.url)
    runs = []

    def work(connection):
        runs.append(1)
        add(connection, "a")
        if len(runs) == 1:
            with pytest.raises(OperationalError):
                connection.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"))
        add(connection, "b")

    run_transaction(engine, work)
    assert (len(runs), server.rows()) == (2, ["a", "b"])
    engine.dispose()


def test_the_old_session_is_ended_before_the_key_is_looked_for(server, mode):
    """A COMMIT that was held on its way cannot land after the answer: its session is killed first."""

    used = []

    def work(connection):
        used.append(connection.connection.driver_connection)

    def steps():
        engine = mode.create_engine(server.url)
        run_transaction(engine, work, idempotency_key=(NAME, "seen"))
        server.proxy.arm(None)
        run_transaction(engine, work, idempotency_key=(NAME, "recorded"))
        sent = [m for m in server.proxy.messages if m.direction is Direction.CLIENT_TO_SERVER]
        # The client hears of the loss, and the server's session stays, with the COMMIT undelivered.
        server.proxy.arm(FaultPoint(Direction.CLIENT_TO_SERVER, Action.DROP, message=len(sent) - 1))
        thread = threading.Thread(target=cut)
        thread.start()
        with lambdadb.invocation(engine):
            run_transaction(engine, work, idempotency_key=(NAME, "a"))
        thread.join()
        engine.dispose()

    def cut():
        wait_until(lambda: server.proxy.fault_done)
        used[-1].stream.shutdown()

    mode.run(steps)
    assert server.rows() == ["a", "recorded", "seen"]


@pytest.fixture
def read_only(server):
    """The URL of a user whose writes the server refuses while it is read-only, as after a failover."""
    server.ask("CREATE OR REPLACE USER writer IDENTIFIED BY 'canary-writer'")
    server.ask("GRANT ALL ON orders.* TO writer")
    server.ask("SET GLOBAL read_only = ON")
    yield make_url(server.url).set(username="writer", password="canary-writer")
    server.ask("SET GLOBAL read_only = OFF")


def test_a_node_that_takes_no_writes_is_left(server, read_only, target, mode):
    """1290: the next connect may find the writer, and the unit runs there as a whole."""

    def steps():
        engine = mode.create_engine(read_only)
        used = []

        def work(connection):
            used.append(connection.scalar(text("SELECT CONNECTION_ID()")))
            if len(used) == 2:
                server.ask("SET GLOBAL read_only = OFF")
            add(connection, "a")

        run_transaction(target(engine), work)
        assert len(set(used)) == len(used) == 2
        engine.dispose()

    mode.run(steps)
    assert server.rows() == ["a"]


def test_a_limit_of_time_is_not_looped_on(server):
    """63952 of aurora_transaction_timeout has the SQLSTATE of a deadlock: it is raised, once."""
    engine = lambdadb.create_engine(server.url)
    runs = []

    def work(connection):
        runs.append(1)
        connection.execute(text("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 63952"))

    with pytest.raises(DBAPIError, match="63952"):
        run_transaction(engine, work)
    assert len(runs) == 1
    engine.dispose()
