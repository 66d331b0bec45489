"""TLS: whom a login is given to, and what is said of those to whom it is not. Real handshakes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from sqlalchemy import URL, text

from lambdadb import ConnectFailed, Fault, PerEnvironment, PerInvocation, ResumeRetry
from lambdadb.drivers.psycopg import tls
from lambdadb.lab.aurora import Server
from lambdadb.lab.postgres import Postgres
from lambdadb.policy import Policy
from lambdadb.testing.databases import Admin

HOST = "db.example"
LONG = "long_password"
PID = text("SELECT pg_backend_pid()")


class Relay:
    """Speaks TLS to clients and plain PostgreSQL to the server, whose embedded build has none."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serving: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def show(self, certificate: trustme.LeafCert) -> None:
        """Have this certificate from now on."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)

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
                self.context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(self._target) as server,
            ):
                back = threading.Thread(target=pump, args=[server, inside], daemon=True)
                back.start()
                pump(inside, server)
                back.join()

    def wait(self) -> None:
        """Wait until every session so far has ended, towards the client too."""
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


class Own:
    """PostgreSQL's own TLS, switched on while it runs."""

    def __init__(self, admin: Admin, port: int) -> None:
        self._admin = admin
        self.port = port

    def show(self, certificate: trustme.LeafCert) -> None:
        """Have this certificate from now on."""
        write(self._admin, "umask 077; cat > server.key", certificate.private_key_pem.bytes())
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        write(self._admin, "cat > server.crt", chain)
        self._admin.execute("ALTER SYSTEM SET ssl = on")
        reload(self._admin)

    def wait(self) -> None:
        """The server has no relay behind which a client could lag."""

    def close(self) -> None:
        self._admin.execute("ALTER SYSTEM RESET ssl")
        reload(self._admin)


def write(admin: Admin, command: str, lines: bytes) -> None:
    """Lines to the input of a command on the server's machine, in its data directory."""
    query = psycopg.sql.SQL("COPY (SELECT unnest({}::text[])) TO PROGRAM {}")
    admin.execute(query.format(lines.decode().splitlines(), command))


def reload(admin: Admin) -> None:
    """New sessions find the files as they are now."""
    began = admin.execute("SELECT clock_timestamp(), pg_reload_conf()").fetchone()
    dsn = f"{admin.url.replace('+psycopg', '', 1)}?sslmode=disable"
    end = time.monotonic() + 10
    loaded = False
    while not loaded:
        assert time.monotonic() < end, "the server's files were not loaded again"
        with psycopg.connect(dsn) as connection:
            query = "SELECT pg_conf_load_time() >= %s"
            (loaded,) = connection.execute(query, began[:1]).fetchone()  # type: ignore[index,misc]


class Secure:
    """A server behind TLS, and what its clients need: its authority's file of roots."""

    def __init__(
        self, server: Relay | Own, url: URL, roots: Path, certificate: trustme.LeafCert
    ) -> None:
        self._server = server
        self._url = url.set(host=HOST, port=server.port)
        self._certificate = certificate
        self.roots = str(roots)
        self.address = socket.gethostbyname(str(url.host))
        self.wait = server.wait

    def url(self, database: str = "postgres", **query: str) -> URL:
        """By a name that is not this machine's, whatever its address."""
        query = {"hostaddr": self.address, "sslrootcert": self.roots, **query}
        return self._url.set(database=database).update_query_dict(query)

    @contextlib.contextmanager
    def showing(self, certificate: trustme.LeafCert) -> Iterator[None]:
        """While the server has another certificate."""
        self._server.show(certificate)
        try:
            yield
        finally:
            self._server.show(self._certificate)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="The Example Authority")


@pytest.fixture(scope="module")
def secure(
    request: pytest.FixtureRequest,
    postgres_server: Server,
    server: URL,
    admin: Admin,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secure]:
    place = (str(server.host), int(server.port or 5432))
    # The embedded server has no TLS of its own.
    relayed = isinstance(postgres_server, Postgres) and not request.config.getoption("--proxy")
    encrypting: Relay | Own = Relay(place) if relayed else Own(admin, place[1])
    certificate = authority.issue_cert(HOST)
    encrypting.show(certificate)
    roots = tmp_path_factory.mktemp("tls") / "root.pem"
    authority.cert_pem.write_to_path(str(roots))
    yield Secure(encrypting, server, roots, certificate)
    encrypting.close()


