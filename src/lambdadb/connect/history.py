"""
The record of one connect. Its error, its log line and its span are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lambdadb.deadline import Clock
from lambdadb.drivers.base import Target
from lambdadb.faults import Fault
from lambdadb.tracing.span import Attributes, Span

# A long resume takes hundreds of attempts. Its span shows the first and the last of them.
_SHOWN = 5


@dataclass(repr=False, eq=False)
class _Part:
    name: str
    began: float
    ended: float
    fault: Fault | None
    handle: object


class ConnectHistory:
    """The attempts, logins and waits of one connect so far."""

    def __init__(self, clock: Clock, target: Target) -> None:
        self._clock = clock
        self._began = clock.now()
        self._ended: float | None = None
        monotonic, wall = clock.moment()
        self._epoch = wall - monotonic
        self._parts: list[_Part] = []
        self._waiting_since: float | None = None
        self.target = target
        """The target that was tried last."""
        self.attempts = 0
        """How many attempts to log in were started."""
        self.faults: list[Fault] = []
        """The faults of the attempts that did not succeed, in order."""
        self.handle: object = None
        """The tracer's handle of this connect's span."""

    @property
    def seconds(self) -> float:
        """How long the connect has taken."""
        return (self._clock.now() if self._ended is None else self._ended) - self._began

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch."""
        return self.to_epoch(self._began)

    def to_epoch(self, moment: float) -> float:
        """Convert a moment of the clock to seconds since the epoch."""
        return self._epoch + moment

    def add(self, name: str, began: float, fault: Fault | None = None, *, handle: object = None) -> None:
        """Add a part that began at `began` and ends now; `handle` is the tracer's."""
        self._parts.append(_Part(name, began, self._clock.now(), fault, handle))

    def add_failure(self, fault: Fault) -> None:
        """Add the fault of an attempt that did not succeed, or got no answer so far."""
        self.faults.append(fault)
        if self._waiting_since is None:
            self._waiting_since = self._clock.now()

    def end(self) -> None:
        """End the record."""
        self._ended = self._clock.now()

    def make_span(self, attributes: Attributes, error: BaseException | None) -> Span:
        """Make the span, with the logins, the attempts, and the wait after the first failed attempt."""
        waited = 0.0 if self._waiting_since is None else self._end - self._waiting_since
        known: dict[str, str | int | float | bool] = {
            **attributes,
            "lambdadb.attempts": self.attempts,
            "lambdadb.waited": waited,
            "lambdadb.resumed": error is None and Fault.RESUMING in self.faults,
        }
        if self.faults:
            # One attempt that saw it waking up says more than those without an answer.
            worst = Fault.RESUMING if Fault.RESUMING in self.faults else self.faults[-1]
            known["lambdadb.fault"] = worst.value
        parts = sorted(self._parts, key=lambda part: part.began)
        return Span(
            name="connect",
            began=self._epoch + self._began,
            seconds=self.seconds,
            attributes=known,
            error=error,
            children=tuple(self._make_children(parts, known)),
            handle=self.handle,
        )

    @property
    def _end(self) -> float:
        return self._clock.now() if self._ended is None else self._ended

    def _make_children(self, parts: list[_Part], known: Attributes) -> list[Span]:
        spans = [self._make_part(part) for part in parts]
        since = self._waiting_since
        if since is None:
            return spans
        before = [span for span in spans if span.began < self._epoch + since]
        after = spans[len(before) :]
        left_out = max(len(after) - 2 * _SHOWN, 0)
        shown = [*after[:_SHOWN], *after[_SHOWN + left_out :]]
        waited = {name: known[name] for name in ("lambdadb.attempts", "lambdadb.fault")}
        return [
            *before,
            Span(
                name="resume" if known["lambdadb.fault"] == Fault.RESUMING.value else "wait",
                began=self._epoch + since,
                seconds=self._end - since,
                attributes={**waited, "lambdadb.left_out": left_out},
                children=tuple(shown),
            ),
        ]

    def _make_part(self, part: _Part) -> Span:
        attributes = {} if part.fault is None else {"lambdadb.fault": part.fault.value}
        return Span(
            name=part.name,
            began=self._epoch + part.began,
            seconds=part.ended - part.began,
            attributes=attributes,
            handle=part.handle,
        )
