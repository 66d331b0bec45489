"""Engines that somebody else made, attached to one of lambdadb's: what the server sees of them."""

from __future__ import annotations

import asyncio
from contextlib import closing, contextmanager

import pytest
import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

import lambdadb
import lambdadb.aio
from lambdadb import ConnectFailed, DatabaseResuming, Fault, InvalidSettings, OutOfTime
from lambdadb.attach import attach
from lambdadb.lab.context import LambdaContext

PASSWORD = "canary-attach-5e1f"
QUESTION = text(
    "SELECT current_user, current_setting('application_name'), current_setting('idle_session_timeout')"
)


class Store:
    """Gives logins, and keeps what it was asked for."""

    def __init__(self, *logins):
        self.given = logins or ({"user": "guest", "password": PASSWORD},)
        self.asked = []

    def logins(self, parameters):
        self.asked.append(dict(parameters))
        yield from self.given


class AsyncStore(Store):
    async def logins(self, parameters):
        for login in self.given:
            yield login


@pytest.fixture(scope="module")
def role(admin):
    """A role with a password, which no test's engine has in its URL."""
    admin.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    yield "guest"
    admin.execute("DROP OWNED BY guest; DROP ROLE guest")


@pytest.fixture
def url(direct, postgres, role):
    """The test's database, without a password."""
    return direct.set(database=postgres.name, username=role)._replace(password=None)


@pytest.fixture
def ours(url):
    return lambdadb.create_engine(url.set(username=None), credentials=Store(), tag="orders")


@contextmanager
def theirs(url, kind="sync", **keywords):
    """An engine of SQLAlchemy's own, and how to ask with it."""
    if kind == "sync":
        engine = sqlalchemy.create_engine(url, **keywords)

        def ask(statement=QUESTION):
            with engine.connect() as connection:
                return tuple(connection.execute(statement).one())

        yield engine, ask
        engine.dispose()
        return
    engine = create_async_engine(url, **keywords)

    async def answer(statement):
        async with engine.connect() as connection:
            return tuple((await connection.execute(statement)).one())

    with closing(asyncio.new_event_loop()) as loop:
        yield engine, lambda statement=QUESTION: loop.run_until_complete(answer(statement))
        loop.run_until_complete(engine.dispose())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_gets_the_login_and_the_tag_and_keeps_its_pool(url, ours, kind):
    """The server ends no idle session, as a foreign pool does not expect it."""
    with theirs(url, kind) as (engine, ask):
        before = type(engine.pool)
        attach(engine, ours)
        assert ask() == ("guest", "orders", "0")
        assert type(engine.pool) is before
        assert (kind == "async") or before is QueuePool
    assert ours.pool.checkedout() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_either_kind_of_engine_can_be_attached_to_either(url, kind):
    """The store of an asynchronous engine may be asynchronous."""
    store = AsyncStore() if kind == "async" else Store()
    ours = lambdadb.aio.create_async_engine(url, credentials=store)
    with theirs(url, kind) as (engine, ask):
        attach(engine, ours)
        assert ask()[0] == "guest"


def test_a_rotated_password_is_asked_for_again(url):
    """As with lambdadb's own engines: the cached login first, then a fresh one."""
    store = Store({"password": "canary-old"}, {"password": PASSWORD})
    with theirs(url) as (engine, ask):
        attach(engine, lambdadb.create_engine(url, credentials=store))
        assert ask()[0] == "guest"


def test_its_own_database_and_user_stay(url):
    """A secret names a database, too; the engine has its own. A user that it lacks is the secret's."""
    login = {"user": "guest", "password": PASSWORD, "database": "elsewhere"}
    ours = lambdadb.create_engine(url.set(database="postgres"), credentials=Store(login))
    with theirs(url.set(username=None)) as (engine, ask):
        attach(engine, ours)
        assert ask(text("SELECT current_user, current_database()")) == ("guest", url.database)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": "db.example"}, "its host is 'db.example', and lambdadb's is"),
        ({"host": None}, "its host is '', and lambdadb's is"),
        ({"port": 1}, "its port is '1'"),
        ({"username": "admin"}, "its user is 'admin', and lambdadb's is 'guest'"),
    ],
)
def test_an_engine_for_another_place_or_user_is_refused(url, change, words):
    """At once, and without a connect."""
    ours = lambdadb.create_engine(url, credentials=Store())
    engine = sqlalchemy.create_engine(url.set(**change))
    if change == {"host": None}:
        engine = sqlalchemy.create_engine(url._replace(host=None))
    with pytest.raises(InvalidSettings, match=words):
        attach(engine, ours)


