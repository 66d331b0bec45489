"""
What a DBAPI module has beside its connections: names and errors.
"""

from __future__ import annotations

__version__ = "2018-08-01"  # of the Data API

apilevel = "2.0"
threadsafety = 1
paramstyle = "named"
Binary = bytes


class Error(Exception):
    """The root of the errors."""

    sqlstate: str | None = None
    """The server's SQLSTATE, if it was the server's error."""
    number: int | None = None
    """MySQL's number of it."""


class Warning(Exception):
    """The DBAPI asks for it; it is never raised."""


class InterfaceError(Error):
    """The caller's mistake: a closed connection or cursor is used, or one by two threads."""


class DatabaseError(Error):
    """An error of the database."""


class DataError(DatabaseError):
    """A value cannot be stored."""


class OperationalError(DatabaseError):
    """What the caller is not to blame for."""


class IntegrityError(DatabaseError):
    """A constraint was violated."""


class InternalError(DatabaseError):
    """The transaction is in the wrong state, among others."""


class ProgrammingError(DatabaseError):
    """A mistake in the statement."""


class NotSupportedError(DatabaseError):
    """The server, or the Data API, has no such thing."""


class StatementTimeout(OperationalError):
    """A statement was not answered, or not sent, because its time was over."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class InDoubt(OperationalError):
    """A COMMIT, or a statement in autocommit that may write, got no answer."""


class InvocationClosed(OperationalError):
    """The invocation that opened the connection is over."""


class UnitEnded(OperationalError):
    """A unit of work continued after the end of its transaction, or tried to end it."""


_OPERATIONAL = "08 27 28 2F 38 39 3B 40 53 54 55 57 58 F0 HV HY"
_PROGRAMMING = "10 20 21 26 34 3D 3F 42 44 P0"
# By SQLSTATE class (PostgreSQL, Appendix A), as in psycopg. MySQL has HY for whatever has no other.
_CLASSES: dict[str, type[Error]] = {
    **dict.fromkeys(_OPERATIONAL.split(), OperationalError),
    **dict.fromkeys(_PROGRAMMING.split(), ProgrammingError),
    **dict.fromkeys(("24", "25", "2B", "2D", "XX"), InternalError),
    "22": DataError,
    "23": IntegrityError,
    "0A": NotSupportedError,
}


def error_class(state: str | None) -> type[Error]:
    """Return the class of the error with an SQLSTATE."""
    return _CLASSES.get((state or "")[:2], DatabaseError)
