"""The X-Ray SDK's patch_all records the statements, and lambdadb's tracer the connects."""

import os

from aws_xray_sdk.core import patch_all
from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.tracing.xray import XRay

patch_all()
engine = create_engine(os.environ["DATABASE_URL"], tracer=XRay())
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
