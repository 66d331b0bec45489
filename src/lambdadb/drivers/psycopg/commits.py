"""
Texts that may commit, or go on outside of the transaction in which they are sent.

Comments, literals and quoted names may contain any word, and are left out. Where that is not certain, a
word counts wherever it stands: in a text with a backslash, whose meaning depends on the session, or with
a comment inside a comment.
"""

from __future__ import annotations

import re
from itertools import zip_longest

# `re` compiles these at their first use and keeps them. An import of this module stays cheap.
# Without one of these words a text neither commits nor ends its transaction.
_WORDS = rb"(?i)\b(?:COMMIT|END|EXECUTE|PREPARE|ROLLBACK|ABORT)\b"
# Names are found first, because a dollar in a name begins no literal. Bytes above 127 belong to names.
_TOKENS = rb"""(?xs)
      (?P<name>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)
    | --[^\n\r]*
    | /\*(?:(?!/\*|\*/).)*\*/
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?)\$.*?\$(?P=tag)\$
"""
_COMMITS = rb"(?i)(?:COMMIT|END|PREPARE\b[^;]*\bTRANSACTION)\b"
_EXECUTES = rb"(?i)EXECUTE\b"
_ROLLS_BACK = rb"(?i)(?:ROLLBACK|ABORT)\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
_CHAINS = rb"(?i)\w+\s+(?:(?:WORK|TRANSACTION)\s+)?AND\s+CHAIN\b"
_BEGINS = rb"(?i)(?:BEGIN|START)\b"


def may_commit(text: bytes) -> bool:
    """Whether a text ends a transaction well, alone or among other statements, or in a prepared one."""
    return any(re.match(_COMMITS, end) or re.match(_EXECUTES, end) for end, _ in _find_ends(text))


def ends(text: bytes) -> bool:
    """Whether a text ends a transaction, well or not."""
    return any(re.match(_COMMITS, end) or re.match(_ROLLS_BACK, end) for end, _ in _find_ends(text))


def goes_on(text: bytes, *, failed: bool) -> bool:
    """
    Whether a text goes on after a ROLLBACK, outside of a transaction.

    The server commits what follows, by itself, at the end of the text (PostgreSQL, "Multiple Statements
    in a Simple Query"). In a transaction that has `failed`, COMMIT is a ROLLBACK.
    """
    return any(
        following
        and (re.match(_ROLLS_BACK, end) or (failed and re.match(_COMMITS, end)))
        and not re.match(_CHAINS, end)
        and not re.match(_BEGINS, following)
        for end, following in _find_ends(text)
    )


def _find_ends(text: bytes) -> list[tuple[bytes, bytes]]:
    """What may end a transaction, and the statement that follows in the text, or nothing."""
    if not re.search(_WORDS, text):
        return []
    bare = text if b"\\" in text else re.sub(_TOKENS, lambda found: found["name"] or b" ", text)
    is_certain = b"\\" not in text and b"/*" not in bare
    parts = [part.strip() for part in (bare if is_certain else text).split(b";")]
    parts = [part for part in parts if part]
    pairs = list(zip_longest(parts, parts[1:], fillvalue=b""))
    if is_certain:
        return pairs
    return [(part[word.start() :], after) for part, after in pairs for word in re.finditer(_WORDS, part)]
