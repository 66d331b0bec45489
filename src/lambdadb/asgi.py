"""
Invocations and the answer 503 for ASGI applications, such as FastAPI behind Mangum. It imports neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from lambdadb.errors import ConnectFailed
from lambdadb.http import unavailable
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

    The deadline is that of Lambda's context, which Mangum puts into the scope as `aws.context`. What
    the framework runs after its answer, such as Starlette's background tasks, is still inside. When
    no connection can be opened and another try may help, as while the database wakes up, the answer
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
            invocation(engine)  # refuses a foreign engine at once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; everything that is not HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async with AsyncExitStack() as stack:
            for engine in self._engines:
                await stack.enter_async_context(invocation(engine, scope.get("aws.context")))
            try:
                await self._app(scope, receive, watched)
            except ConnectFailed as error:
                described = unavailable(error)
                if begun or described is None:
                    raise
                await _answer(send, *described)


async def _answer(send: Send, headers: dict[str, str], body: str) -> None:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 503, "headers": encoded})
    await send({"type": "http.response.body", "body": body.encode()})
