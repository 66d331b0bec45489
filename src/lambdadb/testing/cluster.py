"""A cluster that really pauses, for one test."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Literal

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, Shape, State
from lambdadb.lab.postgres import Postgres
from lambdadb.testing.databases import Database

AUTO_PAUSE = 300.0  # seconds: the shortest that Aurora takes
PATIENCE = 60.0  # seconds for what the cluster does by itself, on a slow machine
CLOSING = 1.0  # seconds in which a connection that has been closed is seen to be


class AuroraCluster:
    """
    An emulated Aurora serverless cluster in front of a real PostgreSQL, for one test.

    A cold one begins paused, and pauses after 300 s without a connection: the next connect wakes it. A
    hot one never pauses. `docs/testing.md` says what is emulated.

    Args:
        database: The test's database.
        kind: "cold" or "hot".
        seconds: How long a resume takes; never less than the server's start, about 0.2 s.
    """

    def __init__(
        self, database: Database, kind: Literal["cold", "hot"] = "cold", *, seconds: float = 1.0
    ) -> None:
        if kind not in ("cold", "hot"):
            raise LabError(f"A cluster of the kind {kind!r}: say 'cold' or 'hot'.")
        self.database = database
        cold = kind == "cold"
        self._cluster = Cluster(
            database.server,
            auto_pause=AUTO_PAUSE if cold else None,
            resume=seconds,
            deep_resume=seconds,
            paused=cold,
        )

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the test's database through the cluster, with the password in clear text."""
        return self._cluster.url(self.database.name)

    @property
    def is_paused(self) -> bool:
        """Whether it is paused now; False also while it wakes up."""
        return self._cluster.state is State.PAUSED

    @property
    def resumes(self) -> int:
        """How many times it has begun to wake up."""
        return len([event for event in self._cluster.events if event.kind == "resuming"])

    @property
    def connects(self) -> int:
        """TCP connections that clients have opened so far."""
        return self._cluster.connects

    def pause(self) -> None:
        """
        Let 300 s of the cluster's time pass at once, and see it pause.

        Raises:
            AssertionError: An open connection keeps it awake. The message says whose.
            LabError: It is a hot cluster.
        """
        if self._cluster.auto_pause is None:
            raise LabError("A hot cluster never pauses. Leave out pause(), or use a cold cluster.")
        if reasons := self.awake_because():
            raise AssertionError(
                f"The cluster does not pause: {'; '.join(reasons)}. Close the connection in the "
                "invocation (PerInvocation), or end it: engine.dispose(), sessions.terminate()."
            )
        self._cluster.clock.advance(self._cluster.auto_pause)
        end = time.monotonic() + PATIENCE
        while not self._has_paused():
            if time.monotonic() >= end:
                raise LabError(f"The cluster is {self._cluster.state.value}, and has not paused.")
            time.sleep(0.005)

    def _has_paused(self) -> bool:
        server = self.database.server
        return self.is_paused and not (isinstance(server, Postgres) and server.running)

    def resume(self, *, shape: str | None = None, seconds: float | None = None) -> None:
        """
        Say how it wakes up from now on. As on Aurora, a connect begins it.

        Args:
            shape: What a client meets meanwhile: "hold" (it waits; the default, which Aurora documents),
                "refuse", "close", "reset", "starting", "no-hba", "silent", "drop", or "mix" of them.
            seconds: How long it takes. Aurora: about 15; 30 and more after a day of pause.

        Raises:
            LabError: There is no such shape.
        """
        if shape is not None:
            try:
                self._cluster.shape = Shape(shape)
            except ValueError:
                known = ", ".join(one.value for one in Shape)
                raise LabError(f"There is no shape {shape!r}. Say one of {known}.") from None
        if seconds is not None:
            self._cluster.resume = self._cluster.deep_resume = seconds

    def awake_because(self) -> list[str]:
        """
        What keeps the cluster from pausing: a line for each open connection, or nothing.

        A connection that has just been closed has a second to end.
        """
        end = time.monotonic() + CLOSING
        while (open_now := self._cluster.sessions()) and time.monotonic() < end:
            time.sleep(0.005)
        return [
            f"a connection of {one.application_name or 'no application_name'}, idle for {one.idle:.0f} s"
            for one in open_now
        ]

    def start(self) -> None:
        """Begin to listen."""
        self._cluster.start()

    def close(self) -> None:
        """End every connection through it. The server runs again afterwards."""
        try:
            self._cluster.close()
        finally:
            self.database.server.start()

    def __enter__(self) -> AuroraCluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
