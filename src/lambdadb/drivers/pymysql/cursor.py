"""
PyMySQL's cursors, with what lambdadb's connections need of them.
"""

from __future__ import annotations

from typing import Any

import pymysql
from pymysql.cursors import Cursor, SSCursor


class StreamCursor(SSCursor):
    """
    A cursor that streams rows, of a `DeadlineConnection`.

    PyMySQL reads the rest of the rows when the cursor is closed or deleted, also from a connection that
    is gone. This raises errors that Python can only print.
    """

    connection: Any

    def read_next(self) -> Any:
        """Return the next row. It raises if the connection was closed: that is no end of the rows."""
        if self.connection.has_lost_rows:
            raise pymysql.InterfaceError("The connection was closed before all rows were read.")
        try:
            return super().read_next()
        except BaseException:
            if not self.connection.open:
                self.connection.lose_rows()
            raise

    def close(self) -> None:
        """Close it. Rows that were not fetched are read first, unless the connection is gone."""
        connection = self.connection
        if connection is None:
            return
        if not connection.open:
            connection.lose_rows()
        super().close()

    __del__ = close


class AsyncCursor(Cursor):
    """A cursor with the method that SQLAlchemy's AsyncConnection calls when it has the rows."""

    async def _async_soft_close(self) -> None:
        """Do nothing: the rows are in memory."""
