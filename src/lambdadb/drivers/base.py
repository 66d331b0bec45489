"""
What the rest of lambdadb needs of a driver.
"""

from __future__ import annotations

from lambdadb.faults import Fault


class AttemptFailed(Exception):
    """One attempt to connect failed (`fault`), or has not been answered so far (`silent`)."""

    def __init__(self, fault: Fault, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.fault = fault
        self.text = text
        self.silent = silent
