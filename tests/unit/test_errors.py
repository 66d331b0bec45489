"""The errors as values."""

from __future__ import annotations

import pickle

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

import lambdadb
from lambdadb import ConnectFailed, DatabaseResuming, Fault, LambdaDBError

ERRORS = [v for v in vars(lambdadb).values() if isinstance(v, type) and issubclass(v, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_existing_except_clauses_still_catch_them(error):
    """Every error is a SQLAlchemyError; failed connects are OperationalErrors too."""
    assert issubclass(error, LambdaDBError)
    assert issubclass(error, SQLAlchemyError)
    assert issubclass(error, OperationalError) is issubclass(error, ConnectFailed)


def resuming():
    return DatabaseResuming(
        "still waking up",
        fault=Fault.RESUMING,
        waited=3.5,
        attempts=7,
        orig=psycopg.OperationalError("refused"),
        retry_after=12,
    )


def test_it_tells_what_a_handler_needs():
    """An error reads as its message, and carries the driver's error as SQLAlchemy's do."""
    error = resuming()
    assert str(error) == "still waking up"
    assert isinstance(error, DBAPIError)
    assert isinstance(error.orig, psycopg.OperationalError)
    assert not error.connection_invalidated
    assert error.safe_to_repeat


def test_it_survives_a_pickle():
    """An error can cross a process boundary with all that it tells."""
    copy = pickle.loads(pickle.dumps(resuming()))
    assert type(copy) is DatabaseResuming
    assert (str(copy), copy.fault, copy.waited, copy.attempts, copy.retry_after) == (
        "still waking up",
        Fault.RESUMING,
        3.5,
        7,
        12,
    )
