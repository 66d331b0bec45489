"""The lab: real servers, emulated clusters and execution environments, for tests and the benchmark.

Nothing of `lambdadb` imports it, so a function never pays for it.
"""

from __future__ import annotations


class LabError(Exception):
    """Something in the lab could not be started, or did not behave; the message says what to do."""
