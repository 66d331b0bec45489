"""
What is different between PostgreSQL and MySQL behind the Data API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lambdadb.drivers import mysql_commits
from lambdadb.drivers.data_api.mysql_values import decode_from_mysql, encode_for_mysql
from lambdadb.drivers.data_api.values import decode, encode, write_casts

Answers = dict[str, "str | None"]
Records = Sequence[Sequence[Mapping[str, Any]]]

# What SQLAlchemy's dialect needs to know about the server.
_OF_POSTGRESQL = {
    "version": "pg_catalog.current_setting('server_version')",
    "schema": "pg_catalog.current_schema()",
    "isolation": "pg_catalog.current_setting('transaction_isolation')",
    "strings": "pg_catalog.current_setting('standard_conforming_strings')",
}
# MySQL 8 has no tx_isolation, and MariaDB before 11.1 no transaction_isolation.
_OF_MYSQL = ("version", "sql_mode", "lower_case_table_names", "transaction_isolation", "tx_isolation")


class Backend(Protocol):
    """A database behind the API."""

    system: str
    """Its name in spans (OpenTelemetry's `db.system.name`), and in URLs."""
    default_database: str
    question: str
    """Asked in an engine's first call."""
    has_written: str | None
    """Asks whether a transaction has written something; None if the server does not say."""

    def read_answers(self, records: Records) -> Answers:
        """Return the answers to the question."""

    def encode(self, name: str, value: Any) -> dict[str, Any]:
        """Return a parameter."""

    def write_casts(self, statement: str, parameters: Mapping[str, Any]) -> str:
        """Return the statement with the casts that its parameters need."""

    def decode(self, field: Mapping[str, Any], type_name: str) -> Any:
        """Return the Python value of a field."""

    def ends_by_error(self, number: int | None) -> bool:
        """Whether a transaction is over after a server's error, so that only a rollback makes sense."""

    def find_commit(self, sql: str) -> str | None:
        """Return the words of a statement that commits, or may commit, its transaction; else None."""


class PostgreSQL:
    """PostgreSQL. In an open transaction, it refuses a procedure's COMMIT."""

    system = "postgresql"
    default_database = "postgres"
    question = "SELECT " + ", ".join(f"CAST({asked} AS text)" for asked in _OF_POSTGRESQL.values())
    has_written: str | None = "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL"
    encode = staticmethod(encode)
    write_casts = staticmethod(write_casts)
    decode = staticmethod(decode)

    def read_answers(self, records: Records) -> Answers:
        """Return the answers to the question."""
        (record,) = records
        return dict(zip(_OF_POSTGRESQL, (field.get("stringValue") for field in record), strict=True))

    def ends_by_error(self, number: int | None) -> bool:
        """Any error ends it, until a savepoint is returned to."""
        del number
        return True

    def find_commit(self, sql: str) -> str | None:
        """Return None: COMMIT itself is not sent."""
        del sql
        return None


class MySQL:
    """MySQL, and MariaDB, which the lab has in its place."""

    system = "mysql"
    default_database = ""
    question = f"SHOW VARIABLES WHERE Variable_name IN {_OF_MYSQL}"
    has_written: str | None = None
    encode = staticmethod(encode_for_mysql)
    decode = staticmethod(decode_from_mysql)

    def read_answers(self, records: Records) -> Answers:
        """Return the answers to the question."""
        return {str(name["stringValue"]).lower(): value.get("stringValue") for name, value in records}

    def write_casts(self, statement: str, parameters: Mapping[str, Any]) -> str:
        """Return the statement: MySQL takes text for every type."""
        del parameters
        return statement

    def ends_by_error(self, number: int | None) -> bool:
        """
        Only a conflict does.

        After a deadlock the session would go on in another transaction, and half of the work be lost.
        """
        return number in mysql_commits.CONFLICTS

    def find_commit(self, sql: str) -> str | None:
        """Return the words of one that commits implicitly, or of CALL, in which anything may be."""
        text = mysql_commits.strip_comments(sql)
        if mysql_commits.may_commit(text):
            return text.split()[0].upper()
        return mysql_commits.find_commit(text)


POSTGRESQL, MYSQL = PostgreSQL(), MySQL()
