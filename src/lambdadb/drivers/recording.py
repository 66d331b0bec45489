"""
What the dialects of all drivers have in common: they record statements for a tracer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.default import DefaultDialect

if TYPE_CHECKING:
    from lambdadb.tracing.statements import StatementRecorder


class RecordsStatements(DefaultDialect):
    """A dialect that gives the statements that it executes to a recorder, if the engine has one."""

    statements: StatementRecorder | None

    # Statements are recorded here and not in listeners to SQLAlchemy's cursor events: one such listener
    # costs each statement ten times as much as all else that is done where nothing is recorded.

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement."""
        execute = super().do_execute
        if self.statements is None:
            execute(cursor, statement, parameters, context)
        else:
            self.statements.execute(execute, cursor, statement, parameters, context)

    def do_executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement for each of `parameters`."""
        execute = super().do_executemany
        if self.statements is None:
            execute(cursor, statement, parameters, context)
        else:
            self.statements.execute(execute, cursor, statement, parameters, context)

    def do_execute_no_params(self, cursor: Any, statement: Any, context: Any = None) -> None:
        """Execute a statement that has no parameters."""
        execute = super().do_execute_no_params
        if self.statements is None:
            execute(cursor, statement, context)
        else:
            self.statements.execute(execute, cursor, statement, context)
