"""A MariaDB server with a directory, a password and a life of its own."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import server_user
from lambdadb.lab.postgres.directories import new_directory
from lambdadb.lab.postgres.server import environment, free_port, last_lines
from lambdadb.lab.process import Directory, Process

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
USER = "app"
DATABASE = "orders"
SERVERS = ("mariadbd", "mysqld")
DIRECTORIES = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin")  # also off the PATH
INSTALL = "apt-get install -y mariadb-server"
SETTINGS = {"bind-address": "127.0.0.1", "innodb-buffer-pool-size": "16M", "skip-name-resolve": "1"}
# Leaves writing to the disk to the operating system, for tests that are not about time. A server that is
# killed loses nothing by it.
NO_SYNC = {"innodb-flush-method": "nosync", "debug-no-sync": "ON"}


def find_server() -> Path:
    """
    Find `mariadbd` on the PATH or in the usual directories.

    Raises:
        LabError: It is not installed; the message has the command that installs it.
    """
    for name in SERVERS:
        for directory in (None, *DIRECTORIES):
            found = shutil.which(name, path=directory)
            if found is not None and _is_mariadb(found):
                return Path(found)
    raise LabError(f"The lab found no MariaDB on this machine. On Debian: {INSTALL}")


def _is_mariadb(program: str) -> bool:
    done = subprocess.run([program, "--no-defaults", "--version"], capture_output=True, check=False)
    return b"MariaDB" in done.stdout


class MariaDB:
    """
    A real MariaDB on a loopback port, in a directory of its own.

    Server and directory are gone when this process is gone, even when it was killed. As root the server
    runs as user `nobody`. The one user, `app`, may do everything, and needs the password. Used as a
    context manager it starts on entry and closes at the end.

    Args:
        settings: Server settings by their names in a configuration file, such as
            `{"performance-schema": "ON", "ssl-cert": "/path/to/cert.pem"}`.
        password: Password of the user `app`; a random one by default.
    """

    def __init__(
        self, *, settings: Mapping[str, str] | None = None, password: str | None = None
    ) -> None:
        self.port = free_port()
        self.password = password or secrets.token_urlsafe(18)
        self._settings = {**SETTINGS, **(settings or {})}
        self._directory: Directory | None = None
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.running

    def url(self, database: str = DATABASE, *, host: str = "127.0.0.1", port: int | None = None) -> str:
        """SQLAlchemy URL of a database, with the password in clear text."""
        login = f"{USER}:{quote(self.password, safe='')}"
        return f"mysql+pymysql://{login}@{host}:{port or self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """
        Start the server and return when it accepts connections; about 0.3 s, 1 s the first time.

        Raises:
            LabError: MariaDB is missing, or did not start; the message has the end of its log.
        """
        if self.running:
            return
        server = find_server()
        if self._directory is None:
            self._directory = new_directory("lambdadb-mariadb-")
            self._create_data(server)
        directory = self._directory.path
        options = {
            **self._settings,
            "datadir": str(directory / "data"),
            "socket": str(directory / "socket"),
            "pid-file": str(directory / "pid"),
            "init-file": str(directory / "init.sql"),
            "port": str(self.port),
        }
        command = [
            str(server),
            "--no-defaults",
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        self._process = self._run(command, signal.SIGTERM)
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop the server, and keep its data for the next start."""
        self._end(signal.SIGTERM)

    def crash(self) -> None:
        """Kill the server, and keep its data for the next start."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the server do nothing until `thaw()`. The system goes on to accept connections for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise LabError("MariaDB does not run.")
        self._process.send_signal(number)

    def _end(self, ending: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(ending)
        try:
            self._process.wait(STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            raise LabError(f"MariaDB did not stop within {STOP_TIMEOUT:.0f} s and was killed.") from None
        finally:
            self._process = None

    def close(self) -> None:
        """Stop the server and remove its directory and data."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def __enter__(self) -> MariaDB:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _path(self) -> Path:
        assert self._directory is not None
        return self._directory.path

    def _run(self, command: list[str], ending: signal.Signals) -> Process:
        return Process(
            command,
            # A starting server deletes the temporary tables that it finds there, also another's.
            env={**environment(), "TMPDIR": str(self._path)},
            cwd=self._path,
            output=self._path / "log",
            user=server_user(),
            ending=ending,
        )

    def _create_data(self, server: Path) -> None:
        """Create the system tables, and the file by which each start creates the user."""
        installer = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
        if installer is None:
            raise LabError(f"{server} is here, and mariadb-install-db is not. On Debian: {INSTALL}")
        data = self._path / "data"
        command = [installer, "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        process = self._run([*command, "--auth-root-authentication-method=normal"], signal.SIGKILL)
        if process.wait(START_TIMEOUT) != 0:
            raise LabError(f"mariadb-install-db failed. The end of its log:\n{self._read_log()}")
        user = f"'{USER}'@'%'"
        init = self._path / "init.sql"
        init.touch(mode=0o600)
        init.write_text(
            f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION;\n"
            "DROP USER IF EXISTS 'root'@'localhost';\n"
            f"CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4;\n"
        )
        if (owner := server_user()) is not None:
            shutil.chown(init, owner)

    def _wait_until_ready(self) -> None:
        limit = time.monotonic() + START_TIMEOUT
        while self.running and time.monotonic() < limit:
            if self.answers():
                return
            time.sleep(0.02)
        self.stop()
        raise LabError(f"MariaDB did not start. The end of its log:\n{self._read_log()}")

    def answers(self) -> bool:
        """Whether the server greets. It listens only after the file that creates the user has run."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as probe:
                return bool(probe.recv(1))
        except OSError:
            return False

    def _read_log(self) -> str:
        return last_lines((self._path / "log").read_text(errors="replace"))
