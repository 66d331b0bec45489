"""Virtual time for the waits of engines: a resume of a minute takes as long as its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol
from unittest.mock import patch

from lambdadb.deadline import Clock
from lambdadb.loop_clock import LoopClock

Wait = Callable[[Clock, "Mapping[int, int]", float], "Iterable[int]"]
LOOK = 0.005  # real seconds between two looks at a cluster that wakes up


class MovesAlong(Protocol):
    """Something with a clock of its own, which moves with the engines'."""

    def let_pass(self, seconds: float) -> None: ...
    def resume_left(self) -> float | None: ...


class VirtualTime:
    """
    What `no_waiting` gives.

    Attributes:
        waited: Seconds that engines have waited without waiting.
    """

    def __init__(self, clusters: Sequence[MovesAlong], waits: Mapping[type[Clock], Wait]) -> None:
        self.waited = 0.0
        self._clusters = clusters
        self._waits = waits

    def now(self) -> float:
        """The time of the engines."""
        return time.monotonic() + self.waited

    def pass_by(self, seconds: float) -> None:
        """Let seconds pass at once, here and for the clusters."""
        self.waited += max(seconds, 0.0)
        for cluster in self._clusters:
            cluster.let_pass(seconds)

    def wait(self, clock: Clock, sockets: Mapping[int, int], seconds: float) -> Iterable[int]:
        """
        Wait as the clock does; but a pause takes no time, and neither does a resume.

        An answer of a server is waited for in real time, as it is real work.
        """
        if not sockets:
            self.pass_by(seconds)
            return ()
        wait, end = self._waits[type(clock)], self.now() + seconds
        while True:
            left = end - self.now()
            waking = [rest for one in self._clusters if (rest := one.resume_left()) is not None]
            ready = wait(clock, sockets, min(left, LOOK) if self._clusters else left)
            if ready or left <= 0:
                return ready
            if waking:
                self.pass_by(min(end - self.now(), *waking))


@contextmanager
def no_waiting(*clusters: MovesAlong) -> Iterator[VirtualTime]:
    """
    Within it, the engines of this process do not wait: pauses between two attempts take no time.

    Their clock jumps over each pause, so that they give up after as many attempts, and as late, as they
    would. Resumes of `clusters` take no time either.

    Args:
        clusters: Emulated clusters whose time passes with the engines'.
    """
    virtual = VirtualTime(clusters, {kind: kind.wait for kind in (Clock, LoopClock)})
    with ExitStack() as stack:
        stack.enter_context(patch.object(Clock, "now", lambda _: virtual.now()))
        for kind in (Clock, LoopClock):
            stack.enter_context(patch.object(kind, "wait", lambda *given: virtual.wait(*given)))
        yield virtual
