"""Book each message of a queue exactly once, however often it is delivered."""

import json
import os
from functools import partial
from typing import Any

from psycopg.errors import UniqueViolation
from sqlalchemy import Column, Connection, MetaData, Table, Text, text
from sqlalchemy.exc import IntegrityError

from lambdadb import create_engine, handler, run_transaction

engine = create_engine(os.environ["DATABASE_URL"])
handled = Table("handled", MetaData(), Column("message", Text, primary_key=True))
ADD = text("UPDATE account SET balance = balance + :amount WHERE name = :name RETURNING balance")


def book(connection: Connection, payment: dict[str, Any]) -> None:
    connection.execute(ADD, payment).scalar_one()


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> None:
    for record in event["Records"]:
        work = partial(book, payment=json.loads(record["body"]))
        try:
            run_transaction(engine, work, idempotency_key=(handled.c.message, record["messageId"]))
        except IntegrityError as error:
            if not done_before(error):
                raise


def done_before(error: IntegrityError) -> bool:
    return isinstance(error.orig, UniqueViolation) and error.orig.diag.table_name == "handled"
