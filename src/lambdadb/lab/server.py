"""What the lab's servers have in common: a process on a loopback port, in a directory of its own."""

from __future__ import annotations

import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, TypeVar

from lambdadb.lab import LabError

if TYPE_CHECKING:
    from lambdadb.lab.postgres.directories import KeptDirectory
    from lambdadb.lab.process import Directory, Process

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
PORT_ATTEMPTS = 5
LOG = "log"
# All that a server gets of the variables around it. A superuser can read the server's environment, and
# a developer's has the keys of an AWS account.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
# Messages in English (connect errors are told apart by their text), times in UTC as on Aurora;
# macOS needs a locale that is certain to exist.
LOCALE = {"LC_ALL": "C", "TZ": "UTC"}
Self = TypeVar("Self", bound="LocalServer")


class LocalServer(ABC):
    """
    A server on a loopback port, in a directory of its own.

    Server and directory are gone when this process is gone, even when it was killed. Used as a context
    manager it starts on entry and closes at the end.
    """

    name: ClassVar[str]
    """What it is called in errors."""
    taken: ClassVar[str]
    """What its log says if another program has the port."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port()
        self._directory: Directory | KeptDirectory | None = None
        self._process: Process | None = None

    @abstractmethod
    def _make_directory(self) -> Directory | KeptDirectory:
        """Make the directory, with what the server needs at its first start."""

    @abstractmethod
    def _launch(self, directory: Path, log: Path) -> Process:
        """Start the process on `self.port`."""

    @abstractmethod
    def _accepts(self, directory: Path, process: Process) -> bool:
        """Whether it accepts connections."""

    @property
    def running(self) -> bool:
        """Whether the server process runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """
        Start the server and return when it accepts connections.

        The port stays the same over a stop and a start, unless another program took it meanwhile.

        Raises:
            LabError: It did not start; the message has the last lines of its log.
        """
        if self.running:
            return
        if self._directory is None:
            self._directory = self._make_directory()
        for _ in range(PORT_ATTEMPTS):
            if self._try_port(self._directory.path):
                return
            self.port = free_port()
        raise LabError(f"No free port on 127.0.0.1 for {self.name} in {PORT_ATTEMPTS} attempts.")

    def close(self) -> None:
        """Stop the server and remove its directory and data, unless they are to be kept."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def __enter__(self: Self) -> Self:
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

    def _try_port(self, directory: Path) -> bool:
        """Start on `self.port`; False when another program has it."""
        log = directory / LOG
        log.unlink(missing_ok=True)
        process = self._process = self._launch(directory, log)
        limit = time.monotonic() + START_TIMEOUT
        while process.running and time.monotonic() < limit:
            if self._accepts(directory, process):
                return True
            time.sleep(0.01)
        process.stop()
        self._process = None
        text = log.read_text(errors="replace")
        if self.taken in text:
            return False
        raise LabError(f"{self.name} did not start. The end of its log:\n{last_lines(text)}")

    def _end(self, number: signal.Signals) -> None:
        """End the server with a signal, and keep its data for the next start."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            raise LabError(
                f"{self.name} did not stop within {STOP_TIMEOUT:.0f} s and was killed."
            ) from None
        finally:
            self._process = None


def environment() -> dict[str, str]:
    """The variables that a server gets."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | LOCALE


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(text: str, count: int = 15) -> str:
    """The end of a log."""
    return "\n".join(text.splitlines()[-count:])
