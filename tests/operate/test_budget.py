"""A function's share of the connections, held by the server, and what its callers get beyond it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

import lambdadb
from lambdadb.lab.postgres import Postgres

from .conftest import LIMIT, Connect

EVENT = {"requestContext": {"http": {"method": "GET"}}}
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 28_000, invoked_function_arn="")


@pytest.mark.parametrize("full", ["role", "server"])
def test_a_caller_beyond_the_budget_gets_503(
    full: str, server: Postgres, connect: Connect, admin: psycopg.Connection[Any], role: str
) -> None:
    """Soon, with Retry-After, and the next call works as soon as a connection is free."""
    if full == "role":
        admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT 2")
    held = [connect("other", user=role) for _ in range(2 if full == "role" else LIMIT - 4)]
    engine = lambdadb.create_engine(
        make_url(server.url()).set(username=role),
        policy=lambdadb.PerInvocation(),
        retry=lambdadb.ResumeRetry(exhausted_timeout=0.3),
    )

    @lambdadb.handler(engine, on_resuming="503")
    def handle(event: dict[str, Any], context: object) -> dict[str, Any]:
        with engine.connect() as connection:
            return {"statusCode": 200, "body": str(connection.scalar(text("SELECT 1")))}

    answer = handle(EVENT, CONTEXT)
    assert answer["statusCode"] == 503
    assert answer["headers"]["Retry-After"] == "5"
    assert "busy" in json.loads(answer["body"])["message"]
    held[0].close()
    held[1].close()
    for _ in range(100):  # the server forgets a closed session a moment later
        if handle(EVENT, CONTEXT)["statusCode"] == 200:
            break
    else:
        pytest.fail("no connection was free again")
