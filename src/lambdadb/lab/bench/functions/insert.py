"""
Insert a row with a random vector, and log how long it took: one handler for each way to connect.

Each handler is configured as a function of its own. All load the same modules, so only connecting
differs. `AURORA_TYPE` (hot or cold) and `EXPERIMENT` are copied into the log line. `infra/terraform`
deploys these files, and `lambdadb bench` runs them on this machine. The URL's database decides which of
`postgresql.py` and `mysql.py` has the statement and the hand-written connection. `data_api.py` has the
handler that needs no connection.
"""

from __future__ import annotations

import os
import time
from importlib import import_module

import database
import sqlalchemy
from row import cost, log, random_row
from sqlalchemy import Engine, event, text

import lambdadb

backend = import_module(database.URL_OF_CLUSTER.get_backend_name())
# The same statement in the drivers' and in SQLAlchemy's parameter style.
INSERT_DRIVER = backend.INSERT.format(
    table=database.TABLE, content="%(content)s", embedding="%(embedding)s"
)
INSERT_SQLALCHEMY = text(
    backend.INSERT.format(table=database.TABLE, content=":content", embedding=":embedding")
)


def hand_written(_event: object, context: object) -> dict[str, object]:
    """As published: read the secret and open a connection in each invocation."""
    row = random_row()
    began = cost.begin()
    connection = backend.connect()
    cost.count()
    try:
        with connection.cursor() as cursor:
            cursor.execute(INSERT_DRIVER, row)
            new_id = backend.new_id(cursor)
        connection.commit()
        elapsed = time.perf_counter() - began
    finally:
        connection.close()
    return log("hand_written", elapsed, new_id)


# An engine opens no connection until it is used.
default_engine = sqlalchemy.create_engine(database.URL_OF_CLUSTER, connect_args=backend.connect_args())
event.listen(default_engine, "connect", cost.count)


@event.listens_for(default_engine, "do_connect")
def read_login(
    dialect: object, record: object, arguments: object, parameters: dict[str, object]
) -> None:
    """Read the login at each connect, as SQLAlchemy's documentation shows it."""
    parameters.update(database.login())


def sqlalchemy_default(_event: object, context: object) -> dict[str, object]:
    """Use SQLAlchemy with the pool that it has by default."""
    return insert(default_engine, "sqlalchemy_default")


per_environment_engine = lambdadb.create_engine(
    database.URL_OF_CLUSTER,
    policy=lambdadb.PerEnvironment(
        # Another value only where idle time passes faster than the server's clock, as in the lab.
        idle_session_timeout=float(os.environ.get("IDLE_SESSION_TIMEOUT", "60"))
    ),
    credentials=database.credentials(),
    tracer=cost,
)


@lambdadb.handler(per_environment_engine)
def per_environment(_event: object, context: object) -> dict[str, object]:
    """Keep lambdadb's connection for the life of the environment."""
    return insert(per_environment_engine, "per_environment")


per_invocation_engine = lambdadb.create_engine(
    database.URL_OF_CLUSTER,
    policy=lambdadb.PerInvocation(),
    credentials=database.credentials(),
    tracer=cost,
)


@lambdadb.handler(per_invocation_engine)
def per_invocation(_event: object, context: object) -> dict[str, object]:
    """Connect with lambdadb, and leave no session behind."""
    return insert(per_invocation_engine, "per_invocation")


def insert(engine: Engine, policy: str) -> dict[str, object]:
    row = random_row()
    began = cost.begin()
    with engine.begin() as connection:
        new_id = backend.new_id(connection.execute(INSERT_SQLALCHEMY, row))
    return log(policy, time.perf_counter() - began, new_id)
