"""A script between the lab and a command, so that the command cannot outlive the lab.

`lambdadb.lab.process` runs it with ``-I -S``; so it imports nothing but the standard library. Its
standard input is the lab's hand: one line of JSON says what to do, each byte after it is a signal
to pass on, and the end of the input means that the lab is gone, for whatever reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from io import FileIO
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

PATIENCE = 10.0  # seconds that an ending command, or a directory still written to, is given


def main() -> None:
    reset_signals()
    # A handler and not SIG_IGN, which the command would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # Unbuffered: a thread that waits in a buffered reader cannot be left behind at exit.
    orders = FileIO(0, closefd=False)
    plan = json.loads(orders.readline())
    if plan["command"]:
        supervise(plan, orders)
    else:
        keep_directory(plan, orders)


def reset_signals() -> None:
    """
    Give each signal its default action, and block none.

    A job in the background of a script inherits SIGINT and SIGQUIT ignored, one under nohup SIGHUP. The
    command would inherit them in turn, and not end by its `ending` signal. SIGPIPE and SIGXFSZ are
    ignored by Python itself, which gives them back to a command.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def keep_directory(plan: dict[str, Any], orders: FileIO) -> None:
    """Make the directory here, so that there is no moment at which nobody would remove it."""
    try:
        directory = tempfile.mkdtemp(prefix=plan["prefix"], dir=plan["parent"])
    except OSError as error:
        report(error=str(error))
        return
    report(path=directory)
    while orders.read(1):
        pass
    remove(Path(directory))


def supervise(plan: dict[str, Any], orders: FileIO) -> None:
    try:
        child = start(plan)
    except (OSError, KeyError) as error:
        report(error=str(error))
        return
    report(pid=child.pid)
    ending = (child, orders, plan["ending"])
    threading.Thread(target=obey, args=ending, daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what it has forked
    report(exit=code)


def start(plan: dict[str, Any]) -> Popen[bytes]:
    identity: dict[str, Any] = {}
    if plan["user"] is not None and os.geteuid() == 0:
        import pwd

        group = pwd.getpwnam(plan["user"]).pw_gid
        identity = {"user": plan["user"], "group": group, "extra_groups": []}
    surroundings = {"cwd": plan["cwd"], "env": plan["env"], **identity}
    # In a session of its own, so that what it forks can be stopped and ended with it.
    return Popen(plan["command"], stdin=DEVNULL, stdout=2, start_new_session=True, **surroundings)


def obey(child: Popen[bytes], orders: FileIO, ending: int) -> None:
    while order := orders.read(1):
        child.send_signal(order[0])
    child.send_signal(ending)
    try:
        child.wait(PATIENCE)
    except TimeoutExpired:
        child.kill()


def report(**message: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # the lab is gone: nobody wants to know
        os.write(1, json.dumps(message).encode() + b"\n")


def remove(directory: Path) -> None:
    """Delete a directory that a command, ending at this moment, may still be writing to."""
    limit = time.monotonic() + PATIENCE
    while directory.exists() and time.monotonic() < limit:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
