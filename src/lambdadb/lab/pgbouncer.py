"""A real pgbouncer in front of a `Postgres`, for tests of sessions that clients share."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import server_user
from lambdadb.lab.postgres.directories import new_directory
from lambdadb.lab.postgres.server import Postgres
from lambdadb.lab.process import Directory, Process
from lambdadb.lab.server import LocalServer, environment

# Debian installs it where an ordinary user's PATH does not lead.
PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin:/usr/local/bin"
INI, USERS = "pgbouncer.ini", "users.txt"
ADMIN_DATABASE = "pgbouncer"


class PgBouncer(LocalServer):
    """
    The distribution's pgbouncer on a loopback port, in front of a `Postgres`.

    It ends with this process, however this process ends. As root it runs as user `nobody`. Every login
    needs the server's password (SCRAM). Used as a context manager it starts on entry and closes at the
    end.

    Args:
        server: The server behind it.
        pool_mode: When a server session is given to another client: after each "transaction", at the
            end of the client's "session", or after each "statement".
        pool_size: Server sessions for each user and database.
        settings: Other settings of the section `[pgbouncer]`, such as `{"query_wait_timeout": "2"}`.
        server_port: The port by which pgbouncer reaches the server, such as that of a fault proxy
            between the two; by default the server's own.

    Raises:
        LabError: pgbouncer is not installed.
    """

    name = "pgbouncer"
    taken = "Address already in use"

    def __init__(
        self,
        server: Postgres,
        *,
        pool_mode: Literal["transaction", "session", "statement"] = "transaction",
        pool_size: int = 5,
        settings: Mapping[str, str] | None = None,
        server_port: int | None = None,
    ) -> None:
        self.binary = find_pgbouncer()
        super().__init__()
        self.server = server
        self._server_port = server_port
        self._settings = {
            "pool_mode": pool_mode,
            "default_pool_size": str(pool_size),
            **(settings or {}),
        }

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """SQLAlchemy URL of a database through pgbouncer, with the password in clear text."""
        return self.server.url(database, port=port or self.port)

    def stop(self) -> None:
        """Stop pgbouncer at once; its clients and its server sessions lose their connections."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def show(self, what: str) -> list[dict[str, Any]]:
        """Return the rows of a command of its console, such as `pools`, `servers` or `stats`."""
        return self.command(f"SHOW {what}")

    def command(self, text: str) -> list[dict[str, Any]]:
        """Run a command of its console, such as `KILL postgres`, and return its rows."""
        conninfo = self.url(ADMIN_DATABASE).replace("+psycopg", "")
        with psycopg.connect(conninfo, autocommit=True, row_factory=dict_row) as console:
            cursor = console.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def _make_directory(self) -> Directory:
        return new_directory()

    def _launch(self, directory: Path, log: Path) -> Process:
        self._write_files(directory)
        return Process(
            [self.binary, str(directory / INI)],
            env=environment(),
            cwd=directory,
            output=log,
            user=server_user(),
        )

    def _accepts(self, directory: Path, process: Process) -> bool:
        del directory, process
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _write_files(self, directory: Path) -> None:
        users = f'"postgres" "{self.server.password}"\n'
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(directory / USERS),
            # Other roles than postgres log in with the secrets that the server has of them.
            "auth_user": "postgres",
            "admin_users": "postgres",
            **self._settings,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={self._server_port or self.server.port}"]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items()), ""]
        for name, text in ((USERS, users), (INI, "\n".join(lines))):
            file = directory / name
            file.touch(mode=0o600)
            file.write_text(text)
            shutil.chown(file, server_user() or os.geteuid())


def find_pgbouncer() -> str:
    """
    Return the path of the installed pgbouncer.

    Raises:
        LabError: There is none.
    """
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=PLACES)
    if found is None:
        raise LabError(
            "pgbouncer is not installed. Install it from the distribution: "
            "`apt-get install pgbouncer` (Debian, Ubuntu), `dnf install pgbouncer` (Fedora), "
            "`brew install pgbouncer` (macOS)."
        )
    return found
