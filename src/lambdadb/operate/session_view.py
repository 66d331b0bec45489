"""
Ask a server for its sessions, and about itself, whichever database it is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from lambdadb.operate import mysql, postgresql
from lambdadb.operate.mysql_server import MySQLFacts
from lambdadb.operate.postgresql_server import ServerFacts
from lambdadb.operate.sessions import SessionView


def read_session_view(connection: Connection, server: str) -> SessionView:
    """
    The sessions of the server that a connection leads to.

    Args:
        connection: In autocommit.
        server: What the server is to be called.
    """
    found: SessionView = _module(connection).read_session_view(connection, server)
    return found


def read_server(connection: Connection) -> ServerFacts | MySQLFacts:
    """What the server says about itself."""
    facts: ServerFacts | MySQLFacts = _module(connection).read_server_facts(connection)
    return facts


def _module(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else mysql
