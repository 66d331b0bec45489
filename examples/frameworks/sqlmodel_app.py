"""FastAPI with SQLModel: the session is a dependency."""

import os
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI
from mangum import Mangum
from sqlmodel import Field, Session, SQLModel

from lambdadb import create_engine
from lambdadb.asgi import InvocationMiddleware

engine = create_engine(os.environ["DATABASE_URL"])


class Order(SQLModel, table=True):
    __tablename__ = "orders"
    id: int | None = Field(default=None, primary_key=True)
    item: str


def open_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


app = FastAPI()
app.add_middleware(InvocationMiddleware, engines=[engine])
lambda_handler = Mangum(app, lifespan="off")


@app.post("/orders/{item}")
def store(item: str, session: Annotated[Session, Depends(open_session)]) -> dict[str, int | None]:
    order = Order(item=item)
    session.add(order)
    session.commit()
    return {"id": order.id}
