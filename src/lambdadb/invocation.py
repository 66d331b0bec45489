"""
Around one handler call: its deadline in, what the policy does not keep out.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import json
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lambdadb.deadline import Clock, lambda_deadline
from lambdadb.errors import DatabaseResuming, InvalidSettings
from lambdadb.pool import GuardedPool

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    AnyEngine = Engine | AsyncEngine
    Handler = TypeVar("Handler", bound=Callable[..., Any])


class invocation:
    """
    One handler call: inside it the deadline is known, leaving it releases what the policy releases.

    ```python
    with lambdadb.invocation(engine, context):
        ...
    ```

    With an asynchronous engine: `async with`. Inside another invocation of the same engine it only
    brings its own deadline, if that is earlier. Everything works without it too, with the limits of
    `ResumeRetry` instead of Lambda's.

    Args:
        engine: Made by `lambdadb.create_engine` or `lambdadb.aio.create_async_engine`.
        context: Lambda's context object, for its deadline and alias; None if there is none.

    Raises:
        InvalidSettings: `engine` was not made by lambdadb, or `context` is not Lambda's.

    **Costs:** no round trip; `PerInvocation` closes its connection, which needs no answer.
    """

    def __init__(self, engine: AnyEngine, context: object = None, *, clock: Clock | None = None) -> None:
        self._engine = engine
        self._scope = self._pool().scope
        self.asynchronous = hasattr(engine, "sync_engine")
        self._context = context
        self._deadline = lambda_deadline(context, clock or Clock())

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
        scope = self._scope
        self._outer = (scope.active, scope.deadline, scope.alias)
        scope.active = True
        if self._deadline is not None:
            scope.deadline = self._deadline.earlier(scope.deadline)
        scope.alias = _alias(self._context) or scope.alias
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave():
            self._pool().release()

    async def __aenter__(self) -> invocation:
        return self._enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._leave():
            return
        if not self.asynchronous:
            self._pool().release()
            return
        from sqlalchemy.util import greenlet_spawn

        await greenlet_spawn(self._pool().release)

    def _leave(self) -> bool:
        """Restore what was known outside; whether this was the outermost invocation."""
        scope = self._scope
        scope.active, scope.deadline, scope.alias = self._outer
        return not scope.active


def handler(
    engine: AnyEngine, *, on_resuming: Literal["raise", "503"] = "raise"
) -> Callable[[Handler], Handler]:
    """
    Run a Lambda handler inside an `invocation` of `engine`.

    A coroutine function becomes a handler that Lambda can call: it runs on one event loop, kept for
    the life of the environment, so that connections survive from one invocation to the next.

    Args:
        engine: Made by lambdadb.
        on_resuming: `"503"` answers events of API Gateway, Application Load Balancers and function
            URLs with status 503 and `Retry-After` when the database is still waking up. All other
            events, and `"raise"`, let `DatabaseResuming` reach Lambda, which retries them by its rules.

    Raises:
        InvalidSettings: `engine` was not made by lambdadb, or `on_resuming` is something else.
    """
    if on_resuming not in ("raise", "503"):
        raise InvalidSettings(f"on_resuming={on_resuming!r}: use 'raise' or '503'.")
    asynchronous = invocation(engine).asynchronous  # refuses a foreign engine while the module loads

    def decorate(function: Handler) -> Handler:
        if inspect.iscoroutinefunction(function):
            return _on_one_loop(function, engine, on_resuming)  # type: ignore[return-value]
        if asynchronous:
            raise InvalidSettings(
                f"{function.__name__} is not a coroutine function, but its engine is asynchronous. "
                "Make it `async def`: lambdadb runs it on one event loop for the environment."
            )

        @functools.wraps(function)
        def call(event: Any, context: Any = None) -> Any:
            try:
                with invocation(engine, context):
                    return function(event, context)
            except DatabaseResuming as error:
                if on_resuming == "503" and (answer := _unavailable(event, error)):
                    return answer
                raise

        return call  # type: ignore[return-value]

    return decorate


def _on_one_loop(
    function: Callable[..., Coroutine[Any, Any, Any]], engine: AnyEngine, on_resuming: str
) -> Callable[..., Any]:
    loops: list[asyncio.AbstractEventLoop] = []

    async def run(event: Any, context: Any) -> Any:
        try:
            async with invocation(engine, context):
                return await function(event, context)
        except DatabaseResuming as error:
            if on_resuming == "503" and (answer := _unavailable(event, error)):
                return answer
            raise

    @functools.wraps(function)
    def call(event: Any, context: Any = None) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if not loops:
                loops.append(asyncio.new_event_loop())
                atexit.register(loops[0].close)
            return loops[0].run_until_complete(run(event, context))
        return run(event, context)  # a test, or another coroutine, awaits it on its own loop

    return call


def _alias(context: object) -> str:
    """The qualifier of `arn:aws:lambda:REGION:ACCOUNT:function:NAME:QUALIFIER`."""
    parts = str(getattr(context, "invoked_function_arn", "")).split(":")
    return parts[7] if len(parts) > 7 else ""


def _unavailable(event: object, error: DatabaseResuming) -> dict[str, Any] | None:
    """The HTTP answer for an event that came over HTTP; None for any other event."""
    request = event.get("requestContext") if isinstance(event, Mapping) else None
    if not isinstance(request, Mapping):
        return None
    if not (request.keys() & {"elb", "http", "httpMethod"} or "httpMethod" in event):  # type: ignore[operator]
        return None
    message = {
        "message": "The database is waking up. Please try again.",
        "retryAfter": error.retry_after,
    }
    headers = {"Retry-After": str(error.retry_after), "Content-Type": "application/json"}
    answer: dict[str, Any] = {
        "statusCode": 503,
        "statusDescription": "503 Service Unavailable",  # a load balancer requires it
        "isBase64Encoded": False,
        "body": json.dumps(message),
    }
    # A load balancer with multi-value headers, and API Gateway's REST APIs, ask in them; the former
    # ignores `headers` in the answer.
    if "multiValueHeaders" in event and "headers" not in event:  # type: ignore[operator]
        answer["multiValueHeaders"] = {name: [value] for name, value in headers.items()}
    else:
        answer["headers"] = headers
    return answer
