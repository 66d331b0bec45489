"""What the first word of a statement shows."""

from __future__ import annotations

import pytest

from lambdadb.drivers.data_api.sql import ends_transaction, returns_to_savepoint, selects


@pytest.mark.parametrize(
    "sql",
    [
        *("BEGIN", "begin work", "START  TRANSACTION", "COMMIT", "commit;", "END", "ABORT", "ROLLBACK"),
        *("ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'x'", "-- a\nCOMMIT", "/* a */\n /* b */ ROLLBACK"),
    ],
)
def test_the_ends_of_a_transaction_are_seen(sql):
    """The API has calls for them, so such a statement is not sent."""
    assert ends_transaction(sql)


@pytest.mark.parametrize(
    "sql",
    [
        *("ROLLBACK TO a", "rollback to savepoint a", "ROLLBACK WORK TO a", "ROLLBACK TRANSACTION TO a"),
        *(
            "SAVEPOINT a",
            "RELEASE a",
            "COMMENT ON TABLE a IS 'COMMIT'",
            "SELECT 'COMMIT'",
            "PREPARE a AS",
        ),
        *("ENDING", "-- COMMIT\nSELECT 1", "/* COMMIT */ SELECT 1"),
    ],
)
def test_other_statements_are_no_ends(sql):
    """Savepoints among them."""
    assert not ends_transaction(sql)
    assert returns_to_savepoint(f"/* orders */ {sql}") == sql.upper().startswith("ROLLBACK")


@pytest.mark.parametrize("sql", ["SELECT 1", " select\n1", "/* a */ SHOW x", "VALUES (1)", "TABLE t"])
def test_a_statement_that_selects_is_known_by_its_word(sql):
    """Whether a function in it writes, only the server knows."""
    assert selects(sql)


@pytest.mark.parametrize(
    "sql",
    [
        *("INSERT INTO t VALUES (1)", "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a"),
        *(
            "EXPLAIN ANALYZE DELETE FROM t",
            "CALL p()",
            "DO $$$$",
            "SELECTED",
            "-- SELECT\nDELETE FROM t",
        ),
    ],
)
def test_whatever_may_write_does_not_select(sql):
    """WITH may begin a write, and EXPLAIN ANALYZE carries one out."""
    assert not selects(sql)
