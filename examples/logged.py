"""Store an order; each connect, and each statement of 100 ms and more, is a line in the log."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing.json_log import JsonLog

engine = create_engine(os.environ["DATABASE_URL"], tracer=JsonLog(0.1))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
