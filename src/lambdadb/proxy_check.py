"""
`proxy_check=True`: a development run names the statements that would pin a client of RDS Proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

from lambdadb.checkout import describe_code, find_user_code

logger = logging.getLogger("lambdadb")

# Characters of a statement in the log.
_SHOWN = 80

FindPin = Callable[[str], "tuple[str, str] | None"]


def check_statements(engine: Engine, find_pin: FindPin) -> None:
    """
    Log one WARNING for each place in the user's code that sends a pinning statement.

    Args:
        find_pin: Takes a statement, and returns what pins and what to do instead.
    """
    seen: set[tuple[str, str]] = set()

    def check(
        _connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        streams = context is not None and context.execution_options.get("stream_results")
        found = find_pin(f"DECLARE c CURSOR FOR {statement}" if streams else statement)
        if found is None:
            return
        where = describe_code(*find_user_code())
        if (where, found[0]) not in seen:
            seen.add((where, found[0]))
            logger.warning(
                "%s pins a client of RDS Proxy by %s: %s. Instead, %s.",
                where,
                found[0],
                _show(statement),
                found[1],
            )

    event.listen(engine, "before_cursor_execute", check)


def _show(statement: str) -> str:
    from lambdadb.tracing.sanitize import sanitize

    text = sanitize(statement)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
