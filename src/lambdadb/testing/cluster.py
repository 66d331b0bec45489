"""A cluster that really pauses, for one test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster, Shape, State
from lambdadb.lab.mariadb import MariaDB
from lambdadb.lab.postgres import Postgres
from lambdadb.testing.databases import Database

if TYPE_CHECKING:
    from lambdadb.testing.mysql import MariaDBDatabase

AUTO_PAUSE = 300.0  # seconds: the shortest that Aurora takes
CLOSING = 1.0  # seconds in which a connection that has been closed is seen to be


class AuroraCluster:
    """
    An emulated Aurora serverless cluster in front of a real PostgreSQL or MariaDB, for one test.

    A cold one begins paused, and pauses after 300 s without a connection: the next connect wakes it. A
    hot one never pauses. `docs/testing.md` says what is emulated.

    Args:
        database: The test's database.
        kind: "cold" or "hot".
        seconds: How long a resume takes; never less than the server's start, about 0.2 s.

    Attributes:
        database: The test's database.
        emulated: The lab's cluster, with all that it counts.
    """

    def __init__(
        self,
        database: Database | MariaDBDatabase,
        kind: Literal["cold", "hot"] = "cold",
        *,
        seconds: float = 1.0,
    ) -> None:
        if kind not in ("cold", "hot"):
            raise LabError(f"A cluster of the kind {kind!r}: say 'cold' or 'hot'.")
        self.database = database
        cold = kind == "cold"
        self.emulated = Cluster(
            database.server,
            auto_pause=AUTO_PAUSE if cold else None,
            resume=seconds,
            deep_resume=seconds,
            paused=cold,
        )
        self.emulated.start()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the test's database through the cluster, with the password in clear text."""
        return self.emulated.url(self.database.name)

    @property
    def is_paused(self) -> bool:
        """Whether it is paused now; False also while it wakes up."""
        return self.emulated.state is State.PAUSED

    @property
    def resumes(self) -> int:
        """How many times it has begun to wake up."""
        return len([event for event in self.emulated.events if event.kind == "resuming"])

    @property
    def connects(self) -> int:
        """TCP connections that clients have opened so far."""
        return self.emulated.connects

    def pause(self) -> None:
        """
        Let 300 s of the cluster's time pass at once, and see it pause.

        Raises:
            AssertionError: An open connection keeps it awake. The message says whose.
            LabError: It is a hot cluster.
        """
        if self.emulated.auto_pause is None:
            raise LabError("A hot cluster never pauses. Leave out pause(), or use a cold cluster.")
        if reasons := self.awake_because():
            raise AssertionError(
                f"The cluster does not pause: {'; '.join(reasons)}. Close the connection in the "
                "invocation (PerInvocation), or end it: engine.dispose(), sessions.terminate()."
            )
        self.let_pass(self.emulated.auto_pause)
        if not self.is_paused:
            raise AssertionError("The cluster does not pause: a client has just connected.")

    def let_pass(self, seconds: float) -> None:
        """Let so much of the cluster's time pass at once, and see it do what is due by then."""
        self.emulated.clock.advance(seconds)
        self.emulated.settle()
        server = self.database.server
        while self.is_paused and isinstance(server, (Postgres, MariaDB)) and server.running:
            time.sleep(0.005)

    def resume_left(self) -> float | None:
        """Seconds until it is awake; None while it does not resume."""
        return self.emulated.resume_left

    def resume(self, *, shape: str | None = None, seconds: float | None = None) -> None:
        """
        Say how it wakes up from now on. As on Aurora, a connect begins it.

        Args:
            shape: What a client meets meanwhile: "hold" (it waits; the default, which Aurora documents),
                "refuse", "close", "reset", "silent", "drop", or "mix" of them; with PostgreSQL also
                "starting" and "no-hba", with MySQL "error", "login-close" and "login-silent".
                In this process set AWS_LAMBDA_FUNCTION_NAME with "refuse": elsewhere an engine gives up
                at once if this machine refuses a connection.
            seconds: How long it takes. Aurora: about 15; 30 and more after a day of pause.

        Raises:
            LabError: There is no such shape.
        """
        if shape is not None:
            try:
                self.emulated.shape = Shape(shape)
            except ValueError:
                known = ", ".join(one.value for one in Shape)
                raise LabError(f"There is no shape {shape!r}. Say one of {known}.") from None
        if seconds is not None:
            self.emulated.resume = self.emulated.deep_resume = seconds

    def awake_because(self) -> list[str]:
        """
        What keeps the cluster from pausing: a line for each open connection, or nothing.

        A connection that has just been closed has a second to end.
        """
        end = time.monotonic() + CLOSING
        while (open_now := self.emulated.sessions()) and time.monotonic() < end:
            time.sleep(0.005)
        return [
            f"a connection of {one.application_name or 'no application_name'}, idle for {one.idle:.0f} s"
            for one in open_now
        ]

    def close(self) -> None:
        """End every connection through it. The server runs again afterwards."""
        try:
            self.emulated.close()
        finally:
            self.database.server.start()
