"""How a proxy that shares the server's sessions is known, and what is not sent to it."""

from __future__ import annotations

import pytest

from lambdadb import InvalidSettings, PerEnvironment, create_engine
from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.psycopg.proxies import KnownProxies
from lambdadb.drivers.psycopg.target import PsycopgTarget
from lambdadb.faults import Fault

RDS_PROXY = "app.proxy-abc123.eu-west-1.rds.amazonaws.com"
CLUSTER = "app.cluster-abc123.eu-west-1.rds.amazonaws.com"


def make_target(host="db.example", *, chosen=None, **parameters):
    return PsycopgTarget(
        parameters={"host": host, **parameters},
        environment={},
        asyncio=False,
        proxies=KnownProxies(chosen),
    )


@pytest.mark.parametrize(
    ("host", "chosen", "proxy"),
    [
        (RDS_PROXY, None, "rds-proxy"),
        (CLUSTER, None, "none"),
        ("db.example", "rds-proxy", "rds-proxy"),
        ("db.example", "pgbouncer", "pgbouncer"),
        (RDS_PROXY, "none", "none"),
    ],
)
def test_the_setting_decides_and_otherwise_the_host_name(host, chosen, proxy):
    """An RDS Proxy is known by its name. The setting is for names that lead to one."""
    target = make_target(host, chosen=chosen)
    assert target.proxy == proxy
    assert target.attributes.get("lambdadb.proxy", "none") == proxy
    assert str(target).endswith(":5432" if proxy == "none" else f":5432 through {proxy}")


@pytest.mark.parametrize("proxy", ["rds-proxy", "pgbouncer"])
def test_only_documented_parameters_are_sent_to_a_proxy(proxy):
    """The tag stays. No timeout of ours is sent, and options of the caller's own are kept."""
    target = make_target(chosen=proxy).add_session_settings(PerEnvironment(), "orders")
    assert target.parameters["application_name"] == "orders"
    assert "options" not in target.parameters
    own = make_target(chosen=proxy, options="-c jit=off").add_session_settings(PerEnvironment(), None)
    assert own.parameters["options"] == "-c jit=off"


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("FATAL:  unsupported startup parameter: options", "pgbouncer"),
        ("FATAL:  unsupported startup parameter in options: idle_session_timeout", "pgbouncer"),
        (
            "FATAL:  Feature not supported: RDS Proxy currently doesn\u2019t support command-line "
            "options",
            "rds-proxy",
        ),
        (
            "FATAL:  Feature not supported: RDS Proxy currently doesn't support the option "
            "statement_timeout",
            "rds-proxy",
        ),
        ('FATAL:  password authentication failed for user "app"', "none"),
    ],
)
def test_a_refusal_shows_a_proxy_once(text, proxy):
    """The next attempt sends less. If it is refused too, the refusal is the caller's to read."""
    bare = make_target()
    target = bare.add_session_settings(PerEnvironment(), None)
    failure = AttemptFailed(Fault.MISCONFIGURED, text)
    assert target.learn(failure) is (proxy != "none")
    assert target.proxy == proxy
    if proxy != "none":
        assert bare.add_session_settings(PerEnvironment(), None).learn(failure) is False
    # Another connect of the engine, which had begun before the proxy was known, may learn it too.
    assert target.learn(failure) is (proxy != "none")


def test_a_refusal_changes_nothing_that_was_chosen():
    """proxy="none" is final: the refusal is raised."""
    target = make_target(chosen="none").add_session_settings(PerEnvironment(), None)
    refusal = AttemptFailed(Fault.MISCONFIGURED, "FATAL:  unsupported startup parameter: options")
    assert target.learn(refusal) is False


def test_servers_of_one_engine_are_told_apart():
    """What is learned about one address holds for it alone."""
    proxies = KnownProxies()
    pooler, direct = {"host": "pooler", "port": 6432}, {"host": "db", "port": 5432}
    assert proxies.learn_from_refusal(pooler, "unsupported startup parameter: options")
    assert proxies.proxy_of(pooler) == "pgbouncer"
    assert proxies.proxy_of(direct) == "none"


@pytest.mark.parametrize(("pid", "proxy"), [(4711, "none"), (2**22, "none"), (1968176635, "pgbouncer")])
def test_a_process_id_that_no_server_has_shows_a_pooler(pid, proxy):
    """pgbouncer sends 32 random bits, and Linux has no process ids above 4,194,304."""
    proxies = KnownProxies()
    proxies.learn_from_handshake({"host": "h"}, pid)
    assert proxies.proxy_of({"host": "h"}) == proxy


def test_another_process_id_in_the_session_shows_a_pooler():
    """The process id of the login is the server's own, or the session is somebody else's too."""
    proxies = KnownProxies()
    proxies.learn_from_session({"host": "h"}, 4711, 4711)
    assert proxies.proxy_of({"host": "h"}) == "none"
    proxies.learn_from_session({"host": "h"}, 4711, 4712)
    assert proxies.proxy_of({"host": "h"}) == "pgbouncer"


@pytest.mark.parametrize(("host", "keywords"), [(RDS_PROXY, {}), ("db.example", {"proxy": "pgbouncer"})])
def test_a_policy_that_resets_sessions_is_refused(host, keywords):
    """DISCARD ALL would reset a session of other clients, and pins a client of RDS Proxy."""
    url = f"postgresql+psycopg://app@{host}/orders"
    with pytest.raises(InvalidSettings, match="SET LOCAL"):
        create_engine(url, policy=PerEnvironment(reset="session"), **keywords)


@pytest.mark.parametrize("value", ["RDS", "", True])
def test_an_unknown_proxy_is_refused(value):
    """The error names the choices."""
    with pytest.raises(InvalidSettings, match="'rds-proxy', 'pgbouncer', 'none'"):
        create_engine("postgresql+psycopg://h/d", proxy=value)


def test_the_setting_fits_into_a_url():
    """Frameworks that make the engine themselves can say it too."""
    engine = create_engine("postgresql+psycopg://h/d?lambdadb_proxy=pgbouncer")
    assert engine.pool.connector.target.proxy == "pgbouncer"
