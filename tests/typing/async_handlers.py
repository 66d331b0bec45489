"""Handlers of asynchronous functions, with Core and the ORM."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from typing_extensions import assert_type

from lambdadb import handler, invocation, trace
from lambdadb.aio import create_async_engine, run_transaction, transactional, wake

engine = create_async_engine("postgresql+psycopg://app@host/orders")
sessions = async_sessionmaker(engine)
assert_type(engine, AsyncEngine)


@handler(engine)
async def store(event: dict[str, str], context: object) -> int:
    """A coroutine function becomes a handler that Lambda can call."""
    async with engine.begin() as connection:
        stored: int = (await connection.execute(text("SELECT 1"), event)).scalar_one()
        return stored


async def count(connection: AsyncConnection) -> int:
    """A unit of work on a connection."""
    total: int = (await connection.execute(text("SELECT 1"))).scalar_one()
    return total


async def count_by_session(session: AsyncSession) -> str:
    """A unit of work on a session of the ORM."""
    return str(await session.scalar(text("SELECT 1")))


@transactional(engine)
async def cancel(connection: AsyncConnection, order: int, *, reason: str = "") -> bool:
    """A unit of work as a function of its own arguments."""
    return (await connection.execute(text("SELECT 1"), {"id": order})).rowcount == 1


@trace("render")
async def render(order: int) -> str:
    """A coroutine function with a span of its own."""
    return str(order)


async def results(context: object) -> None:
    """What a checker knows of the results."""
    async with invocation(engine, context):
        assert_type(await run_transaction(engine, count), int)
        assert_type(await run_transaction(sessions, count_by_session), str)
        assert_type(await cancel(1, reason="late"), bool)
        assert_type(await render(1), str)
        assert_type((await wake(engine)).awake, bool)
