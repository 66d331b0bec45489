"""TLS with MariaDB, and logins of MySQL 8 at a scripted server: whom a password is given to."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from pathlib import Path

import pytest
import trustme
from sqlalchemy import make_url, text

import lambdadb
from lambdadb import ConnectFailed, Fault, ResumeRetry
from lambdadb.credentials.rds_iam import RdsIam
from lambdadb.deadline import Clock
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.pymysql.driver import PyMySQLDriver
from lambdadb.lab.faultproxy.proxy import Direction
from lambdadb.lab.postgres.binaries import server_user

from .conftest import PASSWORD, start
from .scripted_login import ScriptedLogin

HOST = "db.example"
CIPHER = text(
    "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_version'"
)
# A second server takes seconds to start where all tests run at once. The scripted one shows the same.
with_its_own_server = pytest.mark.sweep
TOKEN = "canary-token" + "x" * 1000


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(organization_name="The Example Authority")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert(HOST)


@pytest.fixture(scope="module")
def files(authority, certificate):
    """The server's files, which its own user can read."""
    directory = Path(tempfile.mkdtemp(prefix="lambdadb-tls-"))
    directory.chmod(0o755)
    authority.cert_pem.write_to_path(str(directory / "roots.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(directory / "cert.pem"), append=True)
    if (owner := server_user()) is not None:
        shutil.chown(directory / "key.pem", owner)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def secure(files):
    """A MariaDB with TLS, by a name that is not this machine's."""
    settings = {"ssl-cert": str(files / "cert.pem"), "ssl-key": str(files / "key.pem")}
    with start(settings) as server:
        yield make_url(server.url(host=HOST))


@pytest.fixture(autouse=True)
def names(monkeypatch, files):
    """`*.example` is this machine, and the system's roots are those of the authority."""
    resolve = socket.getaddrinfo

    def answer(host, *arguments, **keywords):
        name = host.decode() if isinstance(host, bytes) else host
        here = isinstance(name, str) and name.endswith((".example", ".amazonaws.com"))
        return resolve("127.0.0.1" if here else host, *arguments, **keywords)

    monkeypatch.setattr("socket.getaddrinfo", answer)
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "roots.pem"))


def connected(mode, url, **keywords):
    """The version of TLS that the server sees."""

    def steps():
        engine = mode.create_engine(url, **keywords)
        with engine.connect() as connection:
            found = connection.scalar(CIPHER)
        engine.dispose()
        return found

    return mode.run(steps)


def refusal(mode, url, **keywords):
    """The error of a connect that is refused at once."""

    def steps():
        engine = mode.create_engine(url, retry=ResumeRetry(timeout=10.0), **keywords)
        with pytest.raises(ConnectFailed) as raised:
            engine.connect()
        return raised.value

    error = mode.run(steps)
    assert error.fault is Fault.UNTRUSTED
    assert error.attempts <= 1
    return error


@with_its_own_server
def test_a_verified_server_gets_the_login(mode, secure):
    """With nothing said about TLS: encrypted, and verified with the system's roots."""
    assert connected(mode, secure).startswith("TLSv1.")


@with_its_own_server
def test_a_certificate_for_another_name_is_refused(mode, secure):
    """The message says what to do; by choice, the authority alone is verified."""
    other = secure.set(host="other.example")
    assert "Connect by a name in the certificate" in str(refusal(mode, other))
    assert connected(mode, other.update_query_dict({"ssl_verify_identity": "false"}))


@with_its_own_server
def test_an_unknown_authority_is_refused(mode, secure, tmp_path):
    """With the roots of another one."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    url = secure.update_query_dict({"ssl_ca": str(tmp_path / "other.pem")})
    assert "unable to get local issuer certificate" in str(refusal(mode, url))


@with_its_own_server
def test_roots_of_rds_are_those_of_the_region(mode, secure):
    """A name of RDS is verified with the package's own roots, which have not signed this server."""
    url = secure.set(host="orders.cluster-c9.eu-west-1.rds.amazonaws.com")
    assert "unable to get local issuer certificate" in str(refusal(mode, url))


