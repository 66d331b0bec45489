"""
What a trace may show: SQL without literals, errors without the server's text, short attribute names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lambdadb.errors import LambdaDBError

SHOWN = 2_000
"""Characters of a statement that are shown at most."""

# Characters of a statement that are read. A cut inside a literal is safe: the rest of it is masked.
_READ = 50_000

_IDENTIFIER = r"[A-Za-z_\x80-\U0010FFFF][A-Za-z0-9_$\x80-\U0010FFFF]*"

# PostgreSQL's lexical rules ("Lexical Structure" in its documentation). The first alternative that
# matches wins. No two parts of a repetition match the same text, so the time is linear in the length.
_TOKEN = rf"""
      (?P<blank> [ \t\n\r\f\v]+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | (?P<literal>
          [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*(?:'|\\?\Z)
          # Whether \' ends a plain string is a setting of the session: what follows it is masked.
        | (?:[uU]&|[bBxXnN])?'[^'\\]*(?:(?:\\[^']|'')[^'\\]*)*(?:'|.*\Z)
        | \$(?P<tag>(?:[A-Za-z_\x80-\U0010FFFF][A-Za-z0-9_\x80-\U0010FFFF]*)?)\$.*?(?:\$(?P=tag)\$|\Z)
        | \.?[0-9](?:[eE][+-](?=[0-9])|[0-9A-Za-z_.])*
      )
    | (?P<identifier> (?:[uU]&)?"[^"]*(?:""[^"]*)*" | {_IDENTIFIER} | \$[0-9]+ )
    | (?P<unended> ".* )
    | (?P<other> . )
"""
_COMMENT = re.compile(r"/\*|\*/")

# MySQL's rules where they differ ("Language Structure"): "…" is a string, `…` a name, # a comment.
_MYSQL_QUOTED = r"""
      '(?:[^'\\]|\\.|'')*(?:'|\Z) | "(?:[^"\\]|\\.|"")*(?:"|\Z)
    | (?P<name> `(?:[^`]|``)*(?:`|\Z) )
    | \#[^\n]* | --\s[^\n]* | /\*.*?(?:\*/|\Z)
"""


def sanitize(sql: str) -> str:
    """
    The statement on one line, with `?` for each literal and without comments, cut to `SHOWN`.

    Placeholders and names stay, quoted names too. What may be a literal, such as everything after a
    quote that is not closed, is masked.
    """
    return _mask_literals(sql[: _READ + 1])


@lru_cache(maxsize=128)
def sanitize_mysql(sql: str) -> str:
    """
    `sanitize` by the rules of MySQL and MariaDB, where a text in double quotes is a literal.

    Whether a backslash escapes a quote is a setting of the session, so what follows one is left out.
    """
    sql = sql[: _READ + 1]
    if escaped := re.search(r"\\['\"]", sql):
        sql = sql[: escaped.start()]
    return sanitize(re.sub(_MYSQL_QUOTED, _mask_mysql_token, sql, flags=re.X | re.S))


def _mask_mysql_token(token: re.Match[str]) -> str:
    return token["name"] or ("?" if token[0][0] in "'\"" else " ")


# Cached: a function sends the same few statements again and again.
@lru_cache(maxsize=128)
def _mask_literals(sql: str) -> str:
    tokens = re.compile(_TOKEN, re.X | re.S)  # not at import: it takes milliseconds
    shown: list[str] = []
    length = at = 0
    end = min(len(sql), _READ)
    while at < end and length <= SHOWN:
        token = tokens.match(sql, at, end)
        assert token is not None  # "other" matches any character
        at = token.end()
        match token.lastgroup:
            case "blank":
                text = " "
            case "comment":
                text, at = " ", _find_comment_end(sql, at, end)
            case "literal" | "unended":
                text = "?"
            case _:
                text = token[0]
        if text != " " or shown[-1:] not in ([], [" "]):
            shown.append(text)
            length += len(text)
    text = "".join(shown).rstrip()
    if at < len(sql) or len(text) > SHOWN:
        return text[: SHOWN - 1] + "…"
    return text


def _find_comment_end(sql: str, at: int, end: int) -> int:
    """The position after the comment that begins before `at`; comments may be nested."""
    depth = 1
    while depth and (mark := _COMMENT.search(sql, at, end)):
        depth += 1 if mark[0] == "/*" else -1
        at = mark.end()
    return end if depth else at


def get_message(error: BaseException) -> str:
    """
    The error's message if it is one of lambdadb's errors, which hold no secret; otherwise empty.

    The messages of PostgreSQL and SQLAlchemy quote values: `Key (email)=(...) already exists`. Those of
    a handler may.
    """
    return str(error)[:SHOWN] if isinstance(error, LambdaDBError) else ""


_SHORT = {
    "db.namespace": "database",
    "db.operation.batch.size": "batch",
    "db.operation.name": "operation",
    "db.query.text": "query",
    "db.response.status_code": "status_code",
    "db.system.name": "system",
    "error.type": "error",
    "faas.coldstart": "cold_start",
    "faas.name": "function",
    "lambdadb.server_version": "version",
    "server.address": "host",
    "server.port": "port",
}


def shorten_names(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with short names, of letters, digits and underscores."""
    return {_shorten(name): value for name, value in attributes.items()}


@lru_cache(maxsize=128)
def _shorten(name: str) -> str:
    return _SHORT.get(name) or re.sub("[^A-Za-z0-9_]", "_", name.removeprefix("lambdadb."))
