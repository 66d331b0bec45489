"""
Refuses database URLs that would show a password.

SQLAlchemy hides a password where it finds one: between the first `:` and the `@`. A special character
that is not percent-encoded moves a part of the password into the host, the database name or the query.
There `repr(engine)`, error texts and traces show it.
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
    "Special characters of the user and the password have to be percent-encoded, for example @ as %40 "
    "and / as %2F; so has an @ anywhere else. sqlalchemy.URL.create() does it."
)
# Parameters whose value is a secret. `passfile` names a file.
_SECRET_NAME = re.compile(r"pass(?!file)|pwd|secret|token|scram_(client|server)_key", re.IGNORECASE)


def check_url(url: str | URL) -> None:
    """
    Refuse a URL that would show a password, or a part of one, when it is printed.

    Raises:
        InvalidSettings: The URL is such a one, or cannot be parsed. The text shows nothing of it.
    """
    parts = _parse(url)
    if parts is None:
        raise InvalidSettings(
            f"The url cannot be parsed (not shown, it may hold a password). {_EXAMPLE} {_ENCODE}"
        )
    names = list(parts.query)
    if isinstance(url, str):
        _check_text(url, has_user=parts.username is not None)
        # SQLAlchemy drops a parameter without a value, as of ?password=&rest-of-the-password.
        names += [unquote_plus(name) for name in re.findall(r"[?&]([^=&]*)", url)]
    hosts = [parts.host or "", *_values_of(parts, "host")]
    # A host that begins with @ is an abstract Unix socket.
    if any("@" in host[1:] for host in hosts) or "@" in (parts.host or "") + (parts.database or ""):
        raise InvalidSettings(
            f"The url has an @ in its host or its database name (not shown). {_ENCODE}"
        )
    # lambdadb_secret is the name of a secret in AWS Secrets Manager.
    if any(_SECRET_NAME.search(name) for name in names if name != "lambdadb_secret"):
        raise InvalidSettings(
            "The url has a password in its query (not shown), where repr(engine) would show it. Write "
            f"it before the host, or as connect_args={{...}}. {_EXAMPLE}"
        )


def _parse(url: str | URL) -> URL | None:
    """The parsed URL; None for an error, whose text shows the URL and which nobody must keep."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError, TypeError):
        return None


def _check_text(url: str, *, has_user: bool) -> None:
    """
    Refuse an `@` that does not end the user and the password.

    SQLAlchemy takes what is before the first `@` as user and password, if no `/` comes before the first
    `:`. A second `@` may be of a password, and then the rest of that password is taken as the host.
    """
    found = url.replace("host=@", "").count("@")
    if found > 1:
        raise InvalidSettings(f"The url has two @ (not shown, it may hold a password). {_ENCODE}")
    if found and not has_user:
        raise InvalidSettings(
            f"The url has an @ that ends no user and password (not shown, it may hold one). {_ENCODE}"
        )


def _values_of(url: URL, name: str) -> tuple[str, ...]:
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else tuple(value)
