"""Two sessions at once: notes that stay when the order is rolled back."""

import os
from typing import Any

from sqlalchemy import text

from lambdadb import PerEnvironment, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerEnvironment(connections=2))
NOTE = text("INSERT INTO audit (note) VALUES (:note)")
INSERT = text("INSERT INTO orders (item, quantity) VALUES (:item, :quantity)")


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> None:
    with engine.connect() as log, engine.begin() as connection:
        log = log.execution_options(isolation_level="AUTOCOMMIT")
        log.execute(NOTE, {"note": f"order of {event['item']}"})
        connection.execute(INSERT, event)
        if event["quantity"] < 1:
            log.execute(NOTE, {"note": "refused"})
            raise ValueError("quantity must be 1 or more")
