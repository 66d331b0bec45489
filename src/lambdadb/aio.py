"""
`create_async_engine`, `run_transaction`, `transactional` and `wake` for asynchronous code.

Connects and pool are the same as in synchronous code. They wait on the event loop.

Needs greenlet: the extra `asyncio`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

try:
    import greenlet  # noqa: F401
except ImportError as error:
    from lambdadb.extras import install_command

    raise ModuleNotFoundError(
        f"Asynchronous engines need greenlet, which is not installed: {install_command('asyncio')}"
    ) from error

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as sqlalchemy_create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from lambdadb import transaction
from lambdadb.engine import parse_url, with_plugin
from lambdadb.errors import InvalidSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session

    from lambdadb.credentials import AsyncCredentials, Credentials
    from lambdadb.drivers.base import Proxy
    from lambdadb.outcome import IdempotencyKey
    from lambdadb.policy import Policy
    from lambdadb.resume import DatabaseState
    from lambdadb.retry import ResumeRetry
    from lambdadb.tracing import Tracer

    S = TypeVar("S", bound=AsyncSession)

P = ParamSpec("P")
T = TypeVar("T")


def create_async_engine(
    url: str | URL,
    *,
    policy: Policy | None = None,
    retry: ResumeRetry | None = None,
    credentials: Credentials | AsyncCredentials | None = None,
    tracer: Tracer | None = None,
    tag: str | None = None,
    allow_unverified_server: bool | None = None,
    proxy: Proxy | None = None,
    proxy_check: bool | None = None,
    deadline_function: str | None = None,
    **keywords: Any,
) -> AsyncEngine:
    """
    Make an ordinary `AsyncEngine` with the same promises as `lambdadb.create_engine`.

    Use it with `async with lambdadb.invocation(...)`, or with `lambdadb.handler` on a coroutine
    function. Arguments, errors and costs are those of `lambdadb.create_engine`.
    """
    return sqlalchemy_create_async_engine(
        parse_url(url),
        policy=policy,
        retry=retry,
        credentials=credentials,
        tracer=tracer,
        tag=tag,
        allow_unverified_server=allow_unverified_server,
        proxy=proxy,
        proxy_check=proxy_check,
        deadline_function=deadline_function,
        **with_plugin(keywords),
    )


@overload
async def run_transaction(
    target: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    idempotency_key: IdempotencyKey | None = None,
) -> T: ...
@overload
async def run_transaction(
    target: async_sessionmaker[S],
    work: Callable[[S], Awaitable[T]],
    *,
    idempotency_key: IdempotencyKey | None = None,
) -> T: ...
async def run_transaction(
    target: AsyncEngine | async_sessionmaker[Any],
    work: Callable[[Any], Awaitable[T]],
    *,
    idempotency_key: IdempotencyKey | None = None,
) -> T:
    """
    `lambdadb.run_transaction` for asynchronous code: `work` is a coroutine function.

    It gets an `AsyncConnection`, or the `AsyncSession` of an `async_sessionmaker`. Promises,
    errors and costs are those of `lambdadb.run_transaction`, which runs the same code.
    """
    if isinstance(target, AsyncEngine):
        engine = target
        return await greenlet_spawn(
            transaction.run_transaction,
            engine.sync_engine,
            lambda connection: await_only(work(AsyncConnection(engine, connection))),
            idempotency_key=idempotency_key,
        )
    sessions = _SyncSessions(target)
    return await greenlet_spawn(
        transaction.run_transaction,
        sessions,
        lambda _: await_only(work(sessions.current)),
        idempotency_key=idempotency_key,
    )


def transactional(
    target: AsyncEngine | async_sessionmaker[Any], *, idempotency_key: IdempotencyKey | None = None
) -> Callable[[Callable[Concatenate[Any, P], Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """`run_transaction` as a decorator of a coroutine function, as `lambdadb.transactional`."""

    def decorate(
        function: Callable[Concatenate[Any, P], Awaitable[T]],
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        transaction.refuse_method(function)

        @functools.wraps(function)
        async def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            def work(connection: Any) -> Awaitable[T]:
                return function(connection, *arguments, **keywords)

            return await run_transaction(target, work, idempotency_key=idempotency_key)

        return call

    return decorate


async def wake(engine: AsyncEngine, *, within: float = 1.0) -> DatabaseState:
    """`lambdadb.wake` for an asynchronous engine. Promises, errors and costs are the same."""
    from lambdadb.resume import wake as wake_engine

    if not isinstance(engine, AsyncEngine):
        raise InvalidSettings(f"aio.wake() got {type(engine).__name__}: use lambdadb.wake.")
    return await greenlet_spawn(wake_engine, engine.sync_engine, within=within)


class _SyncSessions:
    """A `sessionmaker` for `run_transaction` that keeps the `AsyncSession` that it made last."""

    def __init__(self, maker: async_sessionmaker[AsyncSession]) -> None:
        self._maker = maker
        self._engine: Any = maker.kw.get("bind")
        self.kw = {**maker.kw, "bind": getattr(self._engine, "sync_engine", None)}

    def __call__(self, *, bind: Connection, **keywords: Any) -> Session:
        self.current = self._maker(bind=AsyncConnection(self._engine, bind), **keywords)
        return self.current.sync_session
