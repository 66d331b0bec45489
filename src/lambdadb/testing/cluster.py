"""A cluster that really pauses, for one test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.aurora.control import ClusterControl
from lambdadb.testing.databases import Database

if TYPE_CHECKING:
    from lambdadb.testing.mysql import MariaDBDatabase

AUTO_PAUSE = 300.0  # seconds: the shortest that Aurora takes


class AuroraCluster(ClusterControl):
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
        emulated = Cluster(
            database.server,
            auto_pause=AUTO_PAUSE if cold else None,
            resume=seconds,
            deep_resume=seconds,
            paused=cold,
        )
        emulated.start()
        super().__init__(emulated)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the test's database through the cluster, with the password in clear text."""
        return self.emulated.url(self.database.name)

    def close(self) -> None:
        """End every connection through it. The server runs again afterwards."""
        try:
            self.emulated.close()
        finally:
            self.database.server.start()
