"""
What can be seen of a connect, and the protocol by which a tracing backend sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lambdadb.errors import LambdaDBError
from lambdadb.faults import Fault


@dataclass(frozen=True)
class Connect:
    """One connect, from its first attempt to a session or to giving up."""

    target: str
    """Host and port that were tried, without user or password."""
    seconds: float
    """How long it took as a whole."""
    attempts: int
    """How many attempts were made; 1 when all was well."""
    faults: tuple[Fault, ...]
    """What was wrong with each attempt that did not succeed, in order."""

    @property
    def waited(self) -> float:
        """Seconds lost to a database that was not ready; 0.0 when the first attempt succeeded."""
        return self.seconds if self.faults else 0.0


class Tracer(Protocol):
    """What an engine tells about its connects. A method must not raise and must not block."""

    def connected(self, connect: Connect) -> None:
        """A session was opened."""

    def gave_up(self, connect: Connect, error: LambdaDBError) -> None:
        """No session could be opened; `error` is about to be raised."""
