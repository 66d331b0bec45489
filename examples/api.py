"""A FastAPI application behind Mangum: each request is an invocation, and background tasks write too."""

import os
from typing import Any

from fastapi import BackgroundTasks, FastAPI
from mangum import Mangum
from sqlalchemy import text

from lambdadb import PerEnvironment, create_engine
from lambdadb.asgi import InvocationMiddleware

engine = create_engine(
    os.environ["DATABASE_URL"], policy=PerEnvironment(connections=2, checkout_timeout=5.0)
)
app = FastAPI()
app.add_middleware(InvocationMiddleware, engines=[engine])
lambda_handler = Mangum(app, lifespan="off")

INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")
NOTE = text("INSERT INTO audit (note) VALUES (:note)")


@app.post("/orders/{item}")
def store(item: str, tasks: BackgroundTasks) -> dict[str, Any]:
    with engine.begin() as connection:
        number = connection.execute(INSERT, {"item": item}).scalar_one()
    tasks.add_task(write_note, f"order {number}")
    return {"id": number}


def write_note(note: str) -> None:
    with engine.begin() as connection:
        connection.execute(NOTE, {"note": note})
