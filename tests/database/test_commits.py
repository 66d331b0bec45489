"""What texts do to a transaction, as the server sees it, and what commits.py says of them."""

from __future__ import annotations

from random import Random

import psycopg
import pytest
from psycopg import generators
from psycopg.pq import TransactionStatus

from lambdadb.drivers.psycopg.commits import ends, goes_on, may_commit

INSERT = "INSERT INTO item DEFAULT VALUES"
PARTS = [
    *(
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "BEGIN",
        "START TRANSACTION",
        "ROLLBACK TO s",
        "SAVEPOINT s",
    ),
    *("AND CHAIN", "AND NO CHAIN", "WORK", "TRANSACTION", "SELECT 1", "AS a$$", "AS b$$", "AS c$x$"),
    *("SELECT $$", "$$", "SELECT $x$", "$x$", "SELECT '", "'", "''", "E'", 'AS "', '"', "\\", "\\'"),
    *("--", "/*", "*/", "\n", "\r", " ", "CASE WHEN true THEN 1 END", "-- x\n", "/**/", "1", ","),
    *(";", INSERT),
]
WHOLE = [
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT WORK",
    "ROLLBACK AND CHAIN",
    "BEGIN",
    INSERT,
    "SELECT 1",
    "",
]


def draw(random):
    """A statement, or parts of some."""
    if random.random() < 0.7:
        return random.choice(WHOLE)
    return " ".join(random.choices(PARTS, k=random.randint(1, 4)))


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("strings", ["on", "off"])
@pytest.mark.parametrize(
    "texts", [80, pytest.param(10_000, marks=pytest.mark.sweep, id="many")], ids=str
)
def test_no_text_ends_a_transaction_without_notice(texts, strings, failed, database):
    """Texts of random parts, most of them wrong: whatever the server commits was expected."""
    random = Random(f"{texts} {strings} {failed}")
    ended = 0
    with psycopg.connect(database.set(drivername="postgresql").render_as_string(False)) as connection:
        pgconn = connection.pgconn
        pgconn.exec_(f"SET standard_conforming_strings = {strings}".encode())
        pgconn.exec_(b"SET client_min_messages = error")
        for _ in range(texts):
            text = ";".join(draw(random) for _ in range(random.randint(1, 4))).encode()
            pgconn.exec_(b"DELETE FROM item")
            pgconn.exec_(b"BEGIN; SELECT 1 / 0" if failed else b"BEGIN")
            pgconn.send_query(text)
            # PGconn.get_result() would wait without letting the lab's threads run.
            tags = [result.command_status for result in connection.wait(generators.execute(pgconn))]
            is_over = pgconn.transaction_status == TransactionStatus.IDLE
            pgconn.exec_(b"ROLLBACK")
            is_there = pgconn.exec_(b"SELECT count(*) FROM item").get_value(0, 0) != b"0"
            ended += is_over
            assert ends(text) or not is_over, text
            assert may_commit(text) or b"COMMIT" not in tags, text
            assert goes_on(text, failed=failed) or not is_there or b"COMMIT" in tags, text
    assert ended > texts / 50
