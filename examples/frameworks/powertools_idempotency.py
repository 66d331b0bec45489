"""Powertools' idempotency: a request that is repeated gets the first one's answer."""

import os
from typing import Any

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
)
from aws_lambda_powertools.utilities.typing import LambdaContext
from sqlalchemy import text

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])
answers = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
@idempotent(persistence_store=answers, config=IdempotencyConfig(event_key_jmespath="request"))
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
