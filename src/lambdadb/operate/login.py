"""
How an operator logs in to a server to look at it: for a moment, under a name that everybody sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from lambdadb.credentials import Credentials
from lambdadb.drivers.rds_endpoint import region_of
from lambdadb.engine import create_engine, parse_url
from lambdadb.errors import InvalidSettings
from lambdadb.policy import PerInvocation
from lambdadb.retry import ResumeRetry


def make_engine(
    url: str, *, secret: str | None = None, iam: bool = False, tag: str, timeout: float
) -> Engine:
    """
    An engine that leaves no session behind.

    Args:
        url: `postgresql+psycopg://user@host/database` or `mysql+pymysql://…`, also without the driver.
        secret: Name or ARN of the Secrets Manager secret with the login.
        iam: Log in with a token of IAM, as the URL's user.
        tag: The session's name on the server.
        timeout: Seconds that a connect may take.

    Raises:
        InvalidSettings: The URL cannot work, or contradicts `secret` or `iam`. Its text has no password.
    """
    parts = parse_url(url)
    if parts.drivername in DRIVERS:
        parts = parts.set(drivername=DRIVERS[parts.drivername])
    if secret and iam:
        raise InvalidSettings("A secret and IAM: leave out one, as a login comes from one place.")
    region = region_of(parts.host or "")
    credentials: Credentials | None = None
    if secret:
        from lambdadb.credentials.secrets_manager import SecretsManager

        credentials = SecretsManager(secret, region=None if secret.startswith("arn:") else region)
    elif iam:
        from lambdadb.credentials.rds_iam import RdsIam

        credentials = RdsIam()
    return create_engine(
        parts,
        # The settings of the role and the server are looked at, so the session brings none of its own.
        policy=PerInvocation(idle_session_timeout=None, idle_in_transaction_session_timeout=None),
        retry=ResumeRetry(timeout=timeout),
        credentials=credentials,
        tag=tag,
        isolation_level="AUTOCOMMIT",
    )


DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """
    A connection, and nothing left of it afterwards.

    Raises:
        ConnectFailed: The server cannot be reached, or refuses the login.
    """
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def place(url: str) -> str:
    """Where a server is: host, port and database, without user, password or options."""
    parts = parse_url(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.host or '(local)'}{port}/{parts.database or ''}".rstrip("/")
