"""A standby of a `Postgres`: another server, which follows it and can be promoted in its place."""

from __future__ import annotations

import psycopg

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import find_binaries, server_user
from lambdadb.lab.postgres.directories import DATA, LOG, new_directory
from lambdadb.lab.postgres.server import Postgres
from lambdadb.lab.process import Directory, Process
from lambdadb.lab.server import START_TIMEOUT, environment, last_lines


class Standby(Postgres):
    """
    A hot standby with streaming replication, on a loopback port of its own.

    It answers queries that only read. `promote()` makes it a writer with a timeline of its own, as a
    failover does. The primary must be running while the standby is made; it needs no other setting.

    Args:
        primary: The server that is copied and followed.
    """

    def __init__(self, primary: Postgres) -> None:
        super().__init__(settings=primary.settings, password=primary.password)
        self._primary = primary

    def promote(self) -> None:
        """Stop following the primary, and take writes; about 0.1 s."""
        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def _make_directory(self) -> Directory:
        directory = new_directory()
        log = directory.path / LOG
        command = [str(find_binaries() / "pg_basebackup"), "-D", str(directory.path / DATA), "-R"]
        command += ["-c", "fast", "-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres"]
        variables = {**environment(), "PGPASSWORD": self.password}
        try:
            process = Process(command, env=variables, cwd=directory.path, output=log, user=server_user())
            code = process.wait(START_TIMEOUT)
        except BaseException:
            directory.close()
            raise
        if code != 0:
            text = last_lines(log.read_text(errors="replace"))
            directory.close()
            raise LabError(f"PostgreSQL's pg_basebackup failed:\n{text}")
        return directory
