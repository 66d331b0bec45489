"""Count the orders, on a cluster that pauses between the invocations."""

import os
from typing import Any

from sqlalchemy import text

from lambdadb import PerInvocation, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerInvocation())
COUNT = text("SELECT count(*) FROM orders")


@handler(engine, on_resuming="503")
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    with engine.connect() as connection:
        return {"statusCode": 200, "body": str(connection.execute(COUNT).scalar_one())}
