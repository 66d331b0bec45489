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

With neither a secret nor IAM, libpq logs in with its own variables, such as `PGPASSWORD`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL

import lambdadb
from lambdadb.credentials import Credentials
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.credentials.secrets_manager import SecretsManager

HOST = os.environ["AURORA_HOST"]
PORT = int(os.environ.get("AURORA_PORT", "5432"))
DBNAME = os.environ.get("AURORA_DBNAME", "postgres")
USER = os.environ.get("AURORA_USER")
SECRET_NAME = os.environ.get("SECRET_NAME")
IAM = os.environ.get("AURORA_IAM", "").lower() == "true"
TABLE = os.environ.get("TABLE", "vector_table")
URL_OF_CLUSTER = URL.create("postgresql+psycopg", USER, host=HOST, port=PORT, database=DBNAME)

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
        secret = json.loads(client.get_secret_value(SecretId=SECRET_NAME)["SecretString"])
        return {"user": secret["username"], "password": secret["password"]}
    if IAM:
        token = client.generate_db_auth_token(DBHostname=HOST, Port=PORT, DBUsername=USER)
        return {"user": str(USER), "password": token}
    return {}


def parameters() -> dict[str, Any]:
    """Return libpq's parameters, but for a login that is read."""
    user = {"user": USER} if USER else {}
    return {"host": HOST, "port": PORT, "dbname": DBNAME, **user, **tls()}


def tls() -> dict[str, str]:
    """
    Return what makes libpq verify the server, as lambdadb does by itself.

    libpq's own default would give the login to any server. Its variables win: they are for a server that
    is not RDS.
    """
    roots = Path(lambdadb.__file__).with_name("roots") / f"{os.environ.get('AWS_REGION')}.pem"
    return {
        "sslmode": os.environ.get("PGSSLMODE", "verify-full"),
        "sslrootcert": os.environ.get("PGSSLROOTCERT", str(roots)),
    }
