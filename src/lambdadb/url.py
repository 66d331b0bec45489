"""
Refuse database URLs that would show a password.

SQLAlchemy hides the text between the first `:` and the `@`. If the password has a special character that
is not percent-encoded, a part of it is parsed as the host, the database name or the query. Then
`repr(engine)`, error texts and traces would show it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lambdadb.errors import InvalidSettings

_EXAMPLE = "Use driver://user:password@host:port/database."
_ENCODE = (
    "Percent-encode special characters of the user and the password, for example @ as %40 and / as %2F, "
    "and every @ elsewhere. sqlalchemy.URL.create() does it."
)
# Parameters whose value is a secret. `passfile` names a file.
_SECRET_NAME = re.compile(r"pass(?!file)|pwd|secret|token|scram_(client|server)_key", re.IGNORECASE)

# Their values name a secret in AWS Secrets Manager.
_NAMES_OF_SECRETS = ("lambdadb_secret", "secret_arn")


def check_url(url: str | URL) -> None:
    """
    Refuse a URL that would show a password, or a part of one, when it is printed.

    Raises:
        InvalidSettings: The URL would show a password, or cannot be parsed. The text does not show it.
    """
    parts = _parse(url)
    if parts is None:
        raise InvalidSettings(
            f"The url cannot be parsed (not shown, it may hold a password). {_EXAMPLE} {_ENCODE}"
        )
    names = list(parts.query)
    if isinstance(url, str):
        _check_text(url, has_user=parts.username is not None)
        # SQLAlchemy drops a parameter without a value, such as ?password=&rest-of-the-password.
        names += [unquote_plus(name) for name in re.findall(r"[?&]([^=&]*)", url)]
    hosts = [parts.host or "", *_get_values(parts, "host")]
    # A host that begins with @ is an abstract Unix socket.
    if any("@" in host[1:] for host in hosts) or "@" in (parts.host or "") + (parts.database or ""):
        raise InvalidSettings(
            f"The url has an @ in its host or its database name (not shown). {_ENCODE}"
        )
    if any(_SECRET_NAME.search(name) for name in names if name not in _NAMES_OF_SECRETS):
        raise InvalidSettings(
            "The url has a password in its query (not shown), where repr(engine) would show it. Write "
            f"it before the host, or as connect_args={{...}}. {_EXAMPLE}"
        )


def _parse(url: str | URL) -> URL | None:
    """Parse the URL. None if that fails: the error is dropped, because its text shows the URL."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError, TypeError):
        return None


def _check_text(url: str, *, has_user: bool) -> None:
    """
    Refuse an `@` that does not end the user and the password.

    SQLAlchemy parses the text before the first `@` as user and password, if no `/` comes before the
    first `:`. A second `@` may belong to the password, whose rest would then be parsed as the host.
    """
    found = url.replace("host=@", "").count("@")
    if found > 1:
        raise InvalidSettings(f"The url has two @ (not shown, it may hold a password). {_ENCODE}")
    if found and not has_user:
        raise InvalidSettings(
            f"The url has an @ that ends no user and password (not shown, it may hold one). {_ENCODE}"
        )


def _get_values(url: URL, name: str) -> tuple[str, ...]:
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else tuple(value)
