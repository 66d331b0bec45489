"""Powertools: its event handler, Logger and Tracer around a handler of lambdadb."""

import os
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.utilities.typing import LambdaContext
from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing.xray import XRay

logger = Logger(service="orders")
tracer = Tracer(service="orders")
app = APIGatewayHttpResolver()
engine = create_engine(os.environ["DATABASE_URL"], tracer=XRay("all"))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@app.post("/orders/<item>")
@tracer.capture_method(capture_error=False)
def store(item: str) -> dict[str, int]:
    with engine.begin() as connection:
        number: int = connection.execute(INSERT, {"item": item}).scalar_one()
    logger.info("stored", order=number)
    return {"id": number}


@logger.inject_lambda_context
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
@handler(engine, on_resuming="503")
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)
