"""What a store of logins is told and may give, whatever the driver calls it."""

from __future__ import annotations

from typing import Any

import pytest

from lambdadb import ConnectFailed, Fault
from lambdadb.credentials import LoginIterator
from lambdadb.drivers.base import AttemptFailed

from .conftest import connect as open_connection

SILENCE = AttemptFailed(Fault.UNREACHABLE, "no answer", silent=True)


class Store:
    """Gives what it is told to, and remembers what it was told."""

    def __init__(self, *logins: Any) -> None:
        self.given = logins
        self.seen: list[Any] = []

    def logins(self, parameters: Any) -> Any:
        self.seen.append(parameters)
        return self.given


@pytest.fixture
def connect(connector_to):
    """Connects with a store; gives what the driver was sent."""

    def connect(store: Store, environment: dict[str, str] | None = None, **parameters: Any) -> Any:
        connector = connector_to(lambda now: (now, None), SILENCE, credentials=store)
        connector.environment = {"SSL_CERT_FILE": "/system.pem", **(environment or {})}
        open_connection(connector, **parameters)
        return connector.driver.sent[-1]

    return connect


def test_a_store_is_told_neutral_names(connect):
    """The words of SQLAlchemy's URL, and the driver's own parameters as they are."""
    store = Store({"password": "pw"})
    connect(store, user="u", host="localhost", port=5433, dbname="d", hostaddr="127.0.0.1")
    (seen,) = store.seen
    assert seen["user"], seen["host"] == ("u", "localhost")
    assert seen["port"] == 5433
    assert seen["database"] == "d"
    assert seen["hostaddr"] == "127.0.0.1"
    assert seen["default_port"] == 5432
    assert "dbname" not in seen


@pytest.mark.parametrize(("environment", "port"), [({}, 5432), ({"PGPORT": "6432"}, "6432")])
def test_a_store_is_told_the_drivers_default_port(connect, environment, port):
    """No store has to know the port of PostgreSQL."""
    store = Store({"password": "pw"})
    connect(store, environment, host="localhost")
    assert "port" not in store.seen[0]
    assert store.seen[0]["default_port"] == port


def test_an_address_counts_as_the_host(connect):
    """A store does not fill in a host where the URL names an address."""
    store = Store({"password": "pw"})
    connect(store, hostaddr="127.0.0.1")
    assert store.seen[0]["host"] == "127.0.0.1"


@pytest.mark.parametrize("name", ["database", "dbname"])
def test_a_login_by_neutral_names_reaches_the_driver_by_its_own(connect, name):
    """`database` is libpq's `dbname`, and both may be given; the rest is as it is."""
    login = {"user": "u", "password": "pw", "host": "localhost", "port": 6000, name: "d"}
    sent = connect(Store(login), dbname="url_db", user="url_user")
    assert {**login, "dbname": "d"}.items() - {("database", "d")} <= sent.items()
    assert "database" not in sent
    assert "default_port" not in sent


@pytest.mark.parametrize("login", [{"password": "canary-1\0x"}, {"password": "x", "user": "a\0"}])
def test_a_login_with_a_nul_character_is_refused(login):
    """libpq would take what comes before it, and show the rest as an error."""
    with pytest.raises(ValueError, match="NUL"):
        LoginIterator(Store(login), {}).next_login()


@pytest.mark.parametrize(
    ("parameters", "login"),
    [
        ({"host": "db.example"}, {"password": "pw", "sslmode": "disable"}),
        ({"sslmode": "disable"}, {"password": "pw", "host": "db.example"}),
        ({"host": "localhost", "sslmode": "require"}, {"password": "pw", "hostaddr": "10.0.0.7"}),
        ({"host": "localhost"}, {"password": "pw", "service": "orders"}),
    ],
)
def test_a_login_that_leads_to_an_unverified_server_is_not_sent(connector_to, parameters, login):
    """What a store gives is checked as what the URL says is."""
    connector = connector_to(lambda now: (now, None), SILENCE, credentials=Store(login))
    with pytest.raises(ConnectFailed, match="has to be verified") as caught:
        open_connection(connector, **parameters)
    assert caught.value.fault is Fault.UNTRUSTED
    assert connector.driver.sent == []
