"""A function's process, AWS's runtime client inside it, and its log."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lambdadb.lab import LabError
from lambdadb.lab.environment.runtime_api import RuntimeAPI
from lambdadb.lab.process import Process

PROGRAM = Path(__file__).with_name("runtime_main.py").read_text()
FRAME = b"\xa5\x5a\x00"
FRAME_HEADER = 16


class RuntimeProcess:
    """One process of an environment, from its init to its end."""

    process: Process | CopiedProcess

    def __init__(self, handler: str, variables: Mapping[str, str], root: Path, output: Path) -> None:
        self.api = RuntimeAPI()
        self.output = Output(output)
        try:
            self.process = Process(
                [sys.executable, "-c", PROGRAM, handler],
                env={**variables, "AWS_LAMBDA_RUNTIME_API": self.api.address},
                cwd=root,
                output=output,
            )
        except BaseException:
            self.api.close()
            raise

    def wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait until `ready` or until the process exited; False: the deadline came first."""
        while (left := deadline - time.monotonic()) > 0:
            # An exit makes no request, so it is looked for ten times a second.
            if self.api.wait_for(ready, min(left, 0.1)) or not self.process.running:
                return True
        return False

    def copy(self, output: Path, seconds: float = 10.0) -> RuntimeProcess:
        """Make a copy of the process, which waits for the restore of its snapshot."""
        copied = object.__new__(RuntimeProcess)
        copied.api = RuntimeAPI()
        copied.output = Output(output)
        pid_file = output.with_suffix(".pid")
        place = {"address": copied.api.address, "log": str(output), "pid_file": str(pid_file)}
        self.api.copy_snapshot(place)
        end = time.monotonic() + seconds
        while not pid_file.exists():
            if time.monotonic() > end or not self.process.running:
                copied.api.close()
                raise LabError("the process with the snapshot has made no copy")
            time.sleep(0.005)
        copied.process = CopiedProcess(int(pid_file.read_text()))
        return copied

    def end(self) -> None:
        self.process.kill()
        self.api.close()


class CopiedProcess:
    """A process that another one has forked. It ends, at the latest, when that one's supervisor does."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Its exit code is known to its parent only: 0 is returned."""
        end = time.monotonic() + (timeout or 10.0)
        while self.running:
            if time.monotonic() > end:
                raise TimeoutError(f"Process {self.pid} is still running after {timeout} s.")
            time.sleep(0.005)
        return 0

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send_signal(signal.SIGKILL)
        self.wait()


class Output:
    """
    The log of one process, read as it grows: one entry per log record, and per line that was printed.

    A record comes in a frame: four bytes that no text has, its length, the time, and its text, as
    `FramedTelemetryLogSink` of AWS's runtime client writes it. What is printed comes as it is.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset = 0

    def new_entries(self, *, ended: bool = False) -> list[str]:
        """The entries since the last call; a line without its end counts once the process ended."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        entries, position = [], 0
        while (found := next_entry(data, position, ended=ended)) is not None:
            text, position = found
            entries.append(text.decode(errors="replace"))
        self.offset += position
        return entries


def next_entry(data: bytes, position: int, *, ended: bool) -> tuple[bytes, int] | None:
    """The entry that begins at a position, and where the next one begins; None: it is not complete."""
    if data.startswith(FRAME, position):
        start = position + FRAME_HEADER
        end = start + int.from_bytes(data[position + 4 : position + 8], "big")
        complete = start <= len(data) and end <= len(data)
        return (data[start:end].removesuffix(b"\n"), end) if complete else None
    ends = [end for end in (data.find(b"\n", position), data.find(FRAME, position)) if end >= 0]
    if ends:
        end = min(ends)
        return data[position:end], end + (data[end : end + 1] == b"\n")
    return (data[position:], len(data)) if ended and position < len(data) else None
