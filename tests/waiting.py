"""A wait for what becomes so a moment later, such as the end of a session on a server."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], seconds: float = 30.0, *, pause: float = 0.01) -> None:
    """Wait until something is so; fails the test if it is not, a long time later."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became so"
        time.sleep(pause)
