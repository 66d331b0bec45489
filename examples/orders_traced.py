"""Store an order, with a rotated secret and a trace."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.tracing.xray import XRay

engine = create_engine(
    os.environ["DATABASE_URL"],  # postgresql+psycopg://HOST/DATABASE
    credentials=SecretsManager("orders/app"),  # or RdsIam(), or a store of your own
    tracer=XRay(),  # or OpenTelemetry(), or JsonLog()
)
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
