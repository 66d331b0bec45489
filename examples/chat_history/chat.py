"""Store a chat's message, and return the earlier ones that are nearest to it."""

import os
from typing import Any

from bedrock import embed
from history import remember
from sqlalchemy.orm import sessionmaker

from lambdadb import PerInvocation, create_engine, handler

engine = create_engine(os.environ["DATABASE_URL"], policy=PerInvocation())
sessions = sessionmaker(engine)


@handler(engine)
def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    return {"earlier": remember(sessions, embed, **event)}
