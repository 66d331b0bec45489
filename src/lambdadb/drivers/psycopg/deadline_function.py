"""
The function in the database that limits the time of a transaction (`deadline_function=`).

It is called with BEGIN, and calls `set_config(..., true)`: the limit ends with the transaction. The
server keeps it also if the client is killed or frozen, or if a proxy passes no cancel on. RDS Proxy does
not see what a function sets, so it pins nothing (RDS User Guide, "Avoiding pinning an RDS Proxy").

A statement's timer starts with the statement. PostgreSQL 13 and later time each statement of a text, and
each message of a pipeline, on its own, so the limit holds for the statement right after the call.
"""

from __future__ import annotations

import math

import psycopg

from lambdadb.deadline import StatementDeadline
from lambdadb.errors import InvalidSettings

_LONGEST = 2**31 - 1  # milliseconds: PostgreSQL's integer
# undefined_function, ambiguous_function, insufficient_privilege, invalid_schema_name
_NOT_CALLABLE = frozenset({"42883", "42725", "42501", "3F000"})


def make_call(deadline: StatementDeadline) -> bytes:
    """
    Return the statement that limits the transaction which begins now; empty if nothing does.

    The limit is the moment at which this side closes a connection that did not answer. So this side is
    always the first to act, and its caller gets `OutOfTime` and not the server's error.
    """
    if deadline.function is None or (latest := deadline.invocations.latest_deadline) is None:
        return b""
    left = math.ceil((latest.at - deadline.reserve / 2 - deadline.clock.now()) * 1000)
    return f"SELECT {deadline.function}({min(max(left, 1), _LONGEST)})".encode()  # 0 is no limit


def explain_refusal(error: psycopg.Error, function: str | None) -> InvalidSettings | None:
    """Return what to do if the server cannot call the function; None for any other error."""
    if function is None or error.sqlstate not in _NOT_CALLABLE:
        return None
    said = error.diag.message_primary or ""
    if not any(name.lower() in said.lower() for name in function.split(".")):
        return None
    return InvalidSettings(
        f"deadline_function={function!r}: the server cannot call it ({said}). Nothing of the "
        f"transaction was executed. Create it: `lambdadb deadline --name {function} | psql URL`. "
        "The role needs EXECUTE on it and USAGE on its schema."
    )
