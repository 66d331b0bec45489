"""A PostgreSQL server with a directory, a password and a life of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import find_binaries, server_user
from lambdadb.lab.postgres.directories import DATA, LOG, PASSWORD, KeptDirectory, new_directory
from lambdadb.lab.process import Directory, Process
from lambdadb.lab.server import START_TIMEOUT, LocalServer, environment, last_lines

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    # Aurora's storage needs no checkpoints. One of PostgreSQL's own, every five minutes by default,
    # would save a sequence as it stands, and a later crash would lose none of its values: ids would
    # step by 1 across a pause, where those of a real cluster step by 33.
    "checkpoint_timeout": "1d",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres(LocalServer):
    """
    A real PostgreSQL 18 with pgvector on a loopback port, in a directory of its own.

    Server and directory are gone when this process is gone, even when it was killed. As root the
    server runs as user `nobody`. Every login needs the password (SCRAM): other users of this machine
    have none, and the server's environment holds nothing of this process's. Crash safety (fsync) is
    on, as crashes are among the things to be tried. Used as a context manager it starts on entry and
    closes at the end.

    Args:
        settings: Server settings as in postgresql.conf, such as `{"max_connections": "200"}`. They
            are written when the data are created.
        password: Password of the superuser `postgres`; a random one by default.
        data: Directory that keeps the data, and the password, from one run to the next. It is made
            when it does not exist. By default a temporary one that goes with the server.

    Raises:
        LabError: `data` and `password` are both given.

    Attributes:
        is_new: Whether the data were created by this object.
    """

    name = "PostgreSQL"
    taken = "could not bind"

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        password: str | None = None,
        data: Path | None = None,
    ) -> None:
        if data is not None and password is not None:
            raise LabError(f"The password of kept data is in {data}; leave out password=.")
        super().__init__()
        self.is_new = False
        self.settings = {**SETTINGS, **(settings or {})}
        self._is_random = password is None
        self.password = password or secrets.token_urlsafe(18)
        self._kept = None if data is None else data.resolve()

    def url(
        self, database: str = "postgres", *, host: str = "127.0.0.1", port: int | None = None
    ) -> str:
        """SQLAlchemy URL of a database, with the password in clear text."""
        user = f"postgres:{quote(self.password, safe='')}"
        return f"postgresql+psycopg://{user}@{host}:{port or self.port}/{quote(database, safe='')}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """
        Stop the server, and keep its data for the next start.

        Args:
            mode: "fast" ends sessions and writes everything down; "immediate" is like a crash,
                after which sequences skip the values that they had reserved.

        Raises:
            LabError: It did not stop in time; it was killed.
        """
        self._end(signal.SIGINT if mode == "fast" else signal.SIGQUIT)

    def crash(self) -> None:
        """Stop the server as a crash would, and keep its data for the next start."""
        self.stop("immediate")

    def discard(self) -> None:
        """Stop the server and remove its data, kept ones too."""
        self.close()
        if self._kept is not None:
            for path in (self._kept / DATA, self._kept / PASSWORD):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def _make_directory(self) -> Directory | KeptDirectory:
        """The directory with the data, which are created where there are none."""
        if self._kept is None:
            directory: Directory | KeptDirectory = new_directory()
        else:
            directory = KeptDirectory(self._kept)
            if (found := directory.read_password()) is not None:
                self.password = found
                return directory
        try:
            initialize(find_binaries(), directory.path, self.password, random=self._is_random)
            lines = [f"{name} = {quoted(value)}\n" for name, value in self.settings.items()]
            with (directory.path / DATA / "postgresql.conf").open("a") as file:
                file.writelines(lines)
            if isinstance(directory, KeptDirectory):
                directory.write_password(self.password)
        except BaseException:
            directory.close()
            raise
        self.is_new = True
        return directory

    def _launch(self, directory: Path, log: Path) -> Process:
        return Process(
            [str(find_binaries() / "postgres"), "-D", str(directory / DATA), "-p", str(self.port)],
            env=environment(),
            cwd=directory,
            output=log,
            user=server_user(),
            # When this process is gone nobody needs the data, unless they are kept.
            ending=signal.SIGQUIT if self._kept is None else signal.SIGINT,
        )

    def _accepts(self, directory: Path, process: Process) -> bool:
        return accepts_connections(directory / DATA, process.pid)


def initialize(binaries: Path, directory: Path, password: str, *, random: bool) -> None:
    """Create an empty database cluster in `directory`/data."""
    command = [str(binaries / "initdb"), "-D", str(directory / DATA), "-U", "postgres"]
    command += ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-sync", "--no-instructions"]
    if random:  # thousands of hashes protect a password that can be guessed, and take milliseconds
        command += ["-c", "scram_iterations=1"]
    secret = directory / "initial-password"
    command += ["-A", "scram-sha-256", f"--pwfile={secret}"]
    secret.touch(mode=0o600)
    secret.write_text(f"{password}\n")
    shutil.chown(secret, server_user() or os.geteuid())
    log = directory / LOG
    process = Process(command, env=environment(), cwd=directory, output=log, user=server_user())
    code = process.wait(START_TIMEOUT)
    secret.unlink(missing_ok=True)
    if code != 0:
        text = last_lines(log.read_text(errors="replace"))
        raise LabError(f"PostgreSQL's initdb failed with exit code {code}:\n{text}")


def accepts_connections(data: Path, pid: int) -> bool:
    """Whether the server says so in its own lock file: the process's id first, its state last."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")


def quoted(value: str) -> str:
    """A value as postgresql.conf wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
