"""Which statements pin a client of RDS Proxy, by AWS's documentation."""

from __future__ import annotations

import pytest

from lambdadb.drivers.psycopg.pins import LARGEST_STATEMENT, find_pin


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("SET search_path TO app", "SET"),
        ("  set time zone 'UTC'", "SET"),
        ("SELECT 1; SET ROLE app", "SET"),
        ("RESET ALL", "SET"),
        ("SELECT set_config('app.tenant', 'x', false)", "set_config()"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "PREPARE"),
        ("DEALLOCATE ALL", "PREPARE"),
        ("DISCARD ALL", "DISCARD"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"),
        ("LISTEN orders", "LISTEN"),
        ("LOAD 'auto_explain'", "LOAD"),
        ("CREATE TEMPORARY TABLE t (i int)", "a temporary table, view or sequence"),
        ("CREATE TEMP VIEW v AS SELECT 1", "a temporary table, view or sequence"),
        ("SELECT nextval('orders_id_seq')", "nextval() or setval()"),
        ("INSERT INTO o (id) VALUES (nextval('s'))", "nextval() or setval()"),
        ("SELECT pg_try_advisory_lock(1)", "a session's advisory lock"),
        ("SELECT pg_advisory_lock_shared(1)", "a session's advisory lock"),
    ],
)
def test_what_aws_documents_as_pinning_is_found(statement, what):
    """Each is named, and comes with advice."""
    found = find_pin(statement)
    assert found is not None
    assert found[0] == what
    assert found[1]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "SET LOCAL search_path TO app",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "UPDATE item SET name = 'x'",
        "INSERT INTO item (name) VALUES ('SET x; LISTEN y; nextval(1)')",
        'SELECT "nextval(" FROM item -- ; DISCARD ALL',
        "SELECT $body$; SET x = 1$body$",
        "SELECT E'it\\'s; SET x = 1'",
        "SELECT pg_advisory_xact_lock(1)",
        "SAVEPOINT s",
        "PREPARE TRANSACTION 'x'",
        "INSERT INTO template (id) VALUES (1)",
    ],
)
def test_what_does_not_pin_is_left_alone(statement):
    """Words in literals, quoted names and comments do not count, and what ends with a transaction."""
    assert find_pin(statement) is None


def test_a_statement_above_16_kilobytes_pins():
    """The size is the text's, in bytes."""
    longest = "SELECT 1 --" + "x" * (LARGEST_STATEMENT - 11)
    assert find_pin(longest) is None
    assert find_pin(longest + "x") == (
        "16,385 bytes, more than 16,384",
        "send large values as parameters, or fewer rows in one statement",
    )
