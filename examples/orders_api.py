"""Read an order behind API Gateway; while the database wakes up, answer 503."""

import json
import os
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lambdadb import PerInvocation, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerInvocation())


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@handler(engine, on_resuming="503")
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    with Session(engine) as session:
        order = session.get(Order, int(event["pathParameters"]["id"]))
        if order is None:
            return {"statusCode": 404}
        return {"statusCode": 200, "body": json.dumps({"item": order.item})}
