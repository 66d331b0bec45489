"""
What a statement does, as far as its first word shows it.
"""

from __future__ import annotations

import re

_BEFORE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
# What begins or ends a transaction. The API has calls for it, and does not notice such statements.
_ENDS = re.compile(
    _BEFORE + r"(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION"
    r"|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_TO_SAVEPOINT = re.compile(
    _BEFORE + r"ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b", re.IGNORECASE | re.DOTALL
)
_SELECTS = re.compile(_BEFORE + r"(?:SELECT|SHOW|TABLE|VALUES)\b", re.IGNORECASE | re.DOTALL)


def ends_transaction(sql: str) -> bool:
    """Whether it begins or ends a transaction."""
    return _ENDS.match(sql) is not None


def returns_to_savepoint(sql: str) -> bool:
    """Whether it is ROLLBACK TO a savepoint."""
    return _TO_SAVEPOINT.match(sql) is not None


def selects(sql: str) -> bool:
    """Whether it only reads, unless a function in it writes. False for WITH, which may begin both."""
    return _SELECTS.match(sql) is not None
