"""Over TLS a dead session is found and replaced like any other; a real handshake, a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
import trustme
from sqlalchemy import text

import lambdadb
from lambdadb import PerEnvironment, PerInvocation, aio
from lambdadb.lab.postgres import Postgres
from lambdadb.policy import Policy

PID = text("SELECT pg_backend_pid()")
Behind = tuple[str, Callable[[int], None]]


class Terminator:
    """Speaks TLS to clients and plain PostgreSQL to the server, whose embedded build has none."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self._target = target
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serving: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[client], daemon=True)
                self._serving.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.recv(8)  # SSLRequest
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                back = threading.Thread(target=pump, args=[server, inside], daemon=True)
                back.start()
                pump(inside, server)
                back.join()

    def wait(self) -> None:
        """Wait until every connection so far has ended, towards the client too."""
        for thread in self._serving:
            thread.join(10)

    def close(self) -> None:
        self._listener.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def behind_tls(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[int], None]]]:
    """The server's URL behind TLS, with a certificate that is verified; and how to end a session."""
    authority = trustme.CA()
    root = tmp_path_factory.mktemp("tls") / "root.pem"
    authority.cert_pem.write_to_path(str(root))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    terminator = Terminator(postgres.port, context)
    options = f"?sslmode=verify-full&sslrootcert={root}&hostaddr=127.0.0.1"

    def kill(pid: int) -> None:
        with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        terminator.wait()

    yield postgres.url(host="localhost", port=terminator.port) + options, kill
    terminator.close()


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_a_killed_session_is_replaced(policy: Policy, behind_tls: Behind) -> None:
    """The end of a session behind TLS reaches no handler, in both policies."""
    url, kill = behind_tls
    engine = lambdadb.create_engine(url, policy=policy)
    pids = []
    for _ in range(3):
        with lambdadb.invocation(engine):
            for _ in range(2):
                with engine.begin() as connection:
                    assert connection.connection.driver_connection.pgconn.ssl_in_use  # type: ignore[union-attr]
                    pids.append(connection.scalar(PID))
                kill(pids[-1])
    assert len(set(pids)) == 6
    engine.dispose()


def test_a_killed_session_is_replaced_on_an_event_loop(behind_tls: Behind) -> None:
    """The same for an asynchronous engine."""
    url, kill = behind_tls

    async def main() -> None:
        engine = aio.create_async_engine(url)
        pids = []
        for _ in range(3):
            async with engine.begin() as connection:
                pids.append(await connection.scalar(PID))
            kill(pids[-1])
        assert len(set(pids)) == 3
        await engine.dispose()

    asyncio.run(main())
