"""One PostgreSQL for all lab tests that only need some server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lambdadb.lab.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server that tests share: they neither stop it nor change its settings."""
    with Postgres() as server:
        yield server
