"""
`trace`: spans of the user's own, on the tracers of all engines of the process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from lambdadb.errors import InvalidSettings
from lambdadb.tracing.span import Tracer, enter_safely

F = TypeVar("F", bound=Callable[..., Any])

_tracers: WeakValueDictionary[int, Tracer] = WeakValueDictionary()

# The open blocks of this task or thread, the outermost one first. A task begins with those of the task
# that created it, since contextvars are copied.
_open_blocks: ContextVar[tuple[ExitStack, ...]] = ContextVar("lambdadb_open_blocks", default=())


def register(tracer: Tracer) -> None:
    """
    Let `trace` open its blocks on this tracer too. The registry keeps no tracer alive.

    Raises:
        InvalidSettings: `tracer.statements` is not a valid `StatementFilter`.
    """
    chosen = tracer.statements
    is_seconds = isinstance(chosen, (int, float)) and not isinstance(chosen, bool) and chosen >= 0
    if not is_seconds and chosen not in ("all", "none", "traced"):
        raise InvalidSettings(
            f"{type(tracer).__name__}(statements={chosen!r}): use 'all', 'none', 'traced', or a number "
            "of seconds: statements that take as long or longer are recorded."
        )
    _tracers[id(tracer)] = tracer


def selects_statement(tracer: Tracer, seconds: float) -> bool:
    """Whether `tracer.statements` selects a statement that took `seconds` and was executed here."""
    if isinstance(tracer.statements, str):
        in_block = bool(_open_blocks.get())
        return tracer.statements == "all" or (tracer.statements == "traced" and in_block)
    return seconds >= tracer.statements


class trace:
    """
    A span of your own around a function or a block, on the tracers of all engines of this process.

    ```python
    @lambdadb.trace("query_user")
    def query_user(session, name): ...


    with lambdadb.trace("render"):
        ...
    ```

    It decorates functions and coroutine functions; in a coroutine, use an ordinary `with`. Connects,
    recorded statements and other spans inside it are nested in it. With `statements="traced"`, only
    the statements inside such a block are recorded.

    Args:
        name: The span's name. Use a fixed name: a name that contains data cannot be searched for, and
            a trace is kept for weeks.

    Raises:
        InvalidSettings: The name is missing, or it decorates a class or a generator function. The body
            of a generator function runs after the call has returned, with other code in between.

    **Costs:** nothing where no tracer is recording.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidSettings("trace needs a name: @lambdadb.trace('query_user').")
        self._name = name
        self._blocks: list[ExitStack] = []

    def __enter__(self) -> None:
        blocks = ExitStack()
        self._blocks.append(blocks)
        _open_blocks.set((*_open_blocks.get(), blocks))
        for tracer in list(_tracers.values()):
            enter_safely(blocks, tracer, functools.partial(tracer.block, self._name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A block inside a generator may be left in another context than it was entered in, and before
        # blocks that were entered later. So the block to leave is looked up, not popped.
        entered = _open_blocks.get()
        blocks = ([one for one in entered if one in self._blocks] or self._blocks)[-1]
        self._blocks.remove(blocks)
        _open_blocks.set(tuple(one for one in entered if one is not blocks))
        blocks.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise InvalidSettings(f"trace({self._name!r}) decorates functions, not {function!r}.")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidSettings(
                f"trace({self._name!r}) decorates {function.__name__}, a generator function. Its body "
                "runs after the call has returned. Put `with lambdadb.trace(...)` around the work."
            )
        name = self._name
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call(*arguments: Any, **keywords: Any) -> Any:
                with trace(name):
                    return await function(*arguments, **keywords)

        else:

            @functools.wraps(function)
            def call(*arguments: Any, **keywords: Any) -> Any:
                with trace(name):
                    return function(*arguments, **keywords)

        return cast("F", call)
