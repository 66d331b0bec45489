"""Signals to a function's process, by which an environment is frozen, thawed and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from lambdadb.lab.environment.runtime_process import RuntimeProcess

# How often in a row a thread has to be seen asleep.
LOOKS = 5


def signal_all(runtime: RuntimeProcess, number: signal.Signals) -> None:
    """Send a signal to the function's process and, if it leads its group, to what it has forked."""
    pid = runtime.process.pid
    (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, number)


def wait_until_asleep(pid: int) -> None:
    """
    Wait until the main thread of a process that was continued sleeps, for 1 s at most.

    Until then Linux may give a signal to another thread of the process. Python runs its handler in the
    main thread only, which would then sleep on. Lambda freezes by other means, which leave no signal
    behind. One look is not enough: the thread may wait for the interpreter's lock.
    """
    status = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 1.0
    asleep = 0
    with contextlib.suppress(OSError):  # it has ended, or this is not Linux
        while asleep < LOOKS and time.monotonic() < end:
            asleep = asleep + 1 if status.read_text().rpartition(") ")[2][0] == "S" else 0
            time.sleep(0.002)
