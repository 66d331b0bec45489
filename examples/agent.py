"""A store of one's own, asynchronous: logins from an agent beside the function."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping

from sqlalchemy import text

from lambdadb import handler
from lambdadb.aio import create_async_engine
from lambdadb.credentials import Login


class Agent:
    async def logins(self, parameters: Mapping[str, object]) -> AsyncIterator[Login]:
        for question in ("cached", "fresh"):
            reader, writer = await asyncio.open_connection("localhost", int(os.environ["AGENT_PORT"]))
            writer.write(f"{question} orders\n".encode())
            answer = await reader.readline()
            writer.close()
            yield json.loads(answer)


engine = create_async_engine(os.environ["DATABASE_URL"], credentials=Agent())


@handler(engine)
async def lambda_handler(event: object, context: object) -> object:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT current_user"))
