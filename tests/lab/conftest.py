"""One PostgreSQL for all lab tests that only need some server."""

from __future__ import annotations

import pytest

from lambdadb.lab.postgres import Postgres


@pytest.fixture(scope="session")
def postgres(postgres_server: Postgres) -> Postgres:
    """The plugin's server. Tests share it: they neither stop it nor change its settings."""
    return postgres_server
