"""SQLAlchemy-Utils: a database that is made when it is missing, and a column type."""

import os

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy_utils import EmailType, create_database, database_exists

from lambdadb import create_engine, handler

URL = os.environ["DATABASE_URL"]
engine = create_engine(URL)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(EmailType)


def make_tables() -> None:
    if not database_exists(URL):  # it makes an engine of its own, as create_database does
        create_database(URL)
    Base.metadata.create_all(engine)


@handler(engine)
def lambda_handler(event: dict[str, str], context: object) -> str:
    make_tables()
    with Session(engine) as session, session.begin():
        customer = Customer(email=event["email"])
        session.add(customer)
        session.flush()
        session.refresh(customer)
        return customer.email
