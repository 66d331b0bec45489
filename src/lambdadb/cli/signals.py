"""Ctrl-C and SIGTERM: both end a command in the same way, and a second one disturbs no clean-up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_once() -> None:
    """
    From now on raise KeyboardInterrupt at the first signal, and ignore those that follow.

    A second exception would interrupt the clean-up that the first one began, in the middle of a lock.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 the handler's form
        for each in SIGNALS:
            # A function and not SIG_IGN, which child processes would inherit.
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)


def ignore() -> None:
    """Ignore signals from now on: everything is cleaned up, and the process is about to exit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def call_instead(act: Callable[[], object]) -> Iterator[None]:
    """
    Call `act` at each signal and raise nothing, so that no statement is left half done.

    Args:
        act: Runs between any two instructions of the main thread, which may hold any lock: it may
            put into a `queue.SimpleQueue`, but not set a `threading.Event`.
    """
    before = [signal.signal(number, lambda *_: act()) for number in SIGNALS]
    try:
        yield
    finally:
        for number, earlier in zip(SIGNALS, before, strict=True):
            signal.signal(number, earlier)
