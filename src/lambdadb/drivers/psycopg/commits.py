"""
Texts that may commit, or go on outside of the transaction in which they are sent.

Comments, literals and quoted names may contain any word, and are left out. Where that is not certain, a
word counts wherever it stands: in a text with a backslash, whose meaning depends on the session, or with
a comment inside a comment.
"""

from __future__ import annotations

import re
from itertools import zip_longest

# Without one of these words a text neither commits nor ends its transaction.
_WORDS = re.compile(rb"\b(?:COMMIT|END|EXECUTE|PREPARE|ROLLBACK|ABORT)\b", re.IGNORECASE)
# Names are found first, because a dollar in a name begins no literal. Bytes above 127 belong to names.
_TOKENS = re.compile(
    rb"""
      (?P<name>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)
    | --[^\n\r]*
    | /\*(?:(?!/\*|\*/).)*\*/
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?)\$.*?\$(?P=tag)\$
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMITS = re.compile(rb"(?:COMMIT|END|PREPARE\b[^;]*\bTRANSACTION)\b", re.IGNORECASE)
_EXECUTES = re.compile(rb"EXECUTE\b", re.IGNORECASE)
_ROLLS_BACK = re.compile(rb"(?:ROLLBACK|ABORT)\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)", re.IGNORECASE)
_CHAINS = re.compile(rb"\w+\s+(?:(?:WORK|TRANSACTION)\s+)?AND\s+CHAIN\b", re.IGNORECASE)
_BEGINS = re.compile(rb"(?:BEGIN|START)\b", re.IGNORECASE)


def may_commit(text: bytes) -> bool:
    """Whether a text ends a transaction well, alone or among other statements, or in a prepared one."""
    return any(_COMMITS.match(end) or _EXECUTES.match(end) for end, _ in _find_ends(text))


def ends(text: bytes) -> bool:
    """Whether a text ends a transaction, well or not."""
    return any(_COMMITS.match(end) or _ROLLS_BACK.match(end) for end, _ in _find_ends(text))


def goes_on(text: bytes, *, failed: bool) -> bool:
    """
    Whether a text goes on after a ROLLBACK, outside of a transaction.

    The server commits what follows, by itself, at the end of the text (PostgreSQL, "Multiple Statements
    in a Simple Query"). In a transaction that has `failed`, COMMIT is a ROLLBACK.
    """
    return any(
        following
        and (_ROLLS_BACK.match(end) or (failed and _COMMITS.match(end)))
        and not _CHAINS.match(end)
        and not _BEGINS.match(following)
        for end, following in _find_ends(text)
    )


def _find_ends(text: bytes) -> list[tuple[bytes, bytes]]:
    """What may end a transaction, and the statement that follows in the text, or nothing."""
    if not _WORDS.search(text):
        return []
    bare = text if b"\\" in text else _TOKENS.sub(lambda found: found["name"] or b" ", text)
    is_certain = b"\\" not in text and b"/*" not in bare
    parts = [part.strip() for part in (bare if is_certain else text).split(b";")]
    parts = [part for part in parts if part]
    pairs = list(zip_longest(parts, parts[1:], fillvalue=b""))
    if is_certain:
        return pairs
    return [(part[word.start() :], after) for part, after in pairs for word in _WORDS.finditer(part)]
