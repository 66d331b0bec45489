"""TLS and IAM at the lab's RDS Proxy: its refusals, and the login of an engine of ours by token."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest
import trustme
from sqlalchemy import text

import lambdadb
from lambdadb import ConnectFailed, Fault, ResumeRetry
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.deadline import Clock
from lambdadb.lab import LabError
from lambdadb.lab.rds_proxy import IamLogins, RdsProxy

HOST = "orders.proxy-c9.eu-west-1.rds.amazonaws.com"
CLUSTER = "orders.cluster-c9.eu-west-1.rds.amazonaws.com"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
    "AWS_SESSION_TOKEN": "canary-session-token",
}
LOGINS = IamLogins(
    endpoint=f"{HOST}:5432",
    region="eu-west-1",
    access_key=KEYS["AWS_ACCESS_KEY_ID"],
    secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    session_token=KEYS["AWS_SESSION_TOKEN"],
)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    """The proxy's side of TLS, with a certificate of its endpoint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    return context


@pytest.fixture
def rds_proxy(server, tls):
    """Starts one with TLS, and with what a test needs besides."""
    with ExitStack() as stack:
        yield lambda **keywords: stack.enter_context(RdsProxy(server, tls=tls, **keywords))


@pytest.fixture
def make_engine(authority, tmp_path, monkeypatch):
    """Makes engines that log in with tokens, and verify the proxy by its own host name."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    made = []

    def make(proxy, host=HOST, **keywords):
        url = f"postgresql+psycopg://postgres@{HOST}:{proxy.port}/postgres?hostaddr=127.0.0.1"
        credentials = RdsIam(host=host, port=5432, **keywords)
        made.append(
            lambdadb.create_engine(
                url,
                credentials=credentials,
                connect_args={"sslrootcert": str(roots)},
                retry=ResumeRetry(timeout=60.0),
            )
        )
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def test_a_token_through_a_verified_proxy(rds_proxy, make_engine):
    """The function's keys sign for the proxy's endpoint; the server's password stays in the proxy."""
    proxy = rds_proxy(requires_tls=True, iam=LOGINS)
    engine = make_engine(proxy)
    for _ in range(7):
        with engine.begin() as connection:
            assert connection.scalar(text("SELECT :a"), {"a": "x"}) == "x"
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert (driver.proxy, driver.pgconn.ssl_in_use) == ("rds-proxy", True)
    assert proxy.pins == []


class Late(Clock):
    """A clock that is sixteen minutes late."""

    def moment(self):
        monotonic, wall = super().moment()
        return monotonic, wall - 960.0


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ({"host": CLUSTER}, LOGINS),
        ({"region": "eu-central-1"}, LOGINS),
        ({"clock": Late()}, LOGINS),
        ({}, replace(LOGINS, secret_key="canary-of-another-role")),
    ],
    ids=["host", "region", "expired", "role"],
)
def test_a_token_for_something_else_is_refused(given, accepted, rds_proxy, make_engine):
    """At once, as AWS does; the error says which of them to look at, and shows no token."""
    proxy = rds_proxy(iam=accepted)
    with pytest.raises(ConnectFailed) as caught:
        make_engine(proxy, **given).connect()
    assert caught.value.fault is Fault.CREDENTIALS
    said = str(caught.value)
    assert "IAM authentication failed for user" in said
    assert "signed for the proxy's own endpoint" in said
    assert "prx-" in said


def test_a_password_is_no_token(rds_proxy):
    """Where IAM is required the server's own password does not help."""
    proxy = rds_proxy(iam=LOGINS)
    with pytest.raises(psycopg.OperationalError, match="IAM authentication failed for user postgres"):
        psycopg.connect(proxy.url().replace("+psycopg", ""), sslmode="require")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"requires_tls": True}, "This RDS Proxy requires TLS connections"),
        ({"iam": LOGINS}, "allowed only with SSL connections"),
    ],
)
def test_a_client_without_tls_is_refused(keywords, said, rds_proxy):
    """In the proxy's words; lambdadb's error says what to remove."""
    proxy = rds_proxy(**keywords)
    with pytest.raises(psycopg.OperationalError, match=said):
        psycopg.connect(proxy.url().replace("+psycopg", ""), sslmode="disable")
    engine = lambdadb.create_engine(f"{proxy.url()}?sslmode=disable")
    with pytest.raises(ConnectFailed, match="Remove sslmode=disable") as caught:
        engine.connect()
    assert caught.value.fault is Fault.MISCONFIGURED


def test_a_password_through_tls(rds_proxy):
    """TLS is offered, and not required unless the proxy is told so."""
    proxy = rds_proxy()
    for mode in ("require", "disable"):
        with psycopg.connect(proxy.url().replace("+psycopg", ""), sslmode=mode) as client:
            assert client.pgconn.ssl_in_use is (mode == "require")
            assert client.execute("SELECT 1").fetchone() == (1,)


def test_iam_needs_tls(server):
    """A proxy that could not be used is not started."""
    with pytest.raises(LabError, match="needs tls="):
        RdsProxy(server, iam=LOGINS)


def test_boto3s_token_is_accepted(monkeypatch):
    """The check is of the signature, whoever made it."""
    boto3 = pytest.importorskip("boto3")
    session = boto3.Session(*KEYS.values(), region_name="eu-west-1")
    made = session.client("rds").generate_db_auth_token(HOST, 5432, "app")
    now = Clock().moment()[1]
    assert LOGINS.accepts(made, "app", at=now)
    assert not LOGINS.accepts(made, "admin", at=now)
    assert not LOGINS.accepts(made, "app", at=now + 1000.0)
    assert not LOGINS.accepts(made.replace("Signature=", "Signature=0"), "app", at=now)
    assert not LOGINS.accepts("canary-password", "app", at=now)
