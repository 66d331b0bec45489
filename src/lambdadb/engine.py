"""
`create_engine`: wires the parts together and decides nothing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import URL, Engine
from sqlalchemy.engine import make_url

from lambdadb.deadline import ActiveInvocations, Clock
from lambdadb.errors import InvalidSettings
from lambdadb.gc_pause import gc_paused
from lambdadb.policy import PerEnvironment
from lambdadb.pool import GuardedPool
from lambdadb.settings import Settings
from lambdadb.url import check_url

if TYPE_CHECKING:
    from lambdadb.credentials import Credentials
    from lambdadb.policy import Policy
    from lambdadb.retry import ResumeRetry
    from lambdadb.tracing import Tracer

_DRIVERS = ("postgresql", "postgresql+psycopg", "postgresql+psycopg_async")
_SSLMODES = ("verify-full", "verify-ca", "require", "prefer", "allow", "disable")
# How the environment came to be (AWS Lambda Developer Guide, "Defined runtime environment variables").
_INITIALIZATION = "AWS_LAMBDA_INITIALIZATION_TYPE"
_DECIDED_BY_POLICY = {
    *("creator", "async_creator", "module"),
    *("pool", "poolclass", "pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"),
}


def create_engine(
    url: str | URL,
    *,
    policy: Policy | None = None,
    retry: ResumeRetry | None = None,
    credentials: Credentials | None = None,
    tracer: Tracer | None = None,
    tag: str | None = None,
    allow_unverified_server: bool | None = None,
    **keywords: Any,
) -> Engine:
    """
    An ordinary `sqlalchemy.Engine` whose connections follow a policy made for Lambda.

    It opens nothing by itself: call it in module scope and connect in the handler, where there is
    time to wait for a database that is waking up. `PerEnvironment(connect_ahead=True)` makes it begin.

    Args:
        url: `postgresql+psycopg://user@host/database`.
        policy: `PerEnvironment()`, the default, or `PerInvocation()`.
        retry: How long a connect waits for a database that is waking up; `ResumeRetry()` by default.
        credentials: The store that is asked for a login at each connect; without it, the URL's own
            login is used.
        tracer: Told of each connect, and of the statements that it wants.
        tag: The session's `application_name`, made of `{name}` (the default), `{version}` and
            `{alias}` of the function. Nothing is sent outside Lambda, or where the URL has its own.
        allow_unverified_server: True lets a login of `credentials` go to a server that is not verified
            by `sslmode=verify-full`; where the store needs one that is, to one that is encrypted.
        **keywords: Passed on to `sqlalchemy.create_engine`.

    Raises:
        InvalidSettings: A URL, a setting or a keyword that cannot work.
        TypeError: A keyword that SQLAlchemy does not know.

    **Costs:** none; the first checkout connects. With `connect_ahead`, a thread and the login.
    """
    settings = Settings.chosen(
        policy=policy,
        retry=retry,
        credentials=credentials,
        tracer=tracer,
        tag=tag,
        allow_unverified_server=allow_unverified_server,
    )
    url = checked_url(url)
    engine = sqlalchemy.create_engine(url, **engine_keywords(url, settings, keywords, Clock()))
    check_server_verified(engine, settings, keywords)
    listen(engine)
    begin_ahead(engine, keywords)
    return engine


def engine_keywords(
    url: URL,
    settings: Settings,
    keywords: Mapping[str, Any],
    clock: Clock,
    *,
    asyncio: bool = False,
) -> dict[str, Any]:
    """
    `keywords` for SQLAlchemy, with the pool and the driver that follow `settings`.

    The driver comes in as SQLAlchemy's `module=`: psycopg with another `connect()`. Listeners to
    `do_connect` therefore work as always, and so does everything above them.
    """
    with gc_paused():
        # Imported here: the driver is loaded by the engine that needs it, as SQLAlchemy does.
        from lambdadb.connect.connector import Connector
        from lambdadb.drivers.psycopg.driver import Driver, socket_state

        driver = Driver(asyncio=asyncio)
    if clash := sorted(_DECIDED_BY_POLICY & keywords.keys()):
        raise InvalidSettings(
            f"{', '.join(clash)}: decided by the policy. For a second session use "
            "PerEnvironment(connections=2); for another pool use sqlalchemy.create_engine."
        )
    given = {**url.query, **keywords.get("connect_args", {})}
    if "connect_timeout" in given:
        raise InvalidSettings(
            "connect_timeout: say it as retry=ResumeRetry(timeout=seconds), which also respects the "
            "time that Lambda has left; remove it from the URL and from connect_args."
        )
    if settings.credentials is not None and (url.password or "password" in given):
        raise InvalidSettings(
            f"Two passwords: one is in the url or in connect_args, and credentials="
            f"{type(settings.credentials).__name__} gives one at each connect. Remove the first."
        )
    if given.get("sslmode", "verify-full") not in _SSLMODES:
        raise InvalidSettings(f"sslmode={given['sslmode']!r}: use one of {', '.join(_SSLMODES)}.")
    scope = ActiveInvocations()
    connector = Connector(driver=driver, settings=settings, clock=clock, scope=scope)
    doors = {"connect": connector.connect, "connect_ahead": connector.connect_ahead}
    module = SimpleNamespace(**{**vars(driver.dbapi), **doors})
    pool = {"settings": settings, "scope": scope, "clock": clock, "socket_state": socket_state}
    pool |= {"poolclass": GuardedPool, "ahead": connector.ahead}
    return {**keywords, **pool, "module": module}


def check_server_verified(engine: Engine, settings: Settings, keywords: Mapping[str, Any]) -> None:
    """
    Refuse a server that must not get a login of `credentials`, as far as it is known before a connect.

    Raises:
        InvalidSettings: The URL, `connect_args` or the environment choose one.
    """
    from lambdadb.drivers.base import AttemptFailed
    from lambdadb.drivers.psycopg import tls

    if settings.credentials is None:
        return
    dialect: Any = engine.dialect
    _, parameters = dialect.create_connect_args(engine.url)
    try:
        tls.check_verified(
            {**parameters, **keywords.get("connect_args", {})},
            os.environ,
            always=settings.requires_verified_server,
            allow_unverified=settings.allow_unverified_server,
        )
    except AttemptFailed as failure:
        raise InvalidSettings(f"{failure.text[0].upper()}{failure.text[1:]}.") from None


def listen(engine: Engine) -> None:
    """What an engine, once made, has to be told of."""
    from lambdadb.drivers.psycopg.connection import named
    from lambdadb.drivers.psycopg.dialect import introduce
    from lambdadb.drivers.psycopg.driver import unlimited

    introduce(engine.dialect)
    pool: Any = engine.pool
    tracer: Tracer | None = pool.settings.tracer
    if tracer is not None:
        from lambdadb.tracing import register

        register(tracer)
        if tracer.statements != "none":
            from lambdadb.tracing.statements import Statements

            Statements(tracer, pool.clock).watch(engine.dialect)
    sqlalchemy.event.listen(engine, "handle_error", named, retval=True)
    # After the dialect's own listener, which asks the engine's first questions.
    sqlalchemy.event.listen(engine, "connect", unlimited)


def begin_ahead(engine: Engine, keywords: Mapping[str, Any]) -> None:
    """Begin to log in, if the policy of the engine, made with `keywords`, wants that."""
    pool: Any = engine.pool
    policy: Policy = pool.policy
    if not (isinstance(policy, PerEnvironment) and policy.connect_ahead):
        return
    if inspect.isasyncgenfunction(getattr(pool.settings.credentials, "logins", None)):
        raise InvalidSettings(
            "connect_ahead=True with asynchronous credentials: no event loop runs while a module is "
            "imported. Give logins() without `async`, or remove connect_ahead."
        )
    if os.environ.get(_INITIALIZATION) == "snap-start":
        return
    dialect: Any = engine.dialect
    arguments, parameters = dialect.create_connect_args(engine.url)
    dialect.dbapi.connect_ahead(*arguments, **{**parameters, **keywords.get("connect_args", {})})


def checked_url(url: str | URL) -> URL:
    """
    The URL with its driver.

    Raises:
        InvalidSettings: It is none, or not one that lambdadb can connect to. Says nothing of its
            password.
    """
    example = "Use postgresql+psycopg://user@host:5432/database."
    if not isinstance(url, (str, URL)) or not url:
        raise InvalidSettings(
            f"url is {url!r}. Is the environment variable that holds it set? {example}"
        )
    check_url(url)
    url = make_url(url)
    if url.drivername not in _DRIVERS:
        raise InvalidSettings(f"The driver {url.drivername!r} of the url is not supported. {example}")
    return url.set(drivername="postgresql+psycopg")
