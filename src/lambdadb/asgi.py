"""
ASGI middleware: invocations and the answer 503, for example for FastAPI behind Mangum.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from lambdadb.errors import ConnectFailed
from lambdadb.http import describe_unavailable
from lambdadb.invocation import invocation

if TYPE_CHECKING:
    from lambdadb.invocation import AnyEngine

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class InvocationMiddleware:
    """
    ASGI middleware that runs each request inside an `invocation` of its engines.

    ```python
    app.add_middleware(InvocationMiddleware, engines=[engine])
    handler = Mangum(app)
    ```

    The deadline is that of Lambda's context. Mangum puts it into the scope as `aws.context`. The Lambda
    Web Adapter sends it in the header `x-amzn-lambda-context`, which is read in Lambda alone. The
    invocation includes what the framework runs after its answer, such as Starlette's background tasks.
    If no connection can be opened and another try may help, as while the database wakes up, the answer
    is 503 with `Retry-After`, unless the application has begun to answer.

    Args:
        app: The application.
        engines: Made by lambdadb, synchronous or asynchronous.

    Raises:
        InvalidSettings: An engine was not made by lambdadb.

    **Costs:** those of `invocation`.
    """

    def __init__(self, app: Application, *, engines: Iterable[AnyEngine]) -> None:
        self._app = app
        self._engines = list(engines)
        for engine in self._engines:
            invocation(engine)  # refuses an engine that lambdadb has not made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. What is not HTTP is passed on unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = scope.get("aws.context") or _read_adapter_context(scope)
        begun = False

        async def watch_and_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async with AsyncExitStack() as stack:
            for engine in self._engines:
                await stack.enter_async_context(invocation(engine, context))
            try:
                await self._app(scope, receive, watch_and_send)
            except ConnectFailed as error:
                described = describe_unavailable(error)
                if begun or described is None:
                    raise
                await _answer(send, *described)


class _AdapterContext:
    """Lambda's context, from the JSON text that the Lambda Web Adapter sends with a request."""

    def __init__(self, text: bytes) -> None:
        fields = json.loads(text)
        self._deadline = float(fields["deadline"])  # milliseconds since 1970
        self.invoked_function_arn = str(fields.get("invoked_function_arn", ""))

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round(self._deadline - time.time() * 1000.0))


def _read_adapter_context(scope: Scope) -> _AdapterContext | None:
    """Return the context of the Lambda Web Adapter; None without one, and outside of Lambda."""
    # Outside of Lambda any client can send this header. In Lambda the adapter replaces a client's.
    if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
        return None
    text = dict(scope.get("headers", ())).get(b"x-amzn-lambda-context")
    try:
        return _AdapterContext(text) if text is not None else None
    except (ValueError, KeyError, TypeError):
        return None  # not the adapter's: there is no deadline, as without the header


async def _answer(send: Send, headers: dict[str, str], body: str) -> None:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 503, "headers": encoded})
    await send({"type": "http.response.body", "body": body.encode()})
