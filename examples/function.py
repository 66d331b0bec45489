"""The tutorial's function: store a visit and say who is connected."""

import json
import os
from typing import Any

from sqlalchemy import text

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])
TABLE = text("CREATE TABLE IF NOT EXISTS visit (id serial PRIMARY KEY)")
INSERT = text("INSERT INTO visit DEFAULT VALUES RETURNING id")
SESSIONS = text("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")


@handler(engine, on_resuming="503")
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    with engine.begin() as connection:
        connection.execute(TABLE)
        visit = connection.execute(INSERT).scalar_one()
        sessions = list(connection.scalars(SESSIONS))
    return {"statusCode": 200, "body": json.dumps({"visit": visit, "sessions": sessions})}
