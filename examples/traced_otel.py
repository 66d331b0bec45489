"""Store an order; connects and statements are OpenTelemetry's spans and metrics."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing.opentelemetry import OpenTelemetry

engine = create_engine(os.environ["DATABASE_URL"], tracer=OpenTelemetry("all"))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