def refusal(mode: Any, url: URL) -> ConnectFailed:
    """The error of a connect that is refused at once."""
    engine = mode.create_engine(url, retry=ResumeRetry(timeout=10.0))

    def steps() -> None:
        with engine.connect():
            pass

    with pytest.raises(ConnectFailed) as caught:
        mode.run(steps)
    assert caught.value.fault is Fault.UNTRUSTED
    assert caught.value.attempts <= 1
    assert str(url.password) not in repr(caught.value)
    return caught.value


def connected(mode: Any, url: URL, query: str = "SELECT current_user") -> tuple[bool, Any]:
    """Whether the session is encrypted, and the answer to a query in it."""
    engine = mode.create_engine(url)

    def steps() -> tuple[bool, Any]:
        with engine.connect() as connection:
            pgconn = connection.connection.driver_connection.pgconn
            answer = bool(pgconn.ssl_in_use), connection.scalar(text(query))
        engine.dispose()
        return answer

    answer: tuple[bool, Any] = mode.run(steps)
    return answer


def test_a_verified_server_gets_the_login(mode: Any, secure: Secure) -> None:
    """With nothing but the roots said, the session is encrypted and the server verified."""
    assert connected(mode, secure.url()) == (True, "postgres")


def test_a_certificate_for_another_name_is_refused(mode: Any, secure: Secure) -> None:
    """verify-full is the default; the message says both names and what to do."""
    error = refusal(mode, secure.url().set(host="other.example"))
    assert f'certificate for "{HOST}" does not match host name "other.example"' in str(error)
    assert "not an alias" in str(error)
    assert connected(mode, secure.url(sslmode="verify-ca").set(host="other.example"))[0]


def test_an_unknown_authority_is_refused_and_named(
    mode: Any, secure: Secure, authority: trustme.CA, tmp_path: Path
) -> None:
    """The message says who signed the certificate, where the roots came from, and what to do."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    error = str(refusal(mode, secure.url(sslrootcert=str(other))))
    assert "unable to get local issuer certificate. Its authority is 'The Example Authority'." in error
    assert f"The roots were those of {other}. If you trust that authority" in error


@pytest.mark.parametrize(
    ("name", "roots", "advice"),
    [
        (
            "Amazon RDS eu-west-1 Root CA RSA2048 G1",
            "eu-west-2",
            "RDS in eu-west-1: connect to the endpoint",
        ),
        ("Amazon RDS eu-west-1 Root CA RSA2048 G2", "eu-west-1", "eu-west-1/eu-west-1-bundle.pem"),
        ("Amazon Root CA 1", "eu-west-1", "roots/proxy.pem"),
    ],
)
def test_amazons_authorities_are_recognised(
    mode: Any, secure: Secure, name: str, roots: str, advice: str
) -> None:
    """Other roots than the host's, behind an alias, or older ones: the message says so."""
    with secure.showing(trustme.CA(organization_name=name).issue_cert(HOST)):
        assert advice in str(refusal(mode, secure.url(sslrootcert=str(tls.ROOTS / f"{roots}.pem"))))


def test_the_second_look_asks_for_the_same_name(
    mode: Any, server: URL, secure: Secure, authority: trustme.CA
) -> None:
    """Where the name decides which certificate is shown, the one that libpq refused is looked at."""
    names: list[str | None] = []
    relay = Relay((str(server.host), int(server.port or 5432)))
    relay.show(trustme.CA().issue_cert(HOST))
    relay.context.sni_callback = lambda _, name, __: names.append(name)
    refusal(mode, secure.url(hostaddr="127.0.0.1").set(port=relay.port))
    relay.close()
    assert names == [HOST] * 3


