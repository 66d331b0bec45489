"""Store an order; the login is the function's own role."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.credentials.rds_iam import RdsIam

engine = create_engine(os.environ["DATABASE_URL"], credentials=RdsIam())
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
