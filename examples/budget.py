"""Count the orders; a caller beyond the function's share of connections gets 503 soon."""

import os
from typing import Any

from sqlalchemy import text

from lambdadb import PerInvocation, ResumeRetry, create_engine, handler

COUNT = text("SELECT count(*) FROM orders")
engine = create_engine(
    os.environ["DATABASE_URL"],
    policy=PerInvocation(),
    retry=ResumeRetry(exhausted_timeout=2.0),  # a resume is still waited for as long as needed
)


@handler(engine, on_resuming="503")
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    with engine.begin() as connection:
        return {"statusCode": 200, "body": str(connection.execute(COUNT).scalar_one())}
