"""Pay into an account through the ORM, repeated after a conflict or a lost connection."""

import os
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from lambdadb import create_engine, handler, run_transaction

engine = create_engine(os.environ["DATABASE_URL"])
sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> int:
    def work(session: Session) -> int:
        account = session.get_one(Account, event["name"], with_for_update=True)
        account.balance += event["amount"]
        return account.balance

    return run_transaction(sessions, work)
