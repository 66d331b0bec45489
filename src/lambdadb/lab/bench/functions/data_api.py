"""
Insert the same row over the RDS Data API, with neither a connection nor a VPC.

`DATABASE_URL` is `postgresql+data_api:///DATABASE?cluster_arn=ARN&secret_arn=ARN`.
"""

from __future__ import annotations

import os
import time

from row import cost, log, random_row
from sqlalchemy import text

import lambdadb

INSERT = text(
    f"INSERT INTO {os.environ.get('TABLE', 'vector_table')} (content, embedding) "  # noqa: S608 ours
    "VALUES (:content, CAST(:embedding AS vector)) RETURNING id"
)
engine = lambdadb.create_engine(os.environ["DATABASE_URL"], tracer=cost)


@lambdadb.handler(engine)
def data_api(_event: object, context: object) -> dict[str, object]:
    """Insert the row in a transaction, which is three calls of the API."""
    row = random_row()
    began = cost.begin()
    with engine.begin() as connection:
        new_id = connection.scalar(INSERT, row)
    return log("data_api", time.perf_counter() - began, new_id)
