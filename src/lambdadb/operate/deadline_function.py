"""The SQL of the function that limits the time of a transaction: `deadline_function=`."""

from __future__ import annotations

_SQL = """\
-- Limits the time of the transaction that calls it. lambdadb calls it with BEGIN, with the milliseconds
-- that the invocation has left. A shorter limit, such as one of the role, stays. All limits end with the
-- transaction. transaction_timeout exists since PostgreSQL 17, and is left out before.
CREATE OR REPLACE FUNCTION {name}(milliseconds integer) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_catalog.set_config(name, milliseconds::text, true)
    FROM (VALUES ('statement_timeout'), ('idle_in_transaction_session_timeout'), ('transaction_timeout'))
        AS limits (name)
    WHERE pg_catalog.current_setting(name, true) = '0'
        OR pg_catalog.current_setting(name, true)::interval > milliseconds * interval '1 ms'
$$;
"""


def make_deadline_function(name: str) -> str:
    """Return the SQL that creates the function. `name` is what `deadline_function=` gets."""
    return _SQL.format(name=name)
