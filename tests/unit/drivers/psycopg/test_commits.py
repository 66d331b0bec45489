"""Which texts may commit, and which go on outside of their transaction."""

from __future__ import annotations

import pytest

from lambdadb.drivers.psycopg.commits import ends, goes_on, may_commit

COMMITS = [
    "COMMIT",
    "commit work;",
    "END",
    "SELECT 1;END",
    "-- COMMIT\nEND",
    "-- x\rEND",
    "/* x */ END",
    "INSERT INTO t VALUES ('a'); /* ; */ COMMIT",
    "PREPARE TRANSACTION 'x'",
    "PREPARE/**/TRANSACTION 'x'",
    "EXECUTE x",
    "SELECT 1 AS a$$; COMMIT; SELECT 2 AS b$$",  # a name may have a dollar
    "SELECT 'it''s'; COMMIT; SELECT 'it''s'",
    'SELECT 1 AS "a""b"; COMMIT',
    "SELECT $a$ $$ $a$; COMMIT; SELECT $$ $$",
    "SELECT $é$ ; $é$; COMMIT",
    "SELECT '\\'; COMMIT; --'",  # a literal with standard_conforming_strings=off
    "/* /* */ '*/ COMMIT; --'",
    "/* /* */ end */ PREPARE/**/TRANSACTION 'x'",
]
COMMITS_NOT = [
    "",
    "SELECT 1",
    "SELECT CASE WHEN true THEN 1\nEND",
    "INSERT INTO t VALUES ('; COMMIT; END')",
    "DO $$ BEGIN PERFORM 1; END $$",
    "DO $x$ BEGIN INSERT INTO t VALUES ($$;COMMIT$$); END $x$",
    'SELECT ";COMMIT" FROM t',
    "SELECT 1 -- ; COMMIT",
    "/* ; COMMIT */ SELECT 1",
    "CREATE TABLE t (a int) ON COMMIT DROP",
    "PREPARE x AS SELECT 1",
    "SELECT '\\'",
    "ROLLBACK",
]


@pytest.mark.parametrize("text", COMMITS)
def test_a_text_that_may_commit(text):
    """However it is written: the server is asked what became of it."""
    assert may_commit(text.encode())


@pytest.mark.parametrize("text", COMMITS_NOT)
def test_a_text_that_cannot_commit(text):
    """Its words stand in comments, literals and names: BEGIN is sent with it."""
    assert not may_commit(text.encode())


@pytest.mark.parametrize(
    ("text", "alone", "failed"),
    [
        ("ROLLBACK; INSERT INTO t VALUES (1)", True, True),
        ("ABORT/**/;/**/SELECT 1", True, True),
        ("ROLLBACK AND NO CHAIN; SELECT 1", True, True),
        ("ROLLBACK; BEGIN; ROLLBACK; SELECT 1", True, True),
        ("/* /* */ end */ ROLLBACK; SELECT 1", True, True),
        ("SELECT '\\'; ROLLBACK; SELECT '", True, True),
        ("SELECT '\\'; ROLLBACK", False, False),
        ("COMMIT; SELECT 1", False, True),
        ("END; SELECT 1", False, True),
        ("ROLLBACK", False, False),
        ("ROLLBACK;;", False, False),
        ("ROLLBACK; -- nothing", False, False),
        ("ROLLBACK; /* x */ BEGIN; SELECT 1", False, False),
        ("ROLLBACK; START TRANSACTION; SELECT 1", False, False),
        ("ROLLBACK AND CHAIN; SELECT 1", False, False),
        ("COMMIT AND CHAIN; SELECT 1", False, False),
        ("ROLLBACK TO s; SELECT 1", False, False),
        ("ROLLBACK WORK TO SAVEPOINT s; SELECT 1", False, False),
        ("INSERT INTO t VALUES ('ROLLBACK; SELECT')", False, False),
    ],
)
def test_a_text_that_goes_on(text, alone, failed):
    """After a ROLLBACK, and after a COMMIT in a transaction that had failed."""
    assert goes_on(text.encode(), failed=False) is alone
    assert goes_on(text.encode(), failed=True) is failed


def test_a_savepoint_ends_nothing():
    assert not ends(b"ROLLBACK TO SAVEPOINT s")
    assert ends(b"ROLLBACK AND CHAIN")
    assert ends(b"END")
