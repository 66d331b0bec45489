"""
The end of an execution environment, and its copies: SIGTERM, and the snapshot of SnapStart.

A forked child is in `pool_registry`.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from lambdadb import background, pool_registry

# Seconds for which an ending process waits until its cancels are sent. Lambda gives it about 0.3 in all.
CANCEL_SECONDS = 0.08

# AWS's runtime client waits for the next event in a thread since Python 3.12 (awslambdaric,
# lambda_config.py). Before that, and in container images, the main thread waits in C code, where no
# handler of Python runs. There, SIGTERM keeps its default action, which closes every socket.
_RUNS_HANDLERS = re.compile(r"AWS_Lambda_python3\.(1[2-9]|[2-9]\d)")

_hooked = False


def watch_engine(environment: Mapping[str, str]) -> None:
    """Close the sessions of this process when Lambda ends it, and before a snapshot of it is taken."""
    watch_sigterm(environment)
    if environment.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        _hook_snapshot()


def watch_sigterm(environment: Mapping[str, str]) -> None:
    """
    Close every session when Lambda sends SIGTERM, and then do what was to be done before.

    Lambda sends it if an extension is registered, about 0.3 s before it ends the environment. A handler
    that was set before is called after the sessions are closed. One that is set later is found by the
    next invocation. Python allows this in the main thread only; elsewhere nothing is done.
    """
    if not _RUNS_HANDLERS.fullmatch(environment.get("AWS_EXECUTION_ENV", "")):
        return
    if threading.current_thread() is not threading.main_thread():
        return
    earlier = signal.getsignal(signal.SIGTERM)
    if earlier is not None and not isinstance(earlier, _Ending):  # None: it was set by C code
        signal.signal(signal.SIGTERM, _Ending(earlier))


class _Ending:
    """The handler of SIGTERM."""

    def __init__(self, earlier: Any) -> None:
        self._earlier = earlier

    def __call__(self, number: int, frame: FrameType | None) -> None:
        pool_registry.close_sessions()
        background.wait_for_detached(CANCEL_SECONDS)
        if callable(self._earlier):
            self._earlier(number, frame)
        elif self._earlier is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _hook_snapshot() -> None:
    """Leave neither a session nor a login in the snapshot, whose copies would share them."""
    global _hooked
    if _hooked:
        return
    try:
        from snapshot_restore_py import register_after_restore, register_before_snapshot
    except ImportError:  # AWS's Python runtimes contain it; a runtime of one's own may not
        return
    _hooked = True
    register_before_snapshot(pool_registry.close_sessions)
    register_after_restore(pool_registry.keep_sessions)
