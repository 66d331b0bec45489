"""OpenTelemetry's instrumentations of Lambda and SQLAlchemy on an engine of lambdadb."""

import os

from opentelemetry.instrumentation.aws_lambda import AwsLambdaInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing.opentelemetry import OpenTelemetry

engine = create_engine(os.environ["DATABASE_URL"], tracer=OpenTelemetry())  # records connects
SQLAlchemyInstrumentor().instrument(engine=engine)  # records statements
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}


AwsLambdaInstrumentor().instrument()
