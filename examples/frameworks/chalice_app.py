"""Chalice: a middleware is the invocation, for routes and for other events."""

import functools
import os
from collections.abc import Callable
from typing import Any

from chalice import Chalice, Response
from sqlalchemy import text

from lambdadb import ConnectFailed, create_engine, invocation

app = Chalice("orders")
engine = create_engine(os.environ["DATABASE_URL"])
INSERT = text("INSERT INTO orders (item) VALUES (:item) RETURNING id")


@app.middleware("all")
def run_in_invocation(event: Any, get_response: Callable[[Any], Any]) -> Any:
    with invocation(engine, app.lambda_context):
        return get_response(event)


def answer_unavailable(view: Callable[..., Any]) -> Callable[..., Any]:
    """Chalice turns an error of a view into status 500 before a middleware sees it."""

    @functools.wraps(view)
    def answer(*arguments: Any, **keywords: Any) -> Any:
        try:
            return view(*arguments, **keywords)
        except ConnectFailed as error:
            if error.retry_after is None:  # another try would not help
                raise
            return Response("Please try again.", {"Retry-After": str(error.retry_after)}, 503)

    return answer


@app.route("/orders/{item}", methods=["POST"])
@answer_unavailable
def store(item: str) -> dict[str, int]:
    with engine.begin() as connection:
        return {"id": connection.execute(INSERT, {"item": item}).scalar_one()}
