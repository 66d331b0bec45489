"""Which PostgreSQL the database tests use, and what of it is reported."""

from __future__ import annotations

import logging
import os

import pytest

# A property that fails prints the example; its speed on a shared machine says nothing.
from hypothesis import settings

settings.register_profile("lambdadb", deadline=None, print_blob=True)
settings.load_profile("lambdadb")


def pytest_addoption(parser):
    parser.addoption(
        "--postgres",
        choices=["embedded", "container"],
        default="embedded",
        help="the embedded PostgreSQL of the lab, or a container of LAMBDADB_POSTGRES_IMAGE",
    )


@pytest.fixture(autouse=True)
def outside_lambda(monkeypatch):
    """No variable of the machine decides what a test sees."""
    for name in [name for name in os.environ if name.startswith(("AWS_LAMBDA_", "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def log(caplog):
    """Everything that is logged, at every level."""
    caplog.set_level(logging.DEBUG)
    return caplog
