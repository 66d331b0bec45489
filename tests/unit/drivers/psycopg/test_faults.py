"""Which fault a driver's text stands for."""

from __future__ import annotations

import pytest

from lambdadb import Fault
from lambdadb.drivers.psycopg.faults import diagnose

AT = 'connection to server at "10.0.0.7", port 5432 failed: '
REFUSED = "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
HBA = 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app", database "orders", '

TEXTS = {
    Fault.RESUMING: [
        AT + REFUSED,
        AT + "server closed the connection unexpectedly\n\tThis probably means the server terminated "
        "abnormally\n\tbefore or while processing the request.",
        AT + "could not receive data from server: Connection reset by peer",
        AT + "could not send startup packet: Broken pipe",
        AT + "SSL error: unexpected eof while reading",
        AT + "SSL SYSCALL error: EOF detected",
        AT + "FATAL:  the database system is starting up",
        AT + "FATAL:  the database system is shutting down",
        AT + "FATAL:  the database system is in recovery mode",
        AT + "FATAL:  the database system is not yet accepting connections\n"
        "DETAIL:  Consistent recovery state has not been yet reached.",
        AT + "FATAL:  terminating connection due to administrator command",
        AT + HBA + "SSL encryption",
        AT + HBA + "SSL encryption\n" + AT + HBA + "no encryption",  # sslmode=prefer tries both
        "The Aurora DB instance db-X is resuming after being auto-paused. Please wait a few seconds",
    ],
    Fault.EXHAUSTED: [
        AT + "FATAL:  sorry, too many clients already",
        AT + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        AT + "FATAL:  remaining connection slots are reserved for non-replication superuser connections",
        AT + 'FATAL:  too many connections for role "app"',
        AT + "FATAL:  Timed-out waiting to acquire database connection",
        AT + "FATAL:  The maximum number of client connections to the proxy exceeded",
        AT + "FATAL:  The IAM authentication failed because of too many competing requests",
        AT + "FATAL:  query_wait_timeout",
        AT + "FATAL:  no more connections allowed (max_client_conn)",
        AT + "FATAL:  Rate of connection to proxy exceeded",
    ],
    Fault.CREDENTIALS: [
        AT + 'FATAL:  password authentication failed for user "app"',
        AT + 'FATAL:  PAM authentication failed for user "app"',
        AT + 'FATAL:  role "app" does not exist',
        AT + 'FATAL:  role "app" is not permitted to log in',
        AT + "FATAL:  IAM authentication failed for user app",
        AT + "FATAL:  SASL authentication failed",
        AT + "FATAL:  no such user",
        AT + "fe_sendauth: no password supplied",
        # localhost has two addresses: what the one that answered said decides
        f'connection to server at "::1", port 1 failed: {REFUSED}\n'
        + AT
        + 'FATAL:  password authentication failed for user "app"',
    ],
    Fault.UNREACHABLE: [
        AT + "Connection timed out",
        AT + "No route to host",
        AT + "Network is unreachable",
        "connection timeout expired",
        AT + "FATAL:  server login has been failing, try again later (server_login_retry)",
        AT + "FATAL:  pgbouncer cannot connect to server",
        AT
        + "FATAL:  server login has been failing, cached error: password authentication failed for user "
        '"app" (server_login_retry)',
        'could not translate host name "db" to address: Temporary failure in name resolution',
    ],
    Fault.UNTRUSTED: [
        AT + "SSL error: certificate verify failed",
        AT + 'server certificate for "a.example" does not match host name "b.example"',
        AT
        + 'server certificate for "a.example" (and 2 other names) does not match host name "b.example"',
        AT + 'root certificate file "/none" does not exist\nEither provide the file, use the system\'s '
        "trusted roots with sslrootcert=system, or change sslmode to disable server certificate "
        "verification.",
        AT + 'could not read root certificate file "/var/task/root.pem": no certificate or crl found',
        AT + "host name must be specified for a verified SSL connection",
        AT + "server does not support SSL, but SSL was required",
        AT + "received invalid response to SSL negotiation: H",
        'weak sslmode "require" may not be used with sslrootcert=system (use "verify-full")',
    ],
    Fault.MISCONFIGURED: [
        'invalid connection option "sslmod"',
        'weak sslmode "prefer" may not be used with sslnegotiation=direct (use "require", '
        '"verify-ca", or "verify-full")',
        AT + 'FATAL:  database "orders" does not exist',
        AT + HBA + "no encryption",
        AT + 'FATAL:  unrecognized configuration parameter "idle_session_timeout"',
        'could not translate host name "db" to address: Name or service not known',
        AT + "FATAL:  unsupported startup parameter: options",
        AT + "FATAL:  This RDS Proxy requires TLS connections",
        AT + "FATAL:  something that no table knows",
    ],
}


@pytest.mark.parametrize(("fault", "text"), [(f, t) for f, texts in TEXTS.items() for t in texts])
def test_every_known_text_is_told_apart(fault, text):
    """The texts of facts and measurements each mean one thing."""
    assert diagnose(text).fault is fault


def test_an_unknown_silence_is_waited_for_but_an_unknown_answer_is_not():
    """A server that answers something new is awake; a network that fails in a new way may recover."""
    assert not diagnose("FATAL:  brand new").fault.can_pass
    assert diagnose("some new kernel error").fault.can_pass


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_says_what_to_do(fault):
    """No fault reaches an operator without a remedy."""
    assert len(fault.remedy) > 40


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('unrecognized configuration parameter "idle_session_timeout"', "idle_session_timeout=None"),
        ("unsupported startup parameter: options", "ALTER ROLE"),
        ("unsupported startup parameter in options: jit", "ALTER ROLE"),
        ("RDS Proxy currently doesn\u2019t support command-line options", "ALTER ROLE"),
        ("RDS Proxy currently doesn't support the option jit", "ALTER ROLE"),
        ("Timed-out waiting to acquire database connection", "ConnectionBorrowTimeout"),
        ("query_wait_timeout", "default_pool_size"),
        ("server login has been failing, try again later (server_login_retry)", "does not pause"),
        ("no more connections allowed (max_client_conn)", "max_client_conn"),
        ("The maximum number of client connections to the proxy exceeded", "reserved concurrency"),
        ("Rate of connection to proxy exceeded", "PerEnvironment"),
        ("This RDS proxy has no credentials for the role app", "end-to-end IAM"),
        ("IAM authentication is allowed only with SSL connections", "sslmode=disable"),
        ("This RDS Proxy requires TLS connections", "sslmode=disable"),
    ],
)
def test_a_known_text_has_a_remedy_of_its_own(text, advice):
    """The fault's general remedy would send somebody to the wrong place."""
    assert advice in diagnose(f"FATAL:  {text}").remedy


def test_a_server_that_is_full_or_wants_a_password_is_met_with_the_setting_to_change():
    """The URL is not at fault, so the error does not send anybody there."""
    assert "got none" in diagnose("fe_sendauth: no password supplied").remedy
    assert "pg_stat_activity" in diagnose("sorry, too many clients already").remedy
