"""Processes and directories that end with this process, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lambdadb.lab import LabError

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Process:
    """
    A child process that never outlives this one: killed when this process ends in any way.

    Even SIGKILL of this process and SIGSTOP of the child make no difference. A small supervisor
    process in between sees the end of its standard input; it is in a session of its own, so that
    Ctrl-C in a terminal reaches neither it nor the command.

    Args:
        command: Program and arguments.
        env: The command's whole environment; this process's own by default.
        cwd: The command's working directory; this process's own by default.
        output: File that the command's standard output and error are appended to; `None` drops
            them.
        user: Run the command as this user; only root can, for anyone else it means nothing.
        ending: Signal that ends the command; SIGKILL follows when it has not ended 10 s later.

    Raises:
        LabError: The command could not be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: Path | None = None,
        user: str | None = None,
        ending: signal.Signals = signal.SIGKILL,
    ) -> None:
        plan = {
            "command": list(command),
            "env": None if env is None else dict(env),
            "cwd": None if cwd is None else str(cwd),
            "user": user,
            "ending": int(ending),
        }
        with output.open("ab") if output else contextlib.nullcontext(subprocess.DEVNULL) as target:
            self._supervisor = supervise(plan, target)
        self._lock = threading.Lock()
        self._exit: int | None = None
        started = json.loads(pipe(self._supervisor.stdout).readline() or b"{}")
        if "pid" not in started:
            self._finish()
            reason = started.get("error", "its supervisor ended at once")
            raise LabError(f"{command[0]} could not be started: {reason}.")
        self.pid: int = started["pid"]

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._supervisor.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the command's end and give its exit code, negative when a signal ended it.

        Args:
            timeout: Seconds; `None` waits as long as it takes.

        Raises:
            TimeoutError: The command is still running.
        """
        if not self._has_report(timeout):
            raise TimeoutError(f"Process {self.pid} is still running after {timeout} s.")
        return self._finish()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the command a signal; nothing happens when it has ended."""
        orders = pipe(self._supervisor.stdin)
        with self._lock, contextlib.suppress(BrokenPipeError):
            if not orders.closed:
                orders.write(bytes([number]))

    def stop(self) -> None:
        """End the command with its `ending` signal and wait for it."""
        with self._lock:
            pipe(self._supervisor.stdin).close()
        self.wait()

    def kill(self) -> None:
        """End the command with SIGKILL and wait for it; a stopped (frozen) one too."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def _has_report(self, timeout: float | None) -> bool:
        """Whether the supervisor says in time that the command has ended, or has ended itself."""
        with self._lock:
            if self._exit is not None:
                return True
            report = os.dup(pipe(self._supervisor.stdout).fileno())  # another thread may close the pipe
        try:
            # Popen.wait() would look every 50 ms, and a process that ends at once seem slow.
            poll = select.poll()
            poll.register(report, select.POLLIN)
            return bool(poll.poll(None if timeout is None else timeout * 1000.0))
        finally:
            os.close(report)

    def _finish(self) -> int:
        with self._lock:
            if self._exit is None:
                report = json.loads(pipe(self._supervisor.stdout).read() or b"{}")
                # Without a report the supervisor itself was killed.
                self._exit = int(report.get("exit", -signal.SIGKILL))
                dismiss(self._supervisor)
            return self._exit


class Directory:
    """
    A new temporary directory that is removed when this process ends in any way.

    Args:
        prefix: Start of its name.
        parent: Where to make it; the system's temporary directory by default.

    Raises:
        LabError: It could not be made.
    """

    def __init__(self, prefix: str, *, parent: Path | None = None) -> None:
        place = str(parent or tempfile.gettempdir())
        plan = {"command": [], "prefix": prefix, "parent": place}
        self._supervisor = supervise(plan, subprocess.DEVNULL)
        made = json.loads(pipe(self._supervisor.stdout).readline() or b"{}")
        if "path" not in made:
            dismiss(self._supervisor)
            reason = made.get("error", "its supervisor ended at once")
            raise LabError(f"No directory could be made in {place}: {reason}.")
        self.path = Path(made["path"])

    def close(self) -> None:
        """
        Remove the directory with everything in it.

        Raises:
            LabError: Something in it cannot be removed.
        """
        dismiss(self._supervisor)
        if self.path.exists():
            raise LabError(
                f"{self.path} could not be removed: something still writes there, or it belongs "
                "to another user. Remove it by hand."
            )


def supervise(plan: dict[str, Any], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start a supervisor and tell it its plan; through the pipe, as arguments are public."""
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", os.fspath(SUPERVISOR)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        bufsize=0,
        start_new_session=True,
    )
    with contextlib.suppress(BrokenPipeError):  # it failed at once: the caller finds no report
        pipe(supervisor.stdin).write(json.dumps(plan).encode() + b"\n")
    return supervisor


def dismiss(supervisor: subprocess.Popen[bytes]) -> None:
    """Let go of a supervisor: it ends what it was started for, and then itself."""
    pipe(supervisor.stdin).close()
    supervisor.wait()
    pipe(supervisor.stdout).close()


def pipe(end: IO[bytes] | None) -> IO[bytes]:
    assert end is not None  # every supervisor is started with both pipes
    return end
