"""Rows of one tenant, chosen inside the transaction."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])
CHOOSE = text("SELECT set_config('app.tenant', :tenant, true)")  # true: for this transaction only
TOTAL = text("SELECT coalesce(sum(amount), 0) FROM invoice")


@contextmanager
def transaction_of(tenant: str) -> Iterator[Connection]:
    """A transaction that sees the rows of one tenant."""
    with engine.begin() as connection:
        connection.execute(CHOOSE, {"tenant": tenant})
        yield connection


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> int:
    with transaction_of(event["tenant"]) as connection:
        return int(connection.execute(TOTAL).scalar_one())
