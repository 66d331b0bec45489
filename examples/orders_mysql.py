"""Store an order in Aurora MySQL and return its id."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])  # mysql+pymysql://HOST/DATABASE
INSERT = text("INSERT INTO orders (item) VALUES (:item)")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).lastrowid}
