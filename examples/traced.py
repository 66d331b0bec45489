"""Store an order; the connect and the statements of one function are in the X-Ray trace."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler, trace
from lambdadb.tracing.xray import XRay

engine = create_engine(os.environ["DATABASE_URL"], tracer=XRay("traced"))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
COUNT = text("SELECT count(*) FROM orders")


@trace("store_order")
def store(item: str) -> int:
    with engine.begin() as connection:
        order: int = connection.execute(INSERT, {"item": item}).scalar_one()
    return order


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    order = store(event["item"])
    with engine.connect() as connection:  # not inside a block: not in the trace
        return {"id": order, "orders": connection.execute(COUNT).scalar_one()}
