"""
Transactions of MySQL whose outcome can be asked for after the answer to a call is lost.

MySQL keeps no record of what became of a transaction. Only a row that was written in it proves that it
is committed: that of an idempotency key. Its absence proves the contrary once the API has ended the
transaction, because then a COMMIT that is still on its way finds nothing to commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy

from lambdadb.drivers.base import Outcome
from lambdadb.drivers.data_api.connection import UnitOfWork
from lambdadb.drivers.data_api.transaction import Handle, check_driver, translated

_SHOWN = 16  # characters of the API's id, which has about 190


@dataclass(repr=False, eq=False)
class MySQLTransactionHandle(Handle):
    """A transaction, and the API's id of it."""

    name: str

    doubt = (
        "MySQL keeps no record of it. With an idempotency_key lambdadb looks for the key's row after "
        "the transaction is over"
    )

    @property
    def id(self) -> str:
        """The first characters of the API's id."""
        return self.name[:_SHOWN]


def begin(connection: sqlalchemy.Connection) -> MySQLTransactionHandle:
    """
    Begin a transaction.

    Raises:
        InvalidSettings: The connection was made by somebody else.

    **Costs:** one call.
    """
    driver = check_driver(connection)
    translated(connection, driver.begin)
    unit = driver.unit = UnitOfWork()
    return MySQLTransactionHandle(driver, unit, str(driver.transaction_id))


def ask_outcome(
    connection: sqlalchemy.Connection, transaction: MySQLTransactionHandle
) -> Outcome | None:
    """
    End a transaction, if it is still open, and say what became of it.

    **Costs:** one call.
    """
    driver: Any = connection.connection.driver_connection
    translated(connection, lambda: driver.end_transaction(transaction.name))
    return "unknown" if transaction.commit_state == "sent" else "aborted"
