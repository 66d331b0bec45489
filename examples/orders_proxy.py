"""Store an order through an RDS Proxy, and list orders from the readers."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.readers import create_reader_engine

engine = create_engine(os.environ["DATABASE_URL"], proxy="rds-proxy")
readers = create_reader_engine(engine, os.environ["READER_HOST"])
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
LATEST = text("SELECT item FROM orders ORDER BY id DESC LIMIT 10")


@handler(engine, readers)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, object]:
    if "item" not in event:
        with readers.connect() as connection:
            return {"items": connection.execute(LATEST).scalars().all()}
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
