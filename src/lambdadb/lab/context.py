"""
Lambda's context object, where there is no Lambda.
"""

from __future__ import annotations

import time
from collections.abc import Callable

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:orders"


class FakeContext:
    """
    What lambdadb reads of Lambda's context object, with the time left of an invocation that starts now.

    Args:
        seconds: How long the invocation may take.
        arn: The function's ARN; an alias or a version may be its last part.
        now: The clock, in seconds.
    """

    def __init__(
        self, seconds: float = 30.0, arn: str = ARN, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.invoked_function_arn = arn
        self._now = now
        self._ends = now() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """As on Lambda: whole milliseconds, and 0 when time is over."""
        return max(0, round((self._ends - self._now()) * 1000))
