"""What holds for every test: where it runs, and that it shows no secret."""

from __future__ import annotations

import logging
import os

import pytest

# A property that fails prints the example; its speed on a shared machine says nothing.
from hypothesis import settings

from lambdadb import LambdaDBError

from . import leaks

pytest_plugins = ["pytester"]

settings.register_profile("lambdadb", deadline=None, print_blob=True)
settings.load_profile("lambdadb")


def pytest_addoption(parser):
    parser.addoption(
        "--proxy",
        choices=["pgbouncer", "rds-proxy"],
        help="tests/database reaches the embedded PostgreSQL through pgbouncer's transaction pooling "
        "or through the emulated RDS Proxy",
    )


@pytest.fixture(autouse=True)
def outside_lambda(monkeypatch):
    """No variable of the machine decides what a test sees."""
    for name in [name for name in os.environ if name.startswith(("AWS_LAMBDA_", "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def search(request, monkeypatch):
    """Fails the test that shows a secret: in a log record, an error, a report, or what it adds."""
    search = leaks.Search()
    directory = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    monkeypatch.setattr(LambdaDBError, "__new__", leaks.recording(search.errors))
    root, ours = logging.getLogger(), logging.getLogger("lambdadb")
    level = ours.level
    root.addHandler(search)
    ours.setLevel(logging.INFO)
    yield search
    root.removeHandler(search)
    ours.setLevel(level)
    if directory is not None:
        search.add_files(directory)
    found = search.found()
    for error in search.errors:
        error.__traceback__ = None  # whose frames would keep connections alive into other tests
    search.errors.clear()
    assert not found


@pytest.fixture
def log(caplog):
    """Everything that is logged, at every level."""
    caplog.set_level(logging.DEBUG)
    return caplog
