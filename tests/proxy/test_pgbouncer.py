"""The lab's pgbouncer is a real one, and behaves as its settings say."""

from __future__ import annotations

import psycopg
import pytest

from lambdadb.lab import LabError, pgbouncer


def test_it_shares_sessions_and_reports_them(pgbouncer, admin):
    """Two clients have one session of the server in turn, and its console says so."""
    bouncer = pgbouncer(pool_size=1)
    url = bouncer.url().replace("+psycopg", "")
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        pids = set()
        for client in (one, other, one):
            pids.add(client.execute("SELECT pg_backend_pid()").fetchone())
            client.commit()
    assert len(pids) == 1
    (pool,) = [row for row in bouncer.show("pools") if row["database"] == "postgres"]
    assert pool["pool_mode"] == "transaction"


def test_any_role_of_the_server_can_log_in(pgbouncer, admin):
    """A role's password is the server's own, also if the role was made later."""
    admin.execute("DROP ROLE IF EXISTS app")
    admin.execute("CREATE ROLE app LOGIN PASSWORD 'canary-app'")
    url = pgbouncer().url().replace("+psycopg", "")
    with psycopg.connect(url, user="app", password="canary-app") as client:
        assert client.execute("SELECT current_user").fetchone() == ("app",)


def test_it_keeps_its_port_over_a_stop(pgbouncer):
    """Clients find it again where it was."""
    bouncer = pgbouncer()
    port = bouncer.port
    bouncer.stop()
    assert not bouncer.running
    bouncer.start()
    assert (bouncer.port, bouncer.running) == (port, True)


def test_a_wrong_setting_is_shown(pgbouncer):
    """The error has the end of its log."""
    with pytest.raises(LabError, match="no_such_setting"):
        pgbouncer(settings={"no_such_setting": "1"})


def test_a_missing_pgbouncer_says_how_to_install_it(monkeypatch):
    """The error names the commands."""
    monkeypatch.setattr(pgbouncer.shutil, "which", lambda *_, **__: None)
    with pytest.raises(LabError, match="apt-get install pgbouncer"):
        pgbouncer.find_pgbouncer()
