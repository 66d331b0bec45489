"""The command line in processes of its own: run to its end, or read line by line."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LAMBDADB = [sys.executable, "-m", "lambdadb"]


@dataclass
class Finished:
    """What a run of the command line left."""

    code: int
    stdout: str
    stderr: str
    folder: Path


def lambdadb(
    *arguments: str, folder: Path, code: list[str] | None = None, **options: object
) -> Finished:
    done = subprocess.run(  # type: ignore[call-overload]
        [*(code or LAMBDADB), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr, folder)


def descendants(root: int) -> set[int]:
    """All processes below one, by the system's own list."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = {root}
    for _ in range(10):  # deeper than any of ours
        found |= {pid for pid, parent in pairs if parent in found}
    return found - {root}


def running(pids: set[int]) -> set[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True)
    lines = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid) for pid, state in lines if int(pid) in pids and not state.startswith("Z")}


def gone(pids: set[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while running(pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not running(pids)


class Started:
    """A command line that runs, read line by line with a bounded wait."""

    def __init__(self, *arguments: str, folder: Path, read: str) -> None:
        self.process = subprocess.Popen(
            [*LAMBDADB, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stream = getattr(self.process, read)
        self.descriptor = stream.fileno()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.descriptor, selectors.EVENT_READ)
        self.text = ""

    def until(self, pattern: str, seconds: float = 40.0) -> re.Match[str]:
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert self.selector.select(max(0.0, end - time.monotonic())), self.text
            chunk = os.read(self.descriptor, 65536)
            assert chunk, self.text
            self.text += chunk.decode()
        return found

    def close(self) -> None:
        self.selector.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=10)