def test_nothing_is_sent_to_a_server_without_tls(mode, server):
    """It is never PREFERRED: a server that offers no TLS gets not a byte."""
    url = make_url(server.url).set(host=HOST)
    server.proxy.arm(None)
    assert "offers no TLS" in str(refusal(mode, url))
    assert all(m.direction is Direction.SERVER_TO_CLIENT for m in server.proxy.messages)


class Store:
    """Gives a token, as RdsIam does."""

    requires_verified_server = True

    def logins(self, parameters):
        return [{"user": "app", "password": TOKEN}]


def test_a_token_is_never_sent_in_clear(mode, server):
    """Not to this machine either, and not where the caller asked for no TLS."""
    url = make_url(server.url)._replace(username=None, password=None)
    server.proxy.arm(None)
    refusal(mode, url, credentials=Store())
    assert all(m.direction is Direction.SERVER_TO_CLIENT for m in server.proxy.messages)
    disabled = url.update_query_dict({"ssl_disabled": "true"})
    with pytest.raises(lambdadb.InvalidSettings, match="has to be verified"):
        lambdadb.create_engine(disabled, credentials=Store(), allow_unverified_server=True)


def test_no_tls_by_choice(mode, server, log):
    """In a network of one's own: a challenge is answered, which shows no password; and a warning."""
    url = make_url(server.url).set(host=HOST).update_query_dict({"ssl_disabled": "true"})
    assert connected(mode, url) == ""
    assert "sends everything as plain text" in log.text


def log_in(plugin, context, **parameters):
    """Log in at a scripted server; what it was told, and the failure if there was one."""
    login = ScriptedLogin(plugin, context)
    place = {"host": HOST, "port": login.port, "user": "app", "password": TOKEN}
    target = PyMySQLDriver().make_target([], {**place, **parameters})
    attempt = target.add_tls_defaults(always=False).begin_attempt(0)
    failure = None
    try:
        while not attempt.advance():
            assert Clock().wait({attempt.socket: attempt.event}, 30)
    except AttemptFailed as error:
        failure = error
    attempt.close()
    if attempt.connection is not None:
        attempt.connection.terminate()
    login.close()
    return login.answers, failure


@pytest.fixture
def context(certificate):
    """The scripted server's TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "mysql_clear_password"])
def test_inside_of_verified_tls_the_password_is_sent(plugin, context):
    """A token of 1,000 characters arrives whole. The server is scripted, since MariaDB has neither."""
    answers, failure = log_in(plugin, context)
    assert failure is None
    assert answers == [TOKEN.encode() + b"\0"]


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "mysql_clear_password"])
def test_without_tls_the_password_is_not_sent(plugin):
    """Neither in clear, nor encrypted with a key that anybody in the way may have made."""
    answers, failure = log_in(plugin, None, ssl_disabled="true")
    assert failure.fault is Fault.UNTRUSTED
    assert "not sent" in failure.text
    assert answers in ([], [b"\x02"])  # nothing, or the question for the key


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "mysql_clear_password"])
def test_a_server_that_hides_its_tls_gets_nothing(plugin):
    """As somebody in the way would do it."""
    answers, failure = log_in(plugin, None)
    assert failure.fault is Fault.UNTRUSTED
    assert answers == []


@with_its_own_server
def test_iam_logs_in_with_a_token_for_mysqls_port(mode, secure, files, monkeypatch):
    """`RdsIam` as on PostgreSQL, signed for the host and 3306. This server takes it for a password."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary-key")
    told = []
    monkeypatch.setattr(
        "lambdadb.credentials.rds_iam.presign_url",
        lambda keys, place, *rest, **more: told.append(place) or TOKEN,
    )
    url = secure._replace(password=None)

    def steps():
        engine = mode.create_engine(url, credentials=RdsIam(region="eu-west-1", port=3306))
        with pytest.raises(ConnectFailed) as raised:
            engine.connect()
        assert raised.value.fault is Fault.CREDENTIALS

    mode.run(steps)
    assert told == [f"{HOST}:3306"]


@with_its_own_server
def test_a_rotated_password_is_followed(mode, secure):
    """The store is asked again when the server refuses a login."""

    class Rotated:
        def logins(self, parameters):
            yield {"password": "canary-old"}
            yield {"password": PASSWORD}

    assert connected(mode, secure._replace(password=None), credentials=Rotated())
