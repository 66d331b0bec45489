"""
The published experiment, written four ways: each file beside this one is the code of a function.

All read `DATABASE_URL`, `TABLE`, `AURORA_TYPE` and `EXPERIMENT` from their environment. The published
function read its password from Secrets Manager first. These do so if `SECRET_NAME` is set, or sign a
token if `AURORA_IAM` is; that time is part of what they measure. Else the URL holds the login.

This file is what the four share: the login, the row, the statement and the log line.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from typing import Any

from sqlalchemy import make_url

from lambdadb.credentials import Credentials
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.tracing import Span, Tracer

DIMENSIONS = 1536
INSERT = (
    f"INSERT INTO {os.environ['TABLE']} (content, embedding) "  # noqa: S608 the bench's own name
    "VALUES ({content}, CAST({embedding} AS vector)) RETURNING id"
)
# The same statement in psycopg's and in SQLAlchemy's parameter style.
INSERT_PSYCOPG = INSERT.format(content="%(content)s", embedding="%(embedding)s")
INSERT_SQLALCHEMY = INSERT.format(content=":content", embedding=":embedding")

SECRET_NAME = os.environ.get("SECRET_NAME")
IAM = "AURORA_IAM" in os.environ

if SECRET_NAME or IAM:
    import boto3

    client = boto3.client("secretsmanager" if SECRET_NAME else "rds")


def credentials() -> Credentials | None:
    """The store of logins for an engine of lambdadb."""
    if SECRET_NAME:
        return SecretsManager(SECRET_NAME)
    return RdsIam() if IAM else None


def login() -> dict[str, Any]:
    """User and password for a driver, read by boto3 each time; nothing if the URL holds them."""
    if SECRET_NAME:
        text = client.get_secret_value(SecretId=SECRET_NAME)["SecretString"]
        secret = json.loads(text) if text.startswith("{") else {"password": text}
        user = {"user": secret["username"]} if "username" in secret else {}
        return {**user, "password": secret["password"]}
    if IAM:
        url = make_url(os.environ["DATABASE_URL"])
        token = client.generate_db_auth_token(
            DBHostname=url.host, Port=url.port or 5432, DBUsername=url.username
        )
        return {"password": token}
    return {}


@dataclass
class Connects(Tracer):
    """What the connects of one invocation cost: a tracer for `lambdadb.create_engine`."""

    connects: int = 0
    retries: int = 0
    resume_wait: float = 0.0

    def begin(self) -> None:
        """Forget the invocation before."""
        self.connects, self.retries, self.resume_wait = 0, 0, 0.0

    def record(self, span: Span) -> None:
        """Count a connect."""
        self.connects += span.error is None
        self.retries += int(span.attributes["lambdadb.attempts"]) - 1
        self.resume_wait += span.seconds if "lambdadb.fault" in span.attributes else 0.0


def random_row() -> dict[str, str]:
    """One row's parameters: the experiment's name and a random vector, in pgvector's own text form."""
    vector = ",".join(f"{random.random():.7f}" for _ in range(DIMENSIONS))
    return {"content": os.environ["EXPERIMENT"], "embedding": f"[{vector}]"}


def log(elapsed: float, new_id: int, policy: str, cost: Connects) -> dict[str, object]:
    """Print the experiment's one JSON line, and return it."""
    line: dict[str, object] = {
        "elapsed": elapsed,
        "aurora_type": os.environ["AURORA_TYPE"],
        "new_id": new_id,
        "experiment": os.environ["EXPERIMENT"],
        "policy": policy,
        "connects": cost.connects,
        "retries": cost.retries,
        "resume_wait": cost.resume_wait,
    }
    print(json.dumps(line))
    return line