def test_a_login_for_another_user_is_not_sent(url):
    """The engine's URL names a user, and the secret another one."""
    store = Store({"user": "owner", "password": PASSWORD})
    with theirs(url) as (engine, ask):
        attach(engine, lambdadb.create_engine(url.set(username=None), credentials=store))
        with pytest.raises(
            ConnectFailed, match="for the user 'owner', and the engine's URL names"
        ) as caught:
            ask()
    assert caught.value.fault is Fault.LOGIN


def test_a_connect_that_is_led_elsewhere_gets_no_login(url, direct, caplog):
    """Another listener may choose another server, or another user, for one connect."""
    with theirs(url) as (engine, ask):

        @event.listens_for(engine, "do_connect")
        def choose(dialect, record, arguments, parameters):
            parameters.update(user=direct.username, password=direct.password)

        attach(engine, lambdadb.create_engine(url, credentials=(store := Store())))
        assert ask()[0] == direct.username
    assert store.asked == []
    assert "without a login: its user is" in caplog.text


def test_a_server_that_is_not_verified_gets_no_login(url):
    """Its name is not this machine's, and it has no TLS."""
    remote = url.set(host="db.example").update_query_dict({"hostaddr": "127.0.0.1"})
    with theirs(remote) as (engine, ask):
        attach(engine, lambdadb.create_engine(remote, credentials=Store()))
        with pytest.raises(ConnectFailed, match="does not support") as caught:
            ask()
    assert caught.value.fault is Fault.UNTRUSTED


def test_an_sslmode_of_its_own_that_verifies_nothing_is_refused(url):
    """A login of a store is sent to verified servers only."""
    remote = url.set(host="db.example").update_query_dict({"hostaddr": "127.0.0.1"})
    with theirs(remote.update_query_dict({"sslmode": "require"})) as (engine, ask):
        attach(engine, lambdadb.create_engine(remote, credentials=Store()))
        with pytest.raises(ConnectFailed, match="sslmode=require encrypts, but does not verify"):
            ask()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_waits_for_a_cluster_that_wakes_up(aurora_cluster, kind):
    """Where SQLAlchemy's own engine fails."""
    aurora_cluster.resume(shape="starting", seconds=0.5)
    with theirs(aurora_cluster.url, kind) as (engine, ask):
        with pytest.raises(Exception, match="starting up"):
            ask()
        aurora_cluster.emulated.settle()
        attach(engine, lambdadb.create_engine(aurora_cluster.url))
        assert ask(text("SELECT 1")) == (1,)


def test_it_gives_up_in_the_time_of_the_other_engines_invocation(aurora_cluster):
    """A vector store's connect ends in time for the handler's 503."""
    aurora_cluster.resume(seconds=30.0)
    ours = lambdadb.create_engine(aurora_cluster.url)
    with theirs(aurora_cluster.url) as (engine, ask):
        attach(engine, ours)
        with lambdadb.invocation(ours, LambdaContext(2.0)), pytest.raises(DatabaseResuming):
            ask()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_its_statements_end_with_the_other_engines_invocation(url, ours, kind):
    """And the error is lambdadb's."""
    with theirs(url, kind) as (engine, ask):
        attach(engine, ours)
        ask()
        with lambdadb.invocation(ours, LambdaContext(1.5)), pytest.raises(OutOfTime):
            ask(text("SELECT pg_sleep(60)"))
        assert ask()[0] == "guest"


def test_what_cannot_be_attached_is_refused(url, ours):
    """Each with what to do."""
    engine = sqlalchemy.create_engine(url)
    with pytest.raises(InvalidSettings, match="`to` was not made by lambdadb"):
        attach(engine, sqlalchemy.create_engine(url))
    with pytest.raises(InvalidSettings, match="one of lambdadb's"):
        attach(lambdadb.create_engine(url), ours)
    with pytest.raises(InvalidSettings, match=r"an engine for sqlite\+pysqlite cannot"):
        attach(sqlalchemy.create_engine("sqlite://"), ours)
    with pytest.raises(InvalidSettings, match="got str: pass two engines"):
        attach("postgresql://", ours)
    attach(engine, ours)
    with pytest.raises(InvalidSettings, match="attached already"):
        attach(engine, ours)
