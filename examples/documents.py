"""Store a document with its embedding, or find the five nearest ones."""

import os
from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from lambdadb import create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"])
document = Table(
    "document",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("content", Text),
    Column("embedding", Vector(1536)),
)


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> list[str]:
    with engine.begin() as connection:
        if "content" in event:
            connection.execute(insert(document).values(event))
        distance = document.c.embedding.l2_distance(event["embedding"])
        nearest = select(document.c.content).order_by(distance).limit(5)
        return list(connection.scalars(nearest))
