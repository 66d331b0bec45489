"""The emulated Data API over one PostgreSQL."""

from __future__ import annotations

import pytest

from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api import DataApi
from lambdadb.lab.postgres import Postgres

SECRET_KEY = "canary-data-api-secret-key"


@pytest.fixture(scope="package")
def server():
    """A PostgreSQL for all tests of this package."""
    with Postgres(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def api(server):
    """The API, new for each test."""
    with DataApi(server, clock=LabClock(), secret_key=SECRET_KEY) as api:
        yield api
