"""Pay into an account on an event loop, repeated after a conflict or a lost connection."""

import os
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lambdadb import handler
from lambdadb.aio import create_async_engine, run_transaction

engine = create_async_engine(os.environ["DATABASE_URL"])
ADD = text("UPDATE account SET balance = balance + :amount WHERE name = :name RETURNING balance")


@handler(engine)
async def lambda_handler(event: dict[str, Any], context: object) -> int:
    async def work(connection: AsyncConnection) -> int:
        balance: int = (await connection.execute(ADD, event)).scalar_one()
        return balance

    return await run_transaction(engine, work)
