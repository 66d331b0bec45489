"""
lambdadb's errors for statements that were ended, in the same words for every driver.
"""

from __future__ import annotations

from lambdadb.errors import InvocationEnded, OutOfTime


def make_out_of_time(text: str, *, sent: bool) -> OutOfTime:
    """Return the error for a statement that outlived the invocation's time."""
    return OutOfTime(
        f"Time was over, that of the invocation less its reserve, or that of a connect: {text}. Unless "
        "it was a COMMIT, or in autocommit, it has no effect. Raise the function's timeout, or do less "
        "in one invocation.",
        sent=sent,
    )


def make_invocation_ended() -> InvocationEnded:
    """Return the error for a session that outlived its invocation."""
    return InvocationEnded(
        "The invocation in which this session began has ended: its transaction was rolled back and its "
        "connection closed. Open sessions inside the handler, in a `with` block; roll this one back, or "
        "close it, before it is used again."
    )
