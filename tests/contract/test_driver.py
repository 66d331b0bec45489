"""What holds for every driver: pool, connect, invocation and transaction loop know none of them."""

from __future__ import annotations

import time

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import lambdadb
from lambdadb import ConnectFailed, ConnectionInUse, Fault, PerEnvironment, PerInvocation
from lambdadb import run_transaction as run

from .conftest import INSERT, NAME


def wait_until(condition, seconds=30.0):
    """Wait until it holds: a closed session takes a moment to leave the server's view."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def use(connection):
    """Send a statement: not every driver has a session before that."""
    connection.execute(text("SELECT 1"))


def add(name):
    """A unit of work."""
    return lambda connection: connection.execute(INSERT, {"name": name})


@pytest.fixture
def make_engine(testbed):
    """Engines that end with the test."""
    engines = []

    def make(**keywords):
        engines.append(lambdadb.create_engine(testbed.url, **keywords))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def test_the_engine_looks_like_sqlalchemys(testbed, make_engine):
    """URL, dialect name and driver are those that users know."""
    engine = make_engine()
    assert engine.url.drivername == f"{engine.dialect.name}+{engine.dialect.driver}"
    assert engine.url.drivername == testbed.drivername
    assert type(engine) is sqlalchemy.Engine


def test_by_url_alone_the_engine_is_the_same(testbed):
    """SQLAlchemy's own `create_engine` with the plugin gives the same pool and dialect."""
    ours = lambdadb.create_engine(testbed.url)
    separator = "&" if "?" in testbed.url else "?"
    theirs = sqlalchemy.create_engine(f"{testbed.url}{separator}plugin=lambdadb")
    assert (type(theirs.pool), type(theirs.dialect)) == (type(ours.pool), type(ours.dialect))
    assert theirs.url == ours.url


def test_one_session_with_one_holder(testbed, make_engine):
    """A second checkout is refused and the first is unharmed; its session is used again."""
    engine = make_engine()
    with engine.connect(), pytest.raises(ConnectionInUse, match="test_one_session_with_one_holder"):
        engine.connect()
    with engine.connect() as connection:
        use(connection)
        assert len(testbed.sessions()) == 1


def test_no_session_outlives_its_invocation(testbed, make_engine):
    """With PerInvocation."""
    engine = make_engine(policy=PerInvocation())
    with lambdadb.invocation(engine), engine.connect() as connection:
        use(connection)
        assert len(testbed.sessions()) == 1
    wait_until(lambda: testbed.sessions() == [])


def test_a_session_is_reset_between_invocations(testbed, make_engine):
    """The session stays, with its tag; one that has ended is replaced instead, without an error."""
    engine = make_engine(policy=PerEnvironment(reset="session"), tag="orders")
    for _ in range(2):
        with lambdadb.invocation(engine), engine.connect() as connection:
            use(connection)
            assert testbed.sessions() == ["orders"]
    testbed.end_sessions()
    wait_until(lambda: testbed.sessions() == [])
    with lambdadb.invocation(engine), engine.connect() as connection:
        use(connection)
        assert testbed.sessions() == ["orders"]


def test_an_ended_session_is_replaced(testbed, make_engine):
    """Without an error for the handler."""
    engine = make_engine()
    run(engine, add("a"))
    testbed.end_sessions()
    wait_until(lambda: testbed.sessions() == [])
    run(engine, add("b"))
    assert testbed.rows() == ["a", "b"]


def test_the_session_has_the_functions_name(testbed, make_engine, monkeypatch):
    """No longer than the server takes; cut with a digest."""
    name = "a-function-with-a-name-that-is-longer-than-any-server-takes-as-a-sessions-tag" * 2
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", name)
    with make_engine().connect() as connection:
        use(connection)
        (tag,) = testbed.sessions()
    assert len(tag) == testbed.tag_bytes
    assert tag[:-7] == name[: len(tag) - 7]


def test_a_database_that_wakes_up_is_waited_for(testbed, make_engine):
    """An attempt that fails is followed by another, with no error for the handler."""
    engine = make_engine()
    testbed.refuse_attempts(1)
    with engine.connect() as connection:
        use(connection)
        assert len(testbed.sessions()) == 1


