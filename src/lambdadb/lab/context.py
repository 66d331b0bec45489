"""
Lambda's context object, where there is no Lambda.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:orders"


class LambdaContext:
    """
    The second argument of a handler, with the attributes that Lambda gives it.

    Args:
        seconds: How long the invocation may take, from now on.
        arn: The function's ARN; an alias or a version may be its last part.
        now: The clock, in seconds.

    Attributes:
        seconds_left: Seconds until Lambda ends the invocation. Set it at any time.
    """

    def __init__(
        self, seconds: float = 30.0, arn: str = ARN, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.invoked_function_arn = arn
        self.function_name = arn.split(":")[6]
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = "512"  # a string, as in AWS's runtime client
        self.aws_request_id = str(uuid.uuid4())
        self.log_group_name = f"/aws/lambda/{self.function_name}"
        self.log_stream_name = f"2026/01/01/[$LATEST]{uuid.uuid4().hex}"
        self.identity = None
        self.client_context = None
        self._now = now
        self.seconds_left = seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._ends - self._now())

    @seconds_left.setter
    def seconds_left(self, seconds: float) -> None:
        self._ends = self._now() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """As on Lambda: whole milliseconds, and 0 when time is over."""
        return round(self.seconds_left * 1000)
