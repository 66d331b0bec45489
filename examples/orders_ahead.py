"""Read an order; the connection is opened while the ORM is imported."""

from typing import Any

from database import engine

# isort: split
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lambdadb import handler


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> str | None:
    with Session(engine) as session:
        order = session.get(Order, event["id"])
        return order.item if order else None
