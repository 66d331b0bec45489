"""What units of work do besides inserting rows: what is refused, repeated, and told of them."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session, sessionmaker

import lambdadb
from lambdadb import InvalidSettings, OutOfTime, PerInvocation, TransactionEnded, run_transaction
from lambdadb.lab.context import LambdaContext
from lambdadb.lab.faultproxy.unit_shapes import (
    HALF,
    SHAPES,
    UnitError,
    as_sql,
    driver_connection,
    insert,
)

from .lost_answers import LostAnswers

TABLE = "CREATE TABLE IF NOT EXISTS unit (name text); TRUNCATE unit"
ONLY_ONCE = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"


@pytest.fixture
def database(shared_database):
    return shared_database


@pytest.fixture
def here(database):
    """A direct connection to the database."""
    dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def rows(here):
    return sorted(name for (name,) in here.execute("SELECT name FROM unit"))


@pytest.fixture(params=["engine", "ORM"])
def target(request):
    """Makes an engine, or a sessionmaker bound to one."""
    return (lambda engine: engine) if request.param == "engine" else sessionmaker


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_shape_is_told_the_truth(shape, target, mode, database, here):
    """Committed as a whole, or refused with an error that says what of it is committed."""

    def told(unit, name):
        if shape.claim == "committed":
            run_transaction(unit, lambda target: shape.work(target, name))
        elif shape.claim == "failed":
            with pytest.raises(UnitError):
                run_transaction(unit, lambda target: shape.work(target, name))
        else:
            with pytest.raises(TransactionEnded) as raised:
                run_transaction(unit, lambda target: shape.work(target, name))
            assert raised.value.committed == (shape.claim == HALF)
            wrong = "Nothing of it is committed" if raised.value.committed else "committed a part"
            assert wrong not in str(raised.value)

    def steps():
        engine = mode.create_engine(database)
        unit = target(engine)
        told(unit, "first ")  # BEGIN is sent by itself
        run_transaction(unit, lambda target: insert(target, "next"))  # the connection is as before
        told(unit, "later ")  # BEGIN is sent with the first statement
        engine.dispose()

    mode.run(steps)
    there = {"committed": list(shape.parts), HALF: ["a"]}.get(shape.claim, [])
    names = [f"{name} {part}" for name in ("first", "later") for part in there]
    assert rows(here) == sorted([*names, "next"])


@pytest.mark.parametrize("statement", ["COMMIT AND CHAIN", "COMMIT; BEGIN", "COMMIT"])
def test_a_cursor_class_of_the_callers_own_hides_no_commit(statement, database, here):
    """Where COMMIT is not noticed, the server is asked before anything else is committed."""
    keywords = {"cursor_factory": psycopg.ClientCursor}
    engine = lambdadb.create_engine(database, connect_args=keywords)

    def work(connection):
        insert(connection, "a")
        as_sql(connection, statement)
        insert(connection, "b")

    with pytest.raises(TransactionEnded) as raised:
        run_transaction(engine, work)
    assert raised.value.committed
    assert rows(here) == ["a"]
    engine.dispose()


@pytest.mark.parametrize("option", ["postgresql_readonly", "isolation_level"])
@pytest.mark.parametrize("name", ["ROLLBACK AND CHAIN", "commit()"])
def test_a_refused_commit_leaves_a_connection_that_can_be_used(
    name, option, target, mode, database, here
):
    """Its transaction is over before SQLAlchemy resets the connection's options."""
    shape = next(shape for shape in SHAPES if shape.name == name)

    def steps():
        engine = mode.create_engine(database)
        value = {"postgresql_readonly": False, "isolation_level": "SERIALIZABLE"}[option]
        optioned = engine.execution_options(**{option: value})
        with pytest.raises(TransactionEnded):
            run_transaction(target(optioned), lambda target: shape.work(target, ""))
        with pytest.raises(TransactionEnded):
            run_transaction(target(optioned), lambda target: shape.work(target, ""))
        engine.dispose()

    mode.run(steps)
    assert rows(here) == []


def test_a_prepared_transaction_is_not_the_units(database, here):
    """PREPARE TRANSACTION ends it, where the server allows that at all: nothing is committed."""
    engine = lambdadb.create_engine(database)

    def work(connection):
        insert(connection, "a")
        as_sql(connection, "PREPARE TRANSACTION 'one'")

    with pytest.raises((TransactionEnded, lambdadb.LambdaDBError.__mro__[1])):
        run_transaction(engine, work)
    assert rows(here) == []
    engine.dispose()


# BEGIN

