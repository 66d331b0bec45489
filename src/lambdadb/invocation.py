"""
`handler` and `invocation` set the deadline of a handler call, and close what the policy does not keep.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

from sqlalchemy import Engine

from lambdadb.deadline import Clock, RunningInvocation, lambda_deadline
from lambdadb.errors import ConnectFailed, InvalidSettings
from lambdadb.http import answer_event
from lambdadb.lifecycle import watch_sigterm
from lambdadb.pool import GuardedPool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    AnyEngine = Engine | AsyncEngine

_CLOCK = Clock()

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class invocation:
    """
    A context manager around one handler call.

    Inside it, connects and statements end with Lambda's deadline. At its end, what the policy does not
    keep is closed.

    ```python
    with lambdadb.invocation(engine, context):
        ...
    ```

    With an asynchronous engine use `async with`. If several run on one engine, nested or in parallel,
    the earliest deadline counts, and the last one to end closes the connections. The engine also works
    without an invocation, with the limits of `ResumeRetry` instead of Lambda's.

    Args:
        engine: Made by `lambdadb.create_engine` or `lambdadb.aio.create_async_engine`.
        context: Lambda's context object, for its deadline and alias; None if there is none. Outside
            of Lambda any object is accepted. Without a number of milliseconds there is no deadline.

    Raises:
        InvalidSettings: `engine` was not made by lambdadb, or, in Lambda, `context` is not Lambda's.

    **Costs:** no round trip; `PerInvocation` closes its connection, which needs no answer.
    """

    def __init__(self, engine: AnyEngine, context: object = None, *, clock: Clock | None = None) -> None:
        self._engine = engine
        self._invocations = self._pool().invocations
        self.asynchronous = not isinstance(engine, Engine)
        arn = str(getattr(context, "invoked_function_arn", ""))
        in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in self._pool().connector.environment
        deadline = lambda_deadline(context, clock or _CLOCK, in_lambda=in_lambda)
        self._running = RunningInvocation(deadline, arn)

    def _pool(self) -> GuardedPool:
        pool = getattr(self._engine, "pool", None)
        if not isinstance(pool, GuardedPool):
            raise InvalidSettings(
                f"{type(self._engine).__name__} was not made by lambdadb.create_engine: it has no "
                "policy to apply. Create the engine with lambdadb, and pass the engine itself."
            )
        return pool

    def __enter__(self) -> invocation:
        if self.asynchronous:
            raise InvalidSettings("An asynchronous engine needs `async with lambdadb.invocation(...)`.")
        return self._enter()

    def _enter(self) -> invocation:
        watch_sigterm(self._pool().connector.environment)
        self._invocations.enter(self._running)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = self._invocations.leave(self._running)
        if ended is not None:
            self._pool().release(ended)

    async def __aenter__(self) -> invocation:
        return self._enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ended = self._invocations.leave(self._running)
        if ended is None:
            return
        if not self.asynchronous:
            self._pool().release(ended)
            return
        from sqlalchemy.util import greenlet_spawn

        await greenlet_spawn(self._pool().release, ended)


class _Unchanged(Protocol):
    def __call__(self, function: F, /) -> F: ...


class _Answering(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, T | dict[str, Any]]]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Callable[P, T | dict[str, Any]]: ...


@overload
def handler(*engines: AnyEngine, on_resuming: Literal["raise"] = "raise") -> _Unchanged: ...
@overload
def handler(*engines: AnyEngine, on_resuming: Literal["503"]) -> _Answering: ...
def handler(*engines: AnyEngine, on_resuming: Literal["raise", "503"] = "raise") -> Any:
    """
    Run a Lambda handler inside an `invocation` of each engine.

    A coroutine function becomes a handler that Lambda can call. It runs on one event loop, which is kept
    for the life of the environment, so that connections stay open from one invocation to the next. If a
    loop is already running, as in a test, the handler returns a coroutine to await.

    Args:
        engines: Made by lambdadb.
        on_resuming: `"503"` answers events of API Gateway, Application Load Balancers and function
            URLs with status 503 and `Retry-After` when no connection can be opened and another try may
            help: the database is waking up, all its connections are in use, or it does not answer. For
            all other events, and with `"raise"`, the error reaches Lambda, which retries by its rules.

    Raises:
        InvalidSettings: An engine was not made by lambdadb, or `on_resuming` has another value.
    """
    if on_resuming not in ("raise", "503"):
        raise InvalidSettings(f"on_resuming={on_resuming!r}: use 'raise' or '503'.")
    if len(engines) == 1 and inspect.isfunction(engines[0]):
        raise InvalidSettings("handler() needs the engines that the function uses: @handler(engine).")
    # invocation() refuses other engines. This happens while the module loads, not at the first event.
    asynchronous = [invocation(engine).asynchronous for engine in engines]
    if not engines:
        raise InvalidSettings("handler() needs the engines that the function uses: @handler(engine).")

    def answer_to(event: object, error: ConnectFailed) -> dict[str, Any] | None:
        return answer_event(event, error) if on_resuming == "503" else None

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):
            return _run_on_one_loop(function, engines, answer_to)
        if any(asynchronous):
            name = getattr(function, "__name__", repr(function))
            raise InvalidSettings(
                f"{name} is not a coroutine function, but its engine is asynchronous. Make it `async "
                "def`: lambdadb runs it on one event loop. In an ASGI application, put `async with "
                "lambdadb.invocation(engine, context)` around the requests instead, or use "
                "lambdadb.asgi.InvocationMiddleware."
            )

        wrapped = functools.reduce(_wrap_in_invocation, reversed(engines), function)

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return wrapped(*arguments, **keywords)
            except ConnectFailed as error:
                event, _ = _find_event_and_context(arguments, keywords)
                if (answer := answer_to(event, error)) is not None:
                    return answer
                raise

        return call

    return decorate


def _wrap_in_invocation(function: Callable[..., Any], engine: AnyEngine) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        with invocation(engine, _find_event_and_context(arguments, keywords)[1]):
            return function(*arguments, **keywords)

    return call


def _run_on_one_loop(
    function: Callable[..., Coroutine[Any, Any, Any]],
    engines: tuple[AnyEngine, ...],
    answer_to: Callable[[object, ConnectFailed], dict[str, Any] | None],
) -> Callable[..., Any]:
    loops: list[asyncio.AbstractEventLoop] = []

    async def run(*arguments: Any, **keywords: Any) -> Any:
        event, context = _find_event_and_context(arguments, keywords)
        try:
            async with AsyncExitStack() as stack:
                for engine in engines:
                    await stack.enter_async_context(invocation(engine, context))
                return await function(*arguments, **keywords)
        except ConnectFailed as error:
            if (answer := answer_to(event, error)) is not None:
                return answer
            raise

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if not loops:
                loops.append(asyncio.new_event_loop())
                atexit.register(loops[0].close)
            return loops[0].run_until_complete(run(*arguments, **keywords))
        return run(*arguments, **keywords)

    return call


def _find_event_and_context(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
    """Return the last two arguments of a handler, which may be a method, or these keywords."""
    if len(arguments) == 2 and not keywords:
        return arguments
    given = [*arguments, keywords["event"]] if "event" in keywords else list(arguments)
    given = [*given, keywords["context"]] if "context" in keywords else given
    if len(given) < 2:
        return (given[0] if given else None), None
    return given[-2], given[-1]
