"""
Ask a server for its sessions, and about itself, whichever database it is.
"""

from __future__ import annotations

from sqlalchemy import Connection

from lambdadb.operate import postgresql
from lambdadb.operate.server import ServerFacts
from lambdadb.operate.sessions import Snapshot


def read_snapshot(connection: Connection, server: str) -> Snapshot:
    """
    The sessions of the server that a connection leads to.

    Args:
        connection: In autocommit.
        server: What the server is to be called.
    """
    return postgresql.read_snapshot(connection, server)


def read_server(connection: Connection) -> ServerFacts | None:
    """What the server says about itself; None if lambdadb has no rules for it."""
    return postgresql.read_server_facts(connection)
