"""A handler for the tests of `invoke`."""

from __future__ import annotations

import os
import time
from typing import Any

from sqlalchemy import text

from lambdadb import PerInvocation, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerInvocation())
invocations: list[object] = []


@handler(engine)
def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Count the invocations of this environment, and ask the server who is asking."""
    time.sleep(event.get("sleep", 0))
    invocations.append(event)
    with engine.connect() as connection:
        tag = connection.execute(text("SELECT current_setting('application_name')")).scalar_one()
    return {"count": len(invocations), "tag": tag, "colour": os.environ.get("COLOUR")}
