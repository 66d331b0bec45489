"""A PostgreSQL that is running already: a container, or a service of a CI job."""

from __future__ import annotations

from sqlalchemy import make_url

from lambdadb.lab import LabError

LOCAL = ("localhost", "127.0.0.1")


class RunningPostgres:
    """
    A server that somebody else starts and stops, with the interface of `Postgres`.

    In front of it, a `Cluster` pauses and resumes as far as clients can see. The server itself goes on,
    so that sequences lose no values.

    Args:
        url: SQLAlchemy URL of a database on this machine, with a login that may create databases.

    Raises:
        LabError: It is not the URL of a PostgreSQL on this machine.
    """

    running = True

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        if self._url.host not in LOCAL or not self._url.database:
            raise LabError(
                f"The URL of a running PostgreSQL is {make_url(url)!r}. Give one on this machine, with "
                "a database: postgresql+psycopg://USER:PASSWORD@127.0.0.1:5432/postgres"
            )
        self.port = self._url.port or 5432

    def url(
        self, database: str | None = None, *, host: str = "127.0.0.1", port: int | None = None
    ) -> str:
        """SQLAlchemy URL of a database, with the password in clear text."""
        url = self._url.set(database=database or self._url.database, host=host, port=port or self.port)
        return url.render_as_string(hide_password=False)

    def start(self) -> None:
        """It runs already."""

    def crash(self) -> None:
        """It goes on."""
