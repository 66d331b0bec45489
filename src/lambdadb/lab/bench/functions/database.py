"""
Where the cluster is, and how the functions log in: the variables of the published experiment.

| variable | |
|---|---|
| `AURORA_HOST` | the cluster's endpoint |
| `AURORA_PORT` | 5432 by default |
| `AURORA_DBNAME` | `postgres` by default |
| `AURORA_USER` | the database user, where no secret names one |
| `SECRET_NAME` | name or ARN of the secret with the login |
| `AURORA_IAM` | `true`, in place of `SECRET_NAME`: log in by IAM, as `AURORA_USER` |
| `TABLE` | `vector_table` by default |
| `DATABASE_URL` | all of the cluster's place in one URL, in place of `AURORA_HOST` and those below it |

With neither a secret nor IAM, the login is in the URL or in libpq's own variables, such as `PGPASSWORD`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

import lambdadb
from lambdadb.credentials import Credentials
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager

SECRET_NAME = os.environ.get("SECRET_NAME")
IAM = os.environ.get("AURORA_IAM", "").lower() == "true"
TABLE = os.environ.get("TABLE", "vector_table")


def url() -> URL:
    """Return where the cluster is."""
    if "DATABASE_URL" in os.environ:
        return make_url(os.environ["DATABASE_URL"])
    return URL.create(
        "postgresql+psycopg",
        os.environ.get("AURORA_USER"),
        host=os.environ["AURORA_HOST"],
        port=int(os.environ.get("AURORA_PORT", "5432")),
        database=os.environ.get("AURORA_DBNAME", "postgres"),
    )


URL_OF_CLUSTER = url()

if SECRET_NAME or IAM:
    import boto3

    client = boto3.client("secretsmanager" if SECRET_NAME else "rds")


def credentials() -> Credentials | None:
    """Return the store of logins for an engine of lambdadb."""
    if SECRET_NAME:
        return SecretsManager(SECRET_NAME)
    return RdsIam() if IAM else None


def login() -> dict[str, str]:
    """Return user and password for a driver, read by boto3 each time."""
    if SECRET_NAME:
        text = client.get_secret_value(SecretId=SECRET_NAME)["SecretString"]
        secret = json.loads(text) if text.startswith("{") else {"password": text}
        user = {"user": secret["username"]} if "username" in secret else {}
        return {**user, "password": secret["password"]}
    if IAM:
        token = client.generate_db_auth_token(
            DBHostname=URL_OF_CLUSTER.host,
            Port=URL_OF_CLUSTER.port or 5432,
            DBUsername=URL_OF_CLUSTER.username,
        )
        return {"password": token}
    return {}


def parameters() -> dict[str, Any]:
    """Return libpq's parameters, but for a login that is read."""
    place = URL_OF_CLUSTER.translate_connect_args(username="user", database="dbname")
    return {**place, **URL_OF_CLUSTER.query, **tls()}


def tls() -> dict[str, str]:
    """
    Return what makes libpq verify the server, as lambdadb does by itself.

    libpq's own default would give the login to any server. The URL and libpq's variables win: they are
    for a server that is not RDS.
    """
    mode = str(URL_OF_CLUSTER.query.get("sslmode") or os.environ.get("PGSSLMODE", "verify-full"))
    if not mode.startswith("verify"):
        return {"sslmode": mode}
    roots = Path(lambdadb.__file__).with_name("roots") / f"{os.environ.get('AWS_REGION')}.pem"
    chosen = URL_OF_CLUSTER.query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT", str(roots))
    return {"sslmode": mode, "sslrootcert": str(chosen)}
