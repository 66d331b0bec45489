"""
What a tracer receives (`Span`), the class to derive a tracer from (`Tracer`), and safe calls to one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger("lambdadb")

Attributes = Mapping[str, "str | int | float | bool"]

StatementFilter = Literal["all", "none", "traced"] | float
"""
Which statements are recorded: all, none, those inside a `lambdadb.trace` block, or those that take
this number of seconds or more.
"""


@dataclass(frozen=True, kw_only=True)
class Span:
    """
    One operation that has ended: a connect, a part of one, a statement, a repeated transaction.

    Attributes have the names of OpenTelemetry's semantic conventions where there is one; the others
    begin with `lambdadb.`. No attribute holds a secret, a parameter or a literal of a statement.
    """

    name: str
    """`connect`, with `login`, `attempt`, `resume` and `wait` in it; `statement`; `transaction`."""
    began: float
    """Seconds since the epoch."""
    seconds: float
    """How long it took."""
    attributes: Attributes = field(default_factory=dict)
    """What is known about it: docs/traces.md lists them."""
    error: BaseException | None = None
    """The error that ended it, if it failed."""
    children: tuple[Span, ...] = ()
    """Its parts, ordered by their beginning; they may overlap."""
    handle: object = None
    """What `Tracer.start_span` gave for this span, if it was started before it ended."""


class Tracer:
    """
    Receives what an engine has done. To write a tracer, derive a class; only `record` is required.

    A method must not block. An exception that it raises is logged and changes nothing else.
    `statements` is read when an engine is made.
    """

    statements: StatementFilter = "none"
    """Which statements are recorded."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.statements!r})"

    def recording(self) -> bool:
        """Whether a span would be kept now. It is called before each span is made: keep it cheap."""
        return True

    def record(self, span: Span) -> None:
        """Take a span that has just ended, in the thread or task that it ran in."""
        raise NotImplementedError

    def block(self, name: str) -> AbstractContextManager[object]:
        """Make a span of the user's own around the `with` block."""
        del name
        return nullcontext()

    def start_span(self, name: str, began: float) -> AbstractContextManager[object]:
        """
        Start a span that `record` will complete, so that other libraries' spans can be nested in it.

        While the `with` block runs, this span is the current one. The context manager gives a handle:
        the `Span` that completes it has it as `handle`. A started span may never be recorded.

        Args:
            name: The name that the span will have.
            began: Seconds since the epoch.
        """
        del name, began
        return nullcontext()


def is_recording(tracer: Tracer | None) -> bool:
    """Whether there is a tracer that would keep a span now. Never raises."""
    if tracer is None:
        return False
    try:
        return tracer.recording()
    except Exception:
        log_failure(tracer)
        return False


def emit(tracer: Tracer | None, make_span: Callable[[], Span]) -> None:
    """Record `make_span()` if there is a tracer and it is recording. Never raises."""
    if tracer is None:
        return
    try:
        if tracer.recording():
            tracer.record(make_span())
    except Exception:
        log_failure(tracer)


@contextmanager
def start_span(tracer: Tracer | None, name: str, began: float) -> Iterator[object]:
    """`tracer.start_span(name, began)` if it is recording; gives the handle, or None. Never raises."""
    with ExitStack() as stack:
        handle = None
        if tracer is not None:
            handle = enter_safely(stack, tracer, lambda: tracer.start_span(name, began))
        yield handle


def enter_safely(
    stack: ExitStack, tracer: Tracer, make_block: Callable[[], AbstractContextManager[object]]
) -> object:
    """
    Enter a tracer's context manager if the tracer is recording, and leave it with `stack`.

    An exception of the tracer is logged. The context manager cannot suppress the caller's exception.
    """

    def leave(*error: Any) -> None:
        try:
            block.__exit__(*error)
        except Exception as raised:
            if raised is not error[1]:
                log_failure(tracer)

    try:
        if not tracer.recording():
            return None
        block = make_block()
        entered = block.__enter__()
    except Exception:
        log_failure(tracer)
        return None
    stack.push(leave)
    return entered


def log_failure(tracer: Tracer) -> None:
    """Log the exception that a tracer's method has raised."""
    logger.exception("%s failed; the traced work goes on", type(tracer).__name__)
