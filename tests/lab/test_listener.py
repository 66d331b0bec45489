"""A port of the lab: where it listens, and when its number is free again."""

from __future__ import annotations

import socket
import time

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.aurora import Cluster
from lambdadb.lab.listener import Listener
from lambdadb.lab.postgres import Postgres


def test_a_port_is_free_again_while_a_client_holds_its_end(postgres: Postgres) -> None:
    """A frozen client closes nothing; the next cluster gets the port all the same."""
    with Cluster(postgres) as cluster:
        port = cluster.port
        frozen = socket.create_connection(("127.0.0.1", port))
        frozen.sendall(b"\x00")
        end = time.monotonic() + 60.0
        while cluster.connects == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
    with frozen, Cluster(postgres, port=port) as cluster:
        url = cluster.url().replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_address_of_another_machine_is_refused() -> None:
    """It is named, with the system's words."""
    with pytest.raises(LabError, match=r"on 203\.0\.113\.1 cannot be used"):
        Listener(0, lambda client: None, host="203.0.113.1")
