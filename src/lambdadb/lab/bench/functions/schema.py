"""
Make the experiment's extension, table and index, as published, and let a user of IAM insert.

It may be invoked again at any time, also while another invocation runs: what exists is kept.
"""

from __future__ import annotations

import os

import database
from sqlalchemy import Connection, text

import lambdadb

engine = lambdadb.create_engine(
    database.URL_OF_CLUSTER, policy=lambdadb.PerInvocation(), credentials=database.credentials()
)
TABLE = database.TABLE
# `IF NOT EXISTS` alone does not help two sessions that make the same thing at once: one of them fails.
LOCK = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
DEFINITION = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (id serial PRIMARY KEY, content text, embedding vector(1536))",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_embedding ON {TABLE} "
    "USING ivfflat (embedding vector_l2_ops) WITH (lists = 100)",
)
VERSIONS = text(
    "SELECT current_setting('server_version') AS postgresql, extversion AS vector "
    "FROM pg_extension WHERE extname = 'vector'"
)
# `rds_iam` exists on RDS. A role that has it logs in by IAM alone.
IAM_USER = """
DO $do$ BEGIN
    IF to_regrole('{user}') IS NULL THEN CREATE ROLE {user} LOGIN; END IF;
    GRANT rds_iam TO {user};
    GRANT SELECT, INSERT ON {table} TO {user};
    GRANT USAGE ON SEQUENCE {table}_id_seq TO {user};
END $do$
"""


@lambdadb.handler(engine)
def lambda_handler(event: object, context: object) -> dict[str, str]:
    """Make what is missing, and return the versions of PostgreSQL and of pgvector."""
    return lambdadb.run_transaction(engine, make)


def make(connection: Connection) -> dict[str, str]:
    connection.execute(LOCK, {"name": TABLE})
    for statement in (EXTENSION, *DEFINITION):
        connection.exec_driver_sql(statement)
    if user := os.environ.get("IAM_USER"):
        connection.exec_driver_sql(IAM_USER.format(user=user, table=TABLE))
    return dict(connection.execute(VERSIONS).mappings().one())
