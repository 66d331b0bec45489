"""Handlers of synchronous functions, with Core and the ORM."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from typing_extensions import assert_type

import lambdadb
from lambdadb import (
    CommitInDoubt,
    ConnectFailed,
    ConnectionInUse,
    DatabaseResuming,
    Fault,
    InvalidSettings,
    InvocationEnded,
    LambdaDBError,
    OutOfTime,
    PerEnvironment,
    PerInvocation,
    ResumeRetry,
    TransactionEnded,
    create_engine,
    handler,
    invocation,
    run_transaction,
    trace,
    transactional,
    wake,
)
from lambdadb.resume import DatabaseState

engine = create_engine(
    "postgresql+psycopg://app@host/orders",
    policy=PerEnvironment(connections=2, idle_session_timeout=None, ping_after=60),
    retry=ResumeRetry(timeout=25, hedge_after=0.6, max_backoff=0.5, reserve=1),
    tag="{name}/{version}",
    echo=True,
)
rare = create_engine("postgresql+psycopg://app@host/orders", policy=PerInvocation())
sessions = sessionmaker(engine)
handled = Table("handled", MetaData(), Column("message", Text, primary_key=True))
assert_type(engine, Engine)


class Base(DeclarativeBase):
    """Of the models."""


class Order(Base):
    """A model."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@handler(engine)
def store(event: dict[str, str], context: object) -> int:
    """A handler of one's own event type."""
    with Session(engine) as session, session.begin():
        order = Order(item=event["item"])
        session.add(order)
        session.flush()
        return order.id


@handler(engine, rare, on_resuming="503")
def store_over_http(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Two engines; while the database wakes up, status 503."""
    with invocation(engine, context), rare.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
    return {"statusCode": 200, "body": str(rows)}


def warm_up() -> int | None:
    """The state of a database that is being woken."""
    state = wake(engine, within=0.5)
    assert_type(state, DatabaseState)
    return None if state.awake else state.retry_after


def count(connection: Connection) -> int:
    """A unit of work on a connection."""
    total: int = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
    return total


def add(session: Session) -> Order:
    """A unit of work on a session of the ORM."""
    order = Order(item="tea")
    session.add(order)
    return order


@transactional(engine)
def cancel(connection: Connection, order: int, *, reason: str = "") -> bool:
    """A unit of work as a function of its own arguments."""
    statement = text("DELETE FROM orders WHERE id = :id")
    return connection.execute(statement, {"id": order}).rowcount == 1


@trace("render")
def render(order: Order) -> str:
    """A function with a span of its own."""
    with trace("inner"):
        return order.item


def results() -> None:
    """What a checker knows of the results."""
    assert_type(run_transaction(engine, count), int)
    assert_type(run_transaction(sessions, add), Order)
    assert_type(run_transaction(engine, count, idempotency_key=(handled.c.message, "m-1")), int)
    assert_type(run_transaction(sessions, add, idempotency_key=(Order.item, "m-1")), Order)
    assert_type(cancel(1), bool)
    assert_type(cancel(order=1, reason="late"), bool)
    assert_type(render(Order(item="tea")), str)
    assert_type(store({"item": "tea"}, None), int)


def failures() -> str:
    """What a checker knows of the errors."""
    try:
        run_transaction(engine, count)
    except DatabaseResuming as error:
        assert_type(error.retry_after, int)
    except ConnectFailed as error:
        assert_type(error.fault, Fault)
        assert_type(error.fault.can_pass, bool)
        assert_type(error.fault.remedy, str)
        assert_type(error.waited, float)
        assert_type(error.attempts, int)
        assert_type(error.retry_after, "int | None")
    except OutOfTime as error:
        assert_type(error.sent, bool)
    except CommitInDoubt as error:
        assert_type(error.safe_to_repeat, bool)
    except (ConnectionInUse, InvocationEnded, TransactionEnded, InvalidSettings) as error:
        return str(error)
    except LambdaDBError as error:
        return str(error.safe_to_repeat)
    return ", ".join(lambdadb.__all__)
