"""What `create_engine` accepts, refuses and shows."""

from __future__ import annotations

import traceback

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from lambdadb import (
    ConnectFailed,
    Fault,
    InvalidSettings,
    PerEnvironment,
    PerInvocation,
    ResumeRetry,
    create_engine,
)
from lambdadb.aio import create_async_engine
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.tracing import Tracer

URL = "postgresql+psycopg://app:canary-secret@db.example:5432/orders"
BOTH = pytest.mark.parametrize("create", [create_engine, create_async_engine])


@BOTH
def test_it_is_sqlalchemys_own_engine(create):
    """What is returned is SQLAlchemy's Engine, with the psycopg dialect, and nothing was opened."""
    engine = create(URL)
    engine = getattr(engine, "sync_engine", engine)
    assert type(engine) is sqlalchemy.Engine
    assert engine.dialect.driver.startswith("psycopg")
    assert "1 free" in engine.pool.status()


def test_a_url_without_driver_means_psycopg():
    """`postgresql://` connects through psycopg, whatever SQLAlchemy's version has as its default."""
    assert create_engine("postgresql://h/d").url.drivername == "postgresql+psycopg"


@BOTH
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "environment variable"),
        ("", "environment variable"),
        ("not a url", "parsed"),
        ("postgresql+psycopg://app:canary-secret@h:port/d", "parsed"),
        ("oracle+oracledb://app:canary-secret@h/d", "oracle"),
        ("postgresql+asyncpg://app:canary-secret@h/d", "asyncpg"),
        ("postgresql+psycopg://app:canary@secret@h/d", "%40"),
    ],
)
def test_a_wrong_url_is_refused_at_once_without_showing_it(create, url, said):
    """The error says what is wrong and gives an example; it never repeats the password."""
    with pytest.raises(InvalidSettings, match=said) as caught:
        create(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, SQLAlchemyError)


@BOTH
@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"pool_size": 5}, "pool_size"),
        ({"poolclass": sqlalchemy.pool.StaticPool}, "poolclass"),
        ({"poolclass": sqlalchemy.pool.NullPool, "policy": PerEnvironment()}, "poolclass"),
        ({"creator": list}, "creator"),
        ({"connect_args": {"connect_timeout": 3}}, "ResumeRetry"),
        ({"policy": PerEnvironment}, "policy"),
        ({"policy": "PerEnvironment"}, "policy"),
        ({"retry": 3}, "retry"),
        ({"credentials": object()}, "login"),
        ({"credentials": type("Vault", (), {"logins": list})}, "is a class"),
        ({"tracer": object()}, "record"),
        ({"tracer": Tracer()}, "record"),
        ({"tracer": Tracer}, "is a class"),
        ({"tag": "{function}"}, "function"),
    ],
)
def test_keywords_that_cannot_work_are_refused_by_name(create, keywords, said):
    """A keyword against the policy, or of the wrong kind, is named while building."""
    with pytest.raises(InvalidSettings, match=said):
        create(URL, **keywords)


@pytest.mark.parametrize("keywords", [{}, {"connect_args": {"password": "canary-2arg"}}])
def test_a_second_password_is_refused(keywords):
    """Beside a store's login there is no place for the URL's, which would be sent to nobody."""
    url = URL if not keywords else URL.replace(":canary-secret", "")
    with pytest.raises(InvalidSettings, match="Two passwords"):
        create_engine(url, credentials=RdsIam(), **keywords)


@pytest.mark.parametrize("mode", ["verify_full", "REQUIRE", "true"])
def test_an_sslmode_that_libpq_does_not_know_is_refused(mode):
    """While the engine is made, with those that there are."""
    with pytest.raises(InvalidSettings, match="verify-full, verify-ca"):
        create_engine(f"{URL}?sslmode={mode}")
    with pytest.raises(InvalidSettings, match="verify-full, verify-ca"):
        create_engine(URL, connect_args={"sslmode": mode})


def test_a_timeout_in_the_url_is_refused():
    """`connect_timeout` in the URL would silently lose against the budget: it is refused instead."""
    with pytest.raises(InvalidSettings, match="connect_timeout"):
        create_engine(URL + "?connect_timeout=3")


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"connections": 1.5},
        {"idle_session_timeout": 0},
        {"idle_in_transaction_session_timeout": 0},
        {"ping_after": -1},
    ],
)
@pytest.mark.parametrize("policy", [PerEnvironment, PerInvocation])
def test_policies_refuse_numbers_that_cannot_work(policy, wrong):
    """A bad number is named while building."""
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        policy(**wrong)


def test_sqlalchemys_keywords_pass_through():
    """Everything else is SQLAlchemy's: echo, isolation level, execution options, plugins."""
    engine = create_engine(URL, isolation_level="AUTOCOMMIT", execution_options={"a": 1}, pool_recycle=9)
    assert engine.get_execution_options()["a"] == 1
    assert engine.pool._recycle == 9
    with pytest.raises(TypeError, match="nonsense"):
        create_engine(URL, nonsense=1)


def test_listeners_to_do_connect_still_work():
    """The documented way to change connect parameters is heard before lambdadb connects."""
    engine = create_engine(URL, retry=ResumeRetry(timeout=0.1))
    seen = []

    @event.listens_for(engine, "do_connect")
    def listen(dialect, record, arguments, parameters):
        seen.append(parameters.pop("password"))
        parameters["host"] = "127.0.0.1"
        parameters["port"] = 1

    with pytest.raises(SQLAlchemyError, match=r"127\.0\.0\.1:1"):
        engine.connect()
    assert seen == ["canary-secret"]


def test_dispose_keeps_the_policy():
    """After `dispose()` the engine has a fresh pool with the same policy and invocation."""
    engine = create_engine(URL, policy=PerInvocation(connections=2))
    before = engine.pool
    engine.dispose()
    assert engine.pool is not before
    assert engine.pool.policy is before.policy
    assert engine.pool.connector is before.connector


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "no-such-host.invalid"])
def test_a_name_that_nobody_can_resolve_is_refused_at_once(host):
    """A name that is no name, or not known, is an error of the settings and not waited for."""
    engine = create_engine(f"postgresql+psycopg://u@{host}/d", retry=ResumeRetry(timeout=30))
    with pytest.raises(ConnectFailed) as caught:
        engine.connect()
    assert caught.value.fault is Fault.MISCONFIGURED