@pytest.mark.parametrize(("answer", "why"), [(b"N", "speaks no TLS now"), (b"", "TimeoutError")])
def test_a_second_look_that_fails_is_told(answer: bytes, why: str, tmp_path: Path) -> None:
    """The refusal stays, when the server is gone or silent by then; the wait has an end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(answer)
                client.recv(9)
                client.recv(9)

        threading.Thread(target=serve, daemon=True).start()
        refused = f'server at "127.0.0.1", port {port} failed: SSL error: certificate verify failed'
        explained = tls.explain_rejection({"host": HOST, "sslrootcert": "/root.pem"}, refused, 1.0)
    assert explained.startswith(f"{refused}: a second look, to tell why, failed")
    assert why in explained


def test_an_expired_certificate_is_refused(mode: Any, secure: Secure, authority: trustme.CA) -> None:
    """libpq says only that it failed; the message says why."""
    past = datetime.now(timezone.utc) - timedelta(days=1)
    certificate = authority.issue_cert(HOST, not_before=past - timedelta(days=1), not_after=past)
    with secure.showing(certificate):
        error = str(refusal(mode, secure.url()))
    assert "certificate has expired. Its authority is 'The Example Authority'." in error
    assert "Renew the server's certificate" in error


def test_the_roots_have_to_be_there(mode: Any, secure: Secure, tmp_path: Path) -> None:
    """A path that is wrong is said, and no other roots are taken."""
    missing = tmp_path / "missing.pem"
    assert f'root certificate file "{missing}" does not exist' in str(
        refusal(mode, secure.url(sslrootcert=str(missing)))
    )


def test_an_endpoint_of_a_region_without_roots_is_not_connected_to(mode: Any, secure: Secure) -> None:
    """Nor is the reason hidden behind the network."""
    url = (
        secure.url()
        .set(host="orders.abc.eu-moon-7.rds.amazonaws.com")
        .difference_update_query(["sslrootcert"])
    )
    error = refusal(mode, url)
    assert "eu-moon-7/eu-moon-7-bundle.pem" in str(error)
    assert error.attempts == 0


@pytest.fixture
def plain() -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server without TLS, and all that it is sent."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    heard.append(client.recv(8))
                    client.sendall(b"N")
                    while data := client.recv(65536):
                        heard.append(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], heard
    listener.close()


def test_a_server_without_tls_is_told_nothing(
    mode: Any, secure: Secure, plain: tuple[int, list[bytes]]
) -> None:
    """It gets the question whether it speaks TLS, and neither user nor password."""
    port, heard = plain
    error = refusal(mode, secure.url(hostaddr="127.0.0.1").set(port=port))
    assert heard == [bytes.fromhex("0000000804d2162f")]
    assert "server does not support SSL, but SSL was required" in str(error)
    assert "?sslmode=disable" in str(error)


def test_an_explicit_choice_is_respected(mode: Any, secure: Secure, server: URL) -> None:
    """Whoever asks for plain text, in a network of their own, gets it."""
    query = {"hostaddr": secure.address, "sslmode": "disable"}
    assert connected(mode, server.set(host=HOST).update_query_dict(query)) == (False, "postgres")


@pytest.fixture
def long_password(admin: Admin, request: pytest.FixtureRequest) -> Iterator[str]:
    """A password as long as an IAM token, of a user that has to send it as it is."""
    password = ("token/%2F&=" * request.param)[: request.param]
    admin.execute(
        psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
            psycopg.sql.Identifier(LONG), password
        )
    )
    rule = f"host all {LONG} all password".encode()
    write(admin, "cat - pg_hba.conf > new_hba.conf && mv new_hba.conf pg_hba.conf", rule)
    reload(admin)
    yield password
    admin.execute(f"DROP ROLE {LONG}")


@pytest.mark.parametrize("long_password", [1200, 2500], indirect=True)
def test_a_password_as_long_as_a_token_arrives(mode: Any, secure: Secure, long_password: str) -> None:
    """Through the URL, libpq and TLS, in clear as IAM authentication wants it, not a byte lost."""
    # libpq 16 and later can refuse every other way to log in.
    only = {"require_auth": "password"} if psycopg.pq.version() >= 160000 else {}
    url = secure.url(**only).set(username=LONG, password=long_password)
    assert connected(mode, url) == (True, LONG)


@pytest.mark.parametrize("policy", [PerEnvironment(), PerInvocation()])
def test_a_killed_session_is_replaced(
    mode: Any, policy: Policy, secure: Secure, database: URL, sessions: Any
) -> None:
    """The end of a session behind TLS reaches no handler, in both policies."""
    engine = mode.create_engine(secure.url(str(database.database)), policy=policy)

    def steps() -> None:
        pids = []
        for _ in range(3):
            with mode.invocation(engine):
                for _ in range(2):
                    with engine.begin() as connection:
                        pids.append(connection.scalar(PID))
                    sessions.terminate()
                    secure.wait()
        assert len(set(pids)) == 6
        engine.dispose()

    mode.run(steps)
