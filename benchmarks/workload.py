"""The function of benchmarks/advise.py: it keeps its session for a while, under either policy."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import Engine, text

import lambdadb

URL = os.environ["DATABASE_URL"]
ENGINES: dict[str, Engine] = {
    "PerInvocation": lambdadb.create_engine(URL, policy=lambdadb.PerInvocation()),
    "PerEnvironment": lambdadb.create_engine(
        URL,
        policy=lambdadb.PerEnvironment(idle_session_timeout=float(os.environ["IDLE_SESSION_TIMEOUT"])),
    ),
}
SLEEP = text("SELECT pg_sleep(:seconds)")


@lambdadb.handler(*ENGINES.values())
def handler(event: dict[str, Any], context: object) -> None:  # noqa: ARG001 Lambda's own form
    """Hold a session for so many seconds."""
    with ENGINES[event["policy"]].connect() as connection:
        connection.execute(SLEEP, {"seconds": event["seconds"]})
