"""Store an order; the login is a secret of AWS Secrets Manager."""

import os

from sqlalchemy import text

from lambdadb import create_engine, handler
from lambdadb.credentials.secrets_manager import SecretsManager

engine = create_engine(os.environ["DATABASE_URL"], credentials=SecretsManager(os.environ["SECRET_ID"]))
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": event["item"]}).scalar_one()}