MODES = [
    {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
    {"isolation_level": "SERIALIZABLE", "postgresql_readonly": False, "postgresql_deferrable": False},
    {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    {"isolation_level": "REPEATABLE READ", "postgresql_readonly": False},
    {"postgresql_readonly": False, "postgresql_deferrable": True},
]


@pytest.mark.parametrize("options", MODES, ids=lambda options: ",".join(map(str, options.values())))
@pytest.mark.parametrize("default", ["on", "off"])
def test_begin_has_the_modes_of_the_engines_own(options, default, mode, database):
    """Isolation, READ ONLY or READ WRITE, DEFERRABLE or not, against defaults that say the opposite."""
    shown = text(
        "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),"
        " current_setting('transaction_deferrable')"
    )
    defaults = f"-c default_transaction_read_only={default} -c default_transaction_deferrable={default}"

    def steps():
        engine = mode.create_engine(database, connect_args={"options": defaults})
        engine = engine.execution_options(**options)
        ours = run_transaction(engine, lambda connection: tuple(connection.execute(shown).one()))
        with engine.connect() as connection:
            assert ours == tuple(connection.execute(shown).one())
        engine.dispose()

    mode.run(steps)


def test_read_only_is_not_believed(mode, database, here, monkeypatch):
    """NOTIFY is possible in a READ ONLY transaction: its COMMIT is asked for like any other."""
    runs = []
    here.execute("LISTEN channel")

    def work(connection):
        runs.append(1)
        connection.execute(text("NOTIFY channel"))

    def steps():
        engine = mode.create_engine(database).execution_options(postgresql_readonly=True)
        lost = LostAnswers(monkeypatch, done=False)
        run_transaction(engine, work)
        lost.close()
        engine.dispose()

    mode.run(steps)
    assert len(runs) == 2
    assert len(list(here.notifies(timeout=10, stop_after=1))) == 1


def test_a_connection_of_a_listeners_own_is_refused_before_any_work(database, here):
    """How far its COMMIT came cannot be seen: the unit of work is not called."""
    engine = lambdadb.create_engine(database)

    @event.listens_for(engine, "do_connect")
    def connect(*_):
        return psycopg.connect(database.set(drivername="postgresql").render_as_string(False))

    with pytest.raises(InvalidSettings, match="do_connect"):
        run_transaction(engine, lambda connection: pytest.fail("the unit was called"))
    with engine.connect() as connection:  # an ordinary one works
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


# psycopg's own errors, of cursors and COPY that SQLAlchemy does not see


def test_a_conflict_in_the_drivers_own_cursor_is_repeated(mode, database, here):
    """40001 as psycopg's error: another run, as for SQLAlchemy's."""
    runs = []

    def work(connection):
        runs.append(1)
        cursor = driver_connection(connection).cursor()
        cursor.execute("INSERT INTO unit VALUES ('a')")
        if len(runs) == 1:
            cursor.execute(ONLY_ONCE)
        cursor.close()

    def steps():
        engine = mode.create_engine(database)
        run_transaction(engine, work)
        engine.dispose()

    mode.run(steps)
    assert rows(here) == ["a"]
    assert len(runs) == 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_connection_lost_in_copy_is_repeated(times, database, here):
    """COPY goes past SQLAlchemy, and so does the loss of its connection."""
    engine = lambdadb.create_engine(database)
    runs = []

    def work(connection):
        runs.append(1)
        driver = driver_connection(connection)
        with driver.cursor().copy("COPY unit FROM STDIN") as copy:
            copy.write("a\n")
            if len(runs) <= times:
                here.execute("SELECT pg_terminate_backend(%s, 10000)", [driver.info.backend_pid])

    run_transaction(engine, work)
    assert rows(here) == ["a"]
    assert len(runs) == times + 1
    engine.dispose()


def test_the_drivers_own_statement_out_of_time_is_named(mode, database, here):
    """At the deadline a driver's cursor raises what SQLAlchemy's statements raise: OutOfTime."""

    def work(connection):
        insert(connection, "a")
        driver_connection(connection).cursor().execute("SELECT pg_sleep(60)")

    def steps():
        engine = mode.create_engine(database)
        with pytest.raises(OutOfTime), mode.invocation(engine, LambdaContext(2.0)):
            run_transaction(engine, work)
        engine.dispose()

    mode.run(steps)
    assert rows(here) == []


# After COMMIT


class Late(Exception):
    """Something of the caller's own that fails after COMMIT."""


def _late(*_):
    raise Late


AFTER = {
    "after_commit": lambda engine: (sessionmaker(engine), (Session, "after_commit")),
    "checkin": lambda engine: (engine, (engine, "checkin")),
    "reset": lambda engine: (engine, (engine, "reset")),
    "close": lambda engine: (engine, (engine, "close")),
}


@pytest.mark.parametrize("when", AFTER)
def test_what_fails_after_commit_does_not_deny_it(when, database, here, log):
    """It is logged, and the result is returned: whoever saw an error would do the work again."""
    engine = lambdadb.create_engine(database, policy=PerInvocation())
    unit, (on, name) = AFTER[when](engine)
    event.listen(on, name, _late)
    try:
        assert run_transaction(unit, lambda target: [insert(target, "a"), "done"][1]) == "done"
    finally:
        event.remove(on, name, _late)
    assert rows(here) == ["a"]
    assert "Late" in log.text
    run_transaction(engine, lambda connection: insert(connection, "b"))  # no place is taken
    engine.dispose()


def test_the_deadline_after_commit_does_not_deny_it(mode, database, here, monkeypatch, log):
    """Time is over before SQLAlchemy resets the isolation level: committed, told so, place free."""

    def steps():
        engine = mode.create_engine(database)
        clock = engine.pool.connector.clock
        now, late = clock.now, []
        monkeypatch.setattr(clock, "now", lambda: now() + 1e6 * bool(late))

        @event.listens_for(engine, "commit")
        def committing(connection):
            driver = connection.connection.driver_connection
            original = type(driver).commit

            def in_time():
                result = original(driver)
                late.append(1)
                return result

            async def in_time_too():
                await original(driver)
                late.append(1)

            driver.commit = in_time_too if mode.asynchronous else in_time

        optioned = engine.execution_options(isolation_level="SERIALIZABLE")
        with mode.invocation(engine, LambdaContext(60.0)):
            assert run_transaction(optioned, lambda c: [insert(c, "a"), "done"][1]) == "done"
            assert late
        event.remove(engine, "commit", committing)
        late.clear()
        run_transaction(engine, lambda connection: insert(connection, "b"))
        engine.dispose()

    mode.run(steps)
    assert rows(here) == ["a", "b"]
    assert "An error came after that" not in log.text  # the reset itself works
