"""Store each message of a queue once, and give back the messages that failed."""

import json
import logging
import os
from functools import partial
from typing import Any

from sqlalchemy import Connection, text

from lambdadb import ConnectFailed, OutOfTime, create_engine, handler, run_transaction

engine = create_engine(os.environ["DATABASE_URL"])
logger = logging.getLogger(__name__)
CLAIM = text("INSERT INTO handled (message) VALUES (:id) ON CONFLICT DO NOTHING RETURNING message")
INSERT = text("INSERT INTO orders (item, quantity) VALUES (:item, :quantity)")


def store(connection: Connection, record: dict[str, Any]) -> None:
    if connection.execute(CLAIM, {"id": record["messageId"]}).first():  # not stored before
        connection.execute(INSERT, json.loads(record["body"]))


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    records, failed = event["Records"], []
    for number, record in enumerate(records):
        try:
            run_transaction(engine, partial(store, record=record))
        except (ConnectFailed, OutOfTime):  # the messages after it would fail too
            if number == 0:
                raise
            failed += records[number:]
            break
        except Exception:
            logger.exception("message %s failed", record["messageId"])
            failed.append(record)
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in failed]}
