"""A MariaDB server with a directory, a password and a life of its own."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from lambdadb.lab import LabError
from lambdadb.lab.postgres.binaries import server_user
from lambdadb.lab.postgres.directories import new_directory
from lambdadb.lab.process import Directory, Process
from lambdadb.lab.server import LOG, START_TIMEOUT, LocalServer, environment, last_lines

PID = "pid"
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


class MariaDB(LocalServer):
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

    name = "MariaDB"
    taken = "Address already in use"

    def __init__(
        self, *, settings: Mapping[str, str] | None = None, password: str | None = None
    ) -> None:
        super().__init__()
        self.password = password or secrets.token_urlsafe(18)
        self._settings = {**SETTINGS, **(settings or {})}

    def url(self, database: str = DATABASE, *, host: str = "127.0.0.1", port: int | None = None) -> str:
        """SQLAlchemy URL of a database, with the password in clear text."""
        login = f"{USER}:{quote(self.password, safe='')}"
        return f"mysql+pymysql://{login}@{host}:{port or self.port}/{quote(database, safe='')}"

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

    def _make_directory(self) -> Directory:
        server = find_server()
        directory = new_directory("lambdadb-mariadb-")
        try:
            self._create_data(server, directory.path)
        except BaseException:
            directory.close()
            raise
        return directory

    def _launch(self, directory: Path, log: Path) -> Process:
        (directory / PID).unlink(missing_ok=True)
        options = {
            **self._settings,
            "datadir": str(directory / "data"),
            "socket": str(directory / "socket"),
            "pid-file": str(directory / PID),
            "init-file": str(directory / "init.sql"),
            "port": str(self.port),
        }
        arguments = (f"--{name}={value}" for name, value in options.items())
        return run([str(find_server()), "--no-defaults", *arguments], directory, log)

    def _accepts(self, directory: Path, process: Process) -> bool:
        """Whether it greets. It does so after the file that creates the user has run."""
        del (
            process
        )  # which writes the file when it listens. Another program may greet on the port before.
        if not (directory / PID).exists():
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as probe:
                return bool(probe.recv(1))
        except OSError:
            return False

    def _create_data(self, server: Path, directory: Path) -> None:
        """Create the system tables, and the file by which each start creates the user."""
        installer = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
        if installer is None:
            raise LabError(f"{server} is here, and mariadb-install-db is not. On Debian: {INSTALL}")
        log = directory / LOG
        command = [installer, "--no-defaults", f"--datadir={directory / 'data'}", "--skip-test-db"]
        process = run([*command, "--auth-root-authentication-method=normal"], directory, log)
        if process.wait(START_TIMEOUT) != 0:
            text = last_lines(log.read_text(errors="replace"))
            raise LabError(f"mariadb-install-db failed. The end of its log:\n{text}")
        user = f"'{USER}'@'%'"
        init = directory / "init.sql"
        init.touch(mode=0o600)
        init.write_text(
            f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION;\n"
            "DROP USER IF EXISTS 'root'@'localhost';\n"
            f"CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4;\n"
        )
        if (owner := server_user()) is not None:
            shutil.chown(init, owner)


def run(command: list[str], directory: Path, log: Path) -> Process:
    """Start a program of MariaDB, which is killed when this process is gone."""
    return Process(
        command,
        # A starting server deletes the temporary tables that it finds there, also another's.
        env={**environment(), "TMPDIR": str(directory)},
        cwd=directory,
        output=log,
        user=server_user(),
        ending=signal.SIGKILL,
    )
