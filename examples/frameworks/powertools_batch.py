"""Powertools' batch utility: each message of a queue in a transaction of its own."""

import json
import os
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from sqlalchemy import Connection, text

from lambdadb import create_engine, handler, run_transaction

engine = create_engine(os.environ["DATABASE_URL"])
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
INSERT = text("INSERT INTO orders (item) VALUES (:item)")


def store(connection: Connection, item: str) -> None:
    connection.execute(INSERT, {"item": item})


def handle(record: SQSRecord) -> None:
    run_transaction(engine, partial(store, item=json.loads(record.body)["item"]))


@handler(engine)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return dict(process_partial_response(event, handle, processor, context))
