"""A standby follows its primary, takes no writes, and is a writer of its own once it is promoted."""

from __future__ import annotations

import psycopg
import pytest

from lambdadb.lab.postgres import Postgres, Standby


def dsn(server):
    return server.url().replace("+psycopg", "")


@pytest.mark.sweep
def test_a_standby_follows_and_is_promoted():
    """It has the primary's rows and password, refuses writes, and takes them after promote()."""
    with Postgres(password="it's") as primary, Standby(primary) as standby:
        with psycopg.connect(dsn(primary), autocommit=True) as connection:
            connection.execute("CREATE TABLE item (name text)")
            (written,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        with psycopg.connect(dsn(standby), autocommit=True) as connection:
            caught_up = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            while not connection.execute(caught_up, [written]).fetchone()[0]:
                connection.execute("SELECT pg_sleep(0.01)")
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO item VALUES ('a')")
            standby.promote()
            connection.execute("INSERT INTO item VALUES ('a')")
