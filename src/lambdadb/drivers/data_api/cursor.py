"""
A DBAPI cursor over the Data API. All rows of a result come in one answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lambdadb.drivers.data_api import dbapi
from lambdadb.drivers.data_api.api import LARGEST_REQUEST

if TYPE_CHECKING:
    from lambdadb.drivers.data_api.connection import DataApiConnection

MOST_SETS = 1000
"""Parameter sets in one call. The API has a limit only for the size of the request."""
_BATCH_BYTES = LARGEST_REQUEST - (256 << 10)


class Cursor:
    """A cursor."""

    arraysize = 1
    lastrowid: int | None = None
    """The id that MySQL has generated for a row of the last statement."""

    def __init__(self, connection: DataApiConnection) -> None:
        self.connection = connection
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        """
        Execute a statement.

        **Costs:** one call; the first one of a transaction another one before it.
        """
        self._reset()
        backend = self.connection.backend
        encoded = [backend.encode(name, value) for name, value in (parameters or {}).items()]
        answer = self.connection.execute(backend.write_casts(statement, parameters or {}), encoded)
        columns = answer.get("columnMetadata")
        records = answer.get("records") or []
        if columns:
            types = [str(column.get("typeName", "")) for column in columns]
            self.description = [
                (column.get("label") or column["name"], types[n], None, None, None, None, None)
                for n, column in enumerate(columns)
            ]
            rows = [tuple(map(backend.decode, record, types)) for record in records]
            self._rows, self.rowcount = iter(rows), len(rows)
        else:
            self.rowcount = int(answer.get("numberOfRecordsUpdated") or 0)
            for field in answer.get("generatedFields") or ():
                self.lastrowid = backend.decode(field, "BIGINT")

    def executemany(self, statement: str, parameter_sets: Sequence[Mapping[str, Any]]) -> None:
        """
        Execute a statement for each set of parameters. The API does not say how many rows it changed.

        In autocommit each call is a transaction of its own.

        **Costs:** one call for up to 1,000 sets, or fewer that fill a request of 4 MiB.
        """
        self._reset()
        known: dict[str, Any] = {}
        for parameters in parameter_sets:
            known.update((name, value) for name, value in parameters.items() if value is not None)
        backend = self.connection.backend
        statement = backend.write_casts(statement, known)
        batch: list[list[dict[str, Any]]] = []
        size = 0
        for parameters in parameter_sets:
            encoded = [backend.encode(name, value) for name, value in parameters.items()]
            length = len(json.dumps(encoded))
            if batch and (len(batch) == MOST_SETS or size + length > _BATCH_BYTES):
                self.connection.execute_batch(statement, batch)
                batch, size = [], 0
            batch.append(encoded)
            size += length
        if batch:
            self.connection.execute_batch(statement, batch)

    def _reset(self) -> None:
        self.description, self.rowcount, self._rows = None, -1, iter(())
        self.lastrowid = None

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row; None after the last one."""
        self._check()
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows."""
        self._check()
        wanted = range(self.arraysize if size is None else size)
        return [row for _, row in zip(wanted, self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        self._check()
        return list(self._rows)

    def _check(self) -> None:
        if self.description is None:
            raise dbapi.ProgrammingError("The statement has returned no rows.")

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as DBAPI allows."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing, as DBAPI allows."""

    def close(self) -> None:
        """Drop the rows."""
        self._rows = iter(())

    async def _async_soft_close(self) -> None:
        """Do nothing: the rows, for which SQLAlchemy's AsyncConnection calls it, are in memory."""
