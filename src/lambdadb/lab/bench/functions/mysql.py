"""
The experiment's INSERT on MySQL, and a connection of PyMySQL.

MySQL 8 and MariaDB 10.11 have no type for vectors. So the vector is stored as JSON, whose text is the
same as pgvector's.
"""

from __future__ import annotations

from typing import Any

import database
import pymysql

INSERT = "INSERT INTO {table} (content, embedding) VALUES ({content}, {embedding})"


def connect() -> pymysql.Connection[Any]:
    """Open a connection to a server of the lab, whose URL has the login."""
    return pymysql.connect(**database.URL_OF_CLUSTER.translate_connect_args(username="user"))


def connect_args() -> dict[str, str]:
    """Return what SQLAlchemy has to give PyMySQL beside the URL."""
    return {}


def new_id(result: Any) -> Any:
    """Return the id of the row, from PyMySQL's cursor or from SQLAlchemy's result."""
    return result.lastrowid
