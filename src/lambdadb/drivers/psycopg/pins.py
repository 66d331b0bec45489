"""
Statements that pin a client to one session of an RDS Proxy, by AWS's documentation.

A pinned client keeps its session of the server until it disconnects, so that the proxy has one less to
share. The rules are those of the Aurora User Guide, "Avoiding pinning an RDS Proxy", for PostgreSQL.
They are rules about texts: what a function does that a statement calls is not seen, by the proxy either.
"""

from __future__ import annotations

import re

LARGEST_STATEMENT = 16 * 1024
"""Bytes of a statement above which the proxy pins its client."""

# What may contain any word: comments, literals and quoted names. The case does not matter.
_MASKED = re.compile(
    r"--[^\n]*|/\*.*?\*/|\be'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|\"(?:[^\"]|\"\")*\"",
    re.S | re.I,
)
_RULES = tuple(
    (re.compile(pattern, re.I), name, advice)
    for pattern, name, advice in (
        # SET LOCAL pins for its transaction only (AWS's agent toolkit, 2026); SET TRANSACTION is taken
        # for the same, which no source says.
        (
            r"(?:^|;)\s*(?:RE)?SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)",
            "SET",
            "use SET LOCAL, ALTER ROLE ... SET, or the proxy's initialization query",
        ),
        (
            r"\bset_config\s*\(",
            "set_config()",
            "use SET LOCAL, ALTER ROLE ... SET, or the proxy's initialization query",
        ),
        (
            r"(?:^|;)\s*(?:PREPARE\s+(?!TRANSACTION\b)|EXECUTE\b|DEALLOCATE\b)",
            "PREPARE",
            "send the statement itself",
        ),
        (r"(?:^|;)\s*DISCARD\b", "DISCARD", "leave sessions to the proxy"),
        (
            r"(?:^|;)\s*DECLARE\b",
            "DECLARE CURSOR",
            "read without stream_results and yield_per, in pages by key",
        ),
        (r"(?:^|;)\s*LISTEN\b", "LISTEN", "connect to the cluster itself"),
        (r"(?:^|;)\s*LOAD\b", "LOAD", "use shared_preload_libraries"),
        (
            r"\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\b|\bINTO\s+TEMP(?:ORARY)?\b",
            "a temporary table, view or sequence",
            "use a CTE, or an ordinary table",
        ),
        (
            r"\b(?:nextval|setval)\s*\(",
            "nextval() or setval()",
            "use an identity column, whose default the proxy does not see",
        ),
        (
            r"\bpg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?\s*\(",
            "a session's advisory lock",
            "use pg_advisory_xact_lock(), which ends with its transaction",
        ),
    )
)


def find_pin(statement: str | bytes) -> tuple[str, str] | None:
    """
    Return what pins a client that sends a statement, and what to do instead; None if nothing does.

    **Costs:** no round trip; some microseconds.
    """
    raw = statement.encode() if isinstance(statement, str) else statement
    if len(raw) > LARGEST_STATEMENT:
        size = f"{len(raw):,} bytes, more than {LARGEST_STATEMENT:,}"
        return size, "send large values as parameters, or fewer rows in one statement"
    text = _MASKED.sub(" ", raw.decode(errors="replace"))
    return next(((name, advice) for rule, name, advice in _RULES if rule.search(text)), None)
