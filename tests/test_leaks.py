"""The search for secrets that runs with every test finds one wherever it is shown."""

from __future__ import annotations

import logging

import psycopg
import pytest

from lambdadb import ConnectFailed, Fault

from .leaks import Search

SECRET = "canary-0planted"


@pytest.fixture(autouse=True)
def search():
    """Instead of the search of every test: these plant secrets."""
    return Search()


def failed(message="No connection", orig=None):
    orig = orig or psycopg.OperationalError("refused")
    return ConnectFailed(message, fault=Fault.CREDENTIALS, waited=0.0, attempts=1, orig=orig)


def chained(error, cause):
    error.__cause__ = cause
    return error


def with_connection():
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(f"host=127.0.0.1 port=1 user=app password={SECRET}")
    return chained(failed(), caught.value)


@pytest.mark.parametrize(
    "error",
    [
        lambda: failed(f"password={SECRET}"),
        lambda: failed(orig=psycopg.OperationalError(SECRET)),
        lambda: chained(failed(), ValueError({"password": SECRET})),
        lambda: chained(failed(), chained(ValueError(), KeyError(SECRET))),
        with_connection,
    ],
)
def test_a_secret_in_an_error_is_found(error, search):
    """In its text, in the driver's error, in those behind it, and in the connection they carry."""
    search.errors.append(error())
    assert search.found()


def test_a_secret_in_a_log_record_is_found(search):
    """In its arguments and in its traceback."""
    logger = logging.Logger("lambdadb")
    logger.addHandler(search)
    logger.info("login %r", {"password": SECRET})
    assert search.found()


def test_a_secret_in_a_report_is_found(search, tmp_path):
    """In any file of text in the test's directory."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "report.html").write_text(f"<td>{SECRET}</td>")
    search.add_files(tmp_path)
    assert search.found()


def test_what_holds_no_secret_passes(search):
    """An error with its chain, a record and nothing else."""
    search.errors.append(chained(failed(), ValueError("fine")))
    search.add("a log record", "lambdadb connected")
    assert not search.found()
