"""Move money between two accounts, repeated after a conflict or a lost connection."""

import os
from functools import partial
from typing import Any

from sqlalchemy import Connection, text

from lambdadb import create_engine, handler, run_transaction, transactional

engine = create_engine(os.environ["DATABASE_URL"], isolation_level="SERIALIZABLE")
ADD = text("UPDATE account SET balance = balance + :amount WHERE name = :name RETURNING balance")


def add(connection: Connection, name: str, amount: int) -> int:
    balance: int = connection.execute(ADD, {"name": name, "amount": amount}).scalar_one()
    return balance


def transfer(connection: Connection, source: str, target: str, amount: int) -> int:
    add(connection, source, -amount)
    return add(connection, target, amount)


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> int:
    return run_transaction(engine, partial(transfer, **event))


@transactional(engine)
def pay_in(connection: Connection, name: str, amount: int) -> int:
    return add(connection, name, amount)


@handler(engine)
def pay_in_handler(event: dict[str, Any], context: object) -> int:
    return pay_in(event["name"], event["amount"])
