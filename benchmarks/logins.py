"""
What a login costs: round trips on the wire and the client's processor time, by login and by TLS.

A PostgreSQL with TLS of its own in a container, whose image is in LAMBDADB_POSTGRES_IMAGE. Round trips
are counted in front of it by the lab's tunnel, which also delays them: whoever speaks twice without
waiting for an answer is counted once. Processor time is that of the connecting thread, without the
tunnel. Each case runs twice: as OpenSSL is, and with P-256 as the key share of its first message, in a
process with a file in OPENSSL_CONF.

    nox -s logins                    a table
    nox -s logins -- --json          one JSON list
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import trustme
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL
from testcontainers.community.postgres import PostgresContainer

import lambdadb
from lambdadb.lab.aurora.tunnel import Tunnel
from lambdadb.lab.clock import LabClock

HOST, DATABASE = "db.example", "postgres"
ROUND_TRIP = 0.01  # seconds
COUNTED, TIMED, BLOCKS = 3, 10, 10  # connects of a case, the second in each block

# Users by the name of their login in pg_hba.conf; the password of `password` is as long as a token of
# IAM, which travels in the same message.
PASSWORDS = {"trust": None, "password": "t" * 1152, "scram-sha-256": "canary"}
OPENSSL_CONF = """
openssl_conf = main
[main]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
Groups = P-256:X25519
"""


@dataclass(frozen=True)
class Case:
    """A way to log in, and what the URL says for it."""

    login: str
    transport: str
    query: dict[str, str]


TRANSPORTS: dict[str, dict[str, str]] = {
    "plain": {"sslmode": "disable"},
    "TLS": {},
    "direct TLS": {"sslnegotiation": "direct"},
}
VARIANTS = (
    ("channel_binding", "require"),
    ("channel_binding", "disable"),
    ("require_auth", "scram-sha-256"),
    ("gssencmode", "prefer"),  # the default of libpq, but not of psycopg's newer wheels
)
CASES = [Case(login, name, query) for name, query in TRANSPORTS.items() for login in PASSWORDS]
CASES += [Case("scram-sha-256", f"TLS, {name}={value}", {name: value}) for name, value in VARIANTS]


@dataclass(frozen=True)
class Server:
    """Where it listens, the file of roots that it is verified with, and what it is."""

    address: str
    port: int
    roots: str
    version: int

    def engine(self, case: Case, port: int) -> Any:
        """An engine that connects at every checkout and has asked its questions."""
        url = URL.create(
            "postgresql+psycopg", case.login, PASSWORDS[case.login], HOST, port, DATABASE
        ).update_query_dict({"hostaddr": self.address, "sslrootcert": self.roots, **case.query})
        engine = lambdadb.create_engine(url, policy=lambdadb.PerInvocation())
        engine.connect().close()
        return engine


class Wire:
    """A port in front of a server, on which each connection's round trips are counted and delayed."""

    def __init__(self, server: Server) -> None:
        self.round_trips: list[int] = []
        self._target = (server.address, server.port)
        self._listener = socket.create_server((server.address, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=asyncio.run, args=[self._accept()], daemon=True).start()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        serving = set()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            serving.add(task := asyncio.create_task(self._serve(client)))
            task.add_done_callback(serving.discard)

    async def _serve(self, client: socket.socket) -> None:
        number = len(self.round_trips)
        self.round_trips.append(0)

        def count() -> None:
            self.round_trips[number] += 1

        with client, socket.socket() as server:
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(server, self._target)
            await Tunnel(client, LabClock(), ROUND_TRIP, count).forward(server, b"")


def counted(server: Server) -> list[int]:
    """Round trips of a connect, the same each time, by case."""
    wire = Wire(server)
    rows = []
    for case in CASES:
        engine = server.engine(case, wire.port)
        costs = set()
        for _ in range(COUNTED):
            with engine.connect():
                costs.add(wire.round_trips[-1])
        (cost,) = costs
        rows.append(cost)
    return rows


def timed(server: Server) -> list[list[float]]:
    """Milliseconds of processor time of each connect, by case."""
    rows = []
    for case in CASES:
        engine = server.engine(case, server.port)
        times = []
        for _ in range(TIMED):
            started = time.thread_time()
            with engine.connect():
                times.append((time.thread_time() - started) * 1e3)
        rows.append(times)
    return rows


@contextmanager
def process(**environment: str) -> Iterator[ProcessPoolExecutor]:
    """A process of its own, which had these environment variables before it loaded OpenSSL."""
    context = multiprocessing.get_context("spawn")
    quiet = logging.disable  # as to the warning that `plain` is plain
    with ProcessPoolExecutor(1, context, initializer=quiet) as pool:
        os.environ.update(environment)
        pool.submit(os.getpid).result()
        for name in environment:
            del os.environ[name]
        yield pool


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """A server with TLS and a user for each login."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(str(directory / "root.pem"))
    image = os.environ.get("LAMBDADB_POSTGRES_IMAGE", "pgvector/pgvector:pg17")
    with PostgresContainer(image, username="postgres", dbname=DATABASE) as container:
        dsn = container.get_connection_url(driver=None)
        with psycopg.connect(dsn, autocommit=True) as admin:
            address = socket.gethostbyname(admin.info.host)
            roots = str(directory / "root.pem")
            server = Server(address, admin.info.port, roots, admin.info.server_version)
            for login, password in PASSWORDS.items():
                admin.execute(f"CREATE ROLE \"{login}\" LOGIN PASSWORD '{password or ''}'")
            rules = [f'host all "{login}" all {login}' for login in PASSWORDS]
            write(admin, "cat - pg_hba.conf > new && mv new pg_hba.conf", rules)
            chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems).decode()
            write(admin, "cat > server.crt", chain.splitlines())
            key = certificate.private_key_pem.bytes().decode()
            write(admin, "umask 077; cat > server.key", key.splitlines())
            admin.execute("ALTER SYSTEM SET ssl = on")
            admin.execute("SELECT pg_reload_conf()")
        until_ready(f"host={address} port={server.port} user=trust dbname={DATABASE} sslmode=require")
        yield server


def write(admin: psycopg.Connection[Any], command: str, lines: list[str]) -> None:
    """Lines to the input of a command in the server's data directory."""
    query = psycopg.sql.SQL("COPY (SELECT unnest({}::text[])) TO PROGRAM {}")
    admin.execute(query.format(lines, command))


def until_ready(conninfo: str) -> None:
    """Wait until the server has read its files again."""
    end = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(conninfo).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def measured(server: Server, directory: Path) -> list[dict[str, Any]]:
    """Every case, as OpenSSL is and with P-256 first; blocks alternate, so that noise meets both."""
    conf = directory / "openssl.cnf"
    conf.write_text(OPENSSL_CONF)
    with process() as default, process(OPENSSL_CONF=str(conf)) as p256:
        pools = {"default": default, "P-256": p256}
        counts = {name: pool.submit(counted, server).result() for name, pool in pools.items()}
        blocks: dict[str, list[list[list[float]]]] = {name: [] for name in pools}
        for _ in range(BLOCKS):
            for name, pool in pools.items():
                blocks[name].append(pool.submit(timed, server).result())
    rows = []
    for number, case in enumerate(CASES):
        row: dict[str, Any] = {"server": server.version, "libpq": psycopg.pq.version(), **asdict(case)}
        for name in pools:
            times = sorted(t for block in blocks[name] for t in block[number])
            low, high = times[len(times) // 20], times[-len(times) // 20]
            row[name] = {"round_trips": counts[name][number], "cpu_ms": statistics.median(times)}
            row[name]["cpu_ms_5_95"] = low, high
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as server:
        rows = measured(server, Path(directory))
    if chosen.json:
        print(json.dumps(rows))
        return
    title = f"PostgreSQL {rows[0]['server']}, libpq {rows[0]['libpq']}"
    table = Table("login", "transport", title=title)
    for name in ("default", "P-256"):
        for heading in ("round trips", "ms of CPU (5 to 95 %)"):
            table.add_column(f"{name}\n{heading}", justify="right")
    for row in rows:
        cells = [row["login"], row["transport"]]
        for one in (row["default"], row["P-256"]):
            low, high = one["cpu_ms_5_95"]
            cells += [str(one["round_trips"]), f"{one['cpu_ms']:.2f} ({low:.2f} to {high:.2f})"]
        table.add_row(*cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