def test_a_refused_login_is_no_reason_to_wait(testbed, make_engine):
    """It fails at once, with its fault, and the slot is free again."""
    testbed.refuse_login()
    engine = make_engine()
    with pytest.raises(ConnectFailed) as raised:
        engine.connect()
    assert raised.value.attempts == 1
    assert raised.value.fault in (Fault.CREDENTIALS, Fault.MISCONFIGURED)


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()], ids=repr)
def test_a_unit_of_work_is_stored_once(testbed, make_engine, policy):
    """`run_transaction` commits, and says what the unit returned."""
    engine = make_engine(policy=policy)
    with lambdadb.invocation(engine):
        assert run(engine, lambda connection: add("a")(connection) and "result") == "result"
    assert testbed.rows() == ["a"]


def test_a_conflict_is_repeated(testbed, make_engine):
    """The unit runs again in a new transaction; what it did before the conflict is not kept."""
    engine = make_engine()
    runs = []

    def unit(connection):
        add("a")(connection)
        runs.append(1)
        if len(runs) == 1:
            connection.execute(testbed.conflict)

    run(engine, unit)
    assert (len(runs), testbed.rows()) == (2, ["a"])


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_answer_to_commit_is_settled(testbed, make_engine, done):
    """Whether it was carried out or not, the row is there once."""
    engine = make_engine()
    run(engine, add("first"))
    testbed.lose_commit(engine, done=done)
    before = testbed.rows()
    if testbed.keeps_outcomes:
        run(engine, add("a"))
    else:
        run(engine, lambda connection: None, idempotency_key=(NAME, "a"))
    assert testbed.rows() == sorted([*before, "a"])


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_answer_is_in_doubt_where_no_record_is_kept(testbed, make_engine, done):
    """Without a key, and the error says why. Where the server knows, it is settled."""
    engine = make_engine()
    run(engine, add("first"))
    testbed.lose_commit(engine, done=done)
    before = testbed.rows()
    if testbed.keeps_outcomes:
        run(engine, add("a"))
        return
    with pytest.raises(lambdadb.CommitInDoubt, match="keeps no record"):
        run(engine, add("a"))
    assert testbed.rows() == sorted([*before, *["a"] * done])


def test_an_error_of_the_unit_rolls_it_back(testbed, make_engine):
    """It reaches the caller, and nothing is stored."""

    def unit(connection):
        add("a")(connection)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        run(make_engine(), unit)
    assert testbed.rows() == []


def test_a_session_left_open_ends_with_its_invocation(testbed, make_engine):
    """Its next statement says so; the next invocation connects anew."""
    engine = make_engine()
    with lambdadb.invocation(engine):
        left = engine.connect()
        left.execute(INSERT, {"name": "a"})
    with pytest.raises((lambdadb.InvocationEnded, DBAPIError)):
        left.execute(text("SELECT 1"))
    left.close()
    run(engine, add("b"))
    assert testbed.rows() == ["b"]


def test_a_store_of_logins_knows_no_driver(testbed):
    """It is told neutral names and the default port, and its login by those names is sent."""
    told = []
    url = sqlalchemy.make_url(testbed.url)
    login = {"user": url.username, "password": url.password, "host": url.host, "port": url.port}

    class Store:
        def logins(self, parameters):
            told.append(parameters)
            return [{name: value for name, value in login.items() if value is not None}]

    bare = url._replace(username=None, password=None)
    if not testbed.takes_logins:
        with pytest.raises(lambdadb.InvalidSettings, match="reads the secret itself"):
            lambdadb.create_engine(bare, credentials=Store())
        return
    engine = lambdadb.create_engine(bare, credentials=Store())
    with engine.connect() as connection:
        use(connection)
        assert len(testbed.sessions()) == 1
    engine.dispose()
    (parameters,) = told
    assert parameters["host"] == url.host
    assert parameters["database"] == url.database
    assert parameters["default_port"] == testbed.default_port
    assert "user" not in parameters
