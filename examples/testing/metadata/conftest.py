"""The tests' databases get their tables from SQLAlchemy's metadata."""

from collections.abc import Callable

import pytest
from models import metadata
from sqlalchemy import create_engine


@pytest.fixture(scope="session")
def postgres_schema() -> Callable[[str], None]:
    """Make the tables of the models in an empty database."""

    def create(url: str) -> None:
        engine = create_engine(url)
        metadata.create_all(engine)
        engine.dispose()

    return create
