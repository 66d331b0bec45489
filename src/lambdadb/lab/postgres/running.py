"""A PostgreSQL that is running already: a container, or a service of a CI job."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from lambdadb.lab import LabError

EXAMPLE = "postgresql+psycopg://USER:PASSWORD@HOST:5432/postgres"


class RunningPostgres:
    """
    A server that somebody else starts and stops, with the interface of `Postgres`.

    In front of it, a `Cluster` pauses and resumes as far as clients can see. The server itself goes on,
    so that sequences lose no values.

    Args:
        url: SQLAlchemy URL of a database, with a login that may create databases.

    Raises:
        LabError: It is not the URL of a PostgreSQL.
    """

    running = True

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):
            raise LabError(f"The URL of a running PostgreSQL cannot be read. Use {EXAMPLE}.") from None
        if self._url.get_backend_name() != "postgresql" or not self._url.host or not self._url.database:
            raise LabError(f"{self._url!r} names no PostgreSQL, host and database. Use {EXAMPLE}.")
        self._url = self._url.set(drivername="postgresql+psycopg")
        self.host = str(self._url.host)
        self.port = self._url.port or 5432

    def url(
        self, database: str | None = None, *, host: str | None = None, port: int | None = None
    ) -> str:
        """SQLAlchemy URL of a database, with the password in clear text."""
        url = self._url.set(
            database=database or self._url.database, host=host or self.host, port=port or self.port
        )
        return url.render_as_string(hide_password=False)

    def start(self) -> None:
        """It runs already."""

    def crash(self) -> None:
        """It goes on."""
