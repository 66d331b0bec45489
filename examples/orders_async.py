"""Store an order and return its id, on an event loop."""

import os

from sqlalchemy import text

from lambdadb import PerInvocation, handler
from lambdadb.aio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], policy=PerInvocation())
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
async def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    async with engine.begin() as connection:
        return {"id": (await connection.execute(INSERT, {"item": event["item"]})).scalar_one()}
