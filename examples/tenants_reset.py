"""A session that is cleared before each invocation uses it."""

import os
from typing import Any

from sqlalchemy import text

from lambdadb import PerEnvironment, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerEnvironment(reset="session"))


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> str:
    with engine.begin() as connection:
        before = connection.execute(text("SHOW search_path")).scalar_one()
        connection.execute(text("SET search_path = pg_catalog"))
        return str(before)
