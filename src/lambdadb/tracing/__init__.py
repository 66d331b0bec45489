"""
What can be seen of an engine's work, the class from which a tracing backend derives, and `trace`.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar, cast
from weakref import WeakValueDictionary

from lambdadb.errors import InvalidSettings

logger = logging.getLogger("lambdadb")
_FAILED = "%s failed; the work that it was told of goes on"

F = TypeVar("F", bound=Callable[..., Any])

Attributes = Mapping[str, "str | int | float | bool"]

Statements = Literal["all", "none", "traced"] | float
"""
Which statements are recorded: all of them, none, those inside a `lambdadb.trace` block, or those that
take a number of seconds or more.
"""


@dataclass(frozen=True, kw_only=True)
class Span:
    """
    Something that took time and has ended: a connect, a part of it, a statement, a repeated transaction.

    Attributes of OpenTelemetry's semantic conventions have their names; the others begin with
    `lambdadb.`. None of them holds a secret, a parameter or a literal of a statement.
    """

    name: str
    """`connect`, in it `login`, `attempt` and `resume` or `wait`; `statement`; `transaction`."""
    began: float
    """Seconds since the epoch."""
    seconds: float
    """How long it took."""
    attributes: Attributes = field(default_factory=dict)
    """What is known of it: docs/traces.md lists them."""
    error: BaseException | None = None
    """What ended it, if it failed."""
    children: tuple[Span, ...] = ()
    """Its parts, in the order of their beginning; they may overlap."""


class Tracer:
    """
    Told what an engine has done. Derive a backend from it; `record` is all it needs.

    A method must not block. What it raises is logged, and changes nothing else. `statements` is read
    when an engine is made.
    """

    statements: Statements = "none"
    """Which statements it is told of."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.statements!r})"

    def recording(self) -> bool:
        """Whether a span would be kept now. LoginIterator before one is made: it has to be cheap."""
        return True

    def record(self, span: Span) -> None:
        """A span that has just ended, in the thread or task that it ran in."""
        raise NotImplementedError

    def block(self, name: str) -> AbstractContextManager[object]:
        """A span of the user's own, around what runs inside."""
        del name
        return nullcontext()


def recording(tracer: Tracer) -> bool:
    """Whether a tracer would keep a span now; never raises."""
    try:
        return tracer.recording()
    except Exception:
        logger.exception(_FAILED, type(tracer).__name__)
        return False


def tell(tracer: Tracer | None, span: Callable[[], Span]) -> None:
    """Record what `span()` makes, if there is a tracer and it is recording; never raises."""

    def record(tracer: Tracer) -> None:
        if tracer.recording():
            tracer.record(span())

    if tracer is not None:
        _unharmed(tracer, record, tracer)


_tracers: WeakValueDictionary[int, Tracer] = WeakValueDictionary()

# The blocks that were entered in this context, and in those that it is a copy of, outermost first.
_entered: ContextVar[tuple[ExitStack, ...]] = ContextVar("lambdadb_entered", default=())


def register(tracer: Tracer) -> None:
    """
    Have `trace` open its blocks on this tracer too, for as long as something else keeps it.

    Raises:
        InvalidSettings: Its `statements` is not one of those that there are.
    """
    chosen = tracer.statements
    seconds = isinstance(chosen, (int, float)) and not isinstance(chosen, bool) and chosen >= 0
    if not seconds and chosen not in ("all", "none", "traced"):
        raise InvalidSettings(
            f"{type(tracer).__name__}(statements={chosen!r}): use 'all', 'none', 'traced', or the "
            "seconds from which on a statement is recorded."
        )
    _tracers[id(tracer)] = tracer


def wanted(tracer: Tracer, seconds: float) -> bool:
    """Whether a tracer is to be told of a statement that took so long, here."""
    if isinstance(tracer.statements, str):
        return tracer.statements == "all" or (tracer.statements == "traced" and bool(_entered.get()))
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

    Decorates functions and coroutine functions; in a coroutine the block is an ordinary `with`. What
    runs inside is nested in the span: connects, the statements recorded, and other spans. With
    `statements="traced"`, only statements inside such a block are recorded.

    Args:
        name: What it is called in the trace. Not from data: names with values in them are as good
            as none to search by, and are kept for weeks.

    Raises:
        InvalidSettings: It has no name, or decorates a class, or a generator function, whose body
            runs later and piecewise.

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
        _entered.set((*_entered.get(), blocks))
        for tracer in list(_tracers.values()):
            _unharmed(tracer, self._open, tracer, blocks)

    def _open(self, tracer: Tracer, blocks: ExitStack) -> None:
        if tracer.recording():
            block = tracer.block(self._name)
            block.__enter__()
            blocks.push(lambda *error: _unharmed(tracer, block.__exit__, *error))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A generator's block may be left out of turn, and in another context than it was entered in.
        entered = _entered.get()
        blocks = ([one for one in entered if one in self._blocks] or self._blocks)[-1]
        self._blocks.remove(blocks)
        _entered.set(tuple(one for one in entered if one is not blocks))
        blocks.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise InvalidSettings(f"trace({self._name!r}) decorates functions: {function!r} is none.")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidSettings(
                f"trace({self._name!r}) decorates {function.__name__}, a generator function, whose body "
                "runs later and piecewise: put `with lambdadb.trace(...)` around the work instead."
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


def _unharmed(tracer: Tracer, function: Callable[..., object], *arguments: Any) -> None:
    """Call a tracer's method; what it raises is logged and changes nothing."""
    try:
        function(*arguments)
    except Exception:
        logger.exception("%s failed; the work that it was told of goes on", type(tracer).__name__)
