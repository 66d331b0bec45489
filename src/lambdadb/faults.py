"""
What a failed connect means: resuming, exhausted, unreachable, credentials or misconfigured.

A failed connect carries no SQLSTATE in psycopg, so the text is all there is to go by. Servers say it
in English unless `lc_messages` was changed; Aurora's default is English.
"""

from __future__ import annotations

import re
from enum import Enum


class Fault(str, Enum):
    """Why an attempt to connect failed, and so whether waiting can help."""

    RESUMING = "resuming"
    """The database is waking up, starting or restarting: it will answer in seconds."""
    EXHAUSTED = "exhausted"
    """All of its connections are taken: one may become free."""
    UNREACHABLE = "unreachable"
    """No answer at all from the network: it may pass, or the way there is closed."""
    CREDENTIALS = "credentials"
    """It refused the user or the password."""
    LOGIN = "login"
    """No user and password could be had from where they are kept."""
    UNTRUSTED = "untrusted"
    """Its certificate could not be verified, or it speaks no TLS."""
    MISCONFIGURED = "misconfigured"
    """It, its name or its settings are wrong for this client."""

    @property
    def can_pass(self) -> bool:
        """Whether the same attempt may succeed a little later."""
        return self in (Fault.RESUMING, Fault.EXHAUSTED, Fault.UNREACHABLE)

    @property
    def remedy(self) -> str:
        """What it means and what to do, in one or two sentences."""
        return _REMEDIES[self]


_REMEDIES = {
    Fault.RESUMING: (
        "The database is waking up from its auto-pause, or restarting, or nothing listens on this port. "
        "Try again shortly; give the function a timeout of at least 30 s, or answer 503 with "
        "on_resuming='503'."
    ),
    Fault.EXHAUSTED: (
        "All connections of the server are taken. See who holds them in pg_stat_activity; lower the "
        "function's reserved concurrency or raise the cluster's maximum capacity."
    ),
    Fault.UNREACHABLE: (
        "No answer came from the network. If the cluster is not restarting, check the function's "
        "VPC, subnets and route, and that the cluster's security group admits the function's."
    ),
    Fault.CREDENTIALS: (
        "The server refused the login. Check the user and the password of the URL or secret; for "
        "IAM authentication also rds-db:connect, the region and the host that the token is for."
    ),
    Fault.LOGIN: (
        "There is no login to try, or none after a refused one. Check that the function's role may read "
        "it, and that it can reach where it is kept: from a VPC through a VPC endpoint or a NAT gateway."
    ),
    Fault.UNTRUSTED: (
        "No login was sent, since the server did not prove who it is. How servers are verified, and how "
        "to choose otherwise: docs/tls.md."
    ),
    Fault.MISCONFIGURED: (
        "Waiting cannot help: check the host, port, database name and options of the URL."
    ),
}

# First match wins. One text may hold several lines, one for each address or TLS fallback tried, so
# what is certain (a refused login) comes before what is vague (a refused connection).
_TEXTS: tuple[tuple[Fault, str], ...] = (
    # Aurora waking up, with IAM authentication: github.com/cyrilgdn/terraform-provider-postgresql
    # issue 540. Its pg_hba.conf admits every TLS client once awake, so over TLS this line can only
    # mean "not yet"; without TLS ("no encryption") it means that TLS is required.
    (Fault.RESUMING, r"no pg_hba\.conf entry .*(SSL encryption|SSL on)\b"),
    # 28P01, 28000 (PostgreSQL, src/backend/libpq/auth.c); RDS Proxy troubleshooting page
    (Fault.CREDENTIALS, r"authentication failed for user|no password supplied"),
    (Fault.CREDENTIALS, r'role ".*" (does not exist|is not permitted to log in)'),
    # Rates and slots of RDS Proxy (53300, 08000) and of pgbouncer
    (
        Fault.EXHAUSTED,
        r"too many competing requests|to the proxy exceeded|connection to proxy exceeded",
    ),
    (Fault.EXHAUSTED, r"Timed-out waiting to acquire database connection|query_wait_timeout"),
    (Fault.EXHAUSTED, r"no more connections allowed"),
    # 53300 (PostgreSQL, src/backend/storage/lmgr/proc.c, utils/init/postinit.c)
    (Fault.EXHAUSTED, r"too many clients already|too many connections for (role|database)"),
    (Fault.EXHAUSTED, r"remaining connection slots are reserved"),
    # 57P03 (PostgreSQL, src/backend/postmaster), 57P01 while stopping
    (Fault.RESUMING, r"the database system is|not yet accepting connections"),
    (Fault.RESUMING, r"terminating connection due to administrator command"),
    (Fault.RESUMING, r"resuming after being auto-paused"),  # the Data API's words for it
    # glibc, musl and macOS resolvers: a try-again answer against a name that does not exist
    (Fault.UNREACHABLE, r"Temporary failure in name resolution|Try again"),
    (Fault.MISCONFIGURED, r"could not translate host name|could not parse network address"),
    (Fault.MISCONFIGURED, r"invalid .*value|invalid port number|definition of service|missing \"=\""),
    (Fault.MISCONFIGURED, r"channel binding required|authentication method requirement"),
    (Fault.MISCONFIGURED, r"invalid connection option|with sslnegotiation=direct|unterminated quoted"),
    # libpq, target_session_attrs: the server is not, or not yet, of the wanted kind
    (Fault.RESUMING, r"session is (not )?read-only|server is (not )?in hot standby mode"),
    # libpq 16 to 18, src/interfaces/libpq: fe-connect.c, fe-secure-common.c, fe-secure-openssl.c
    (Fault.UNTRUSTED, r"certificate verify failed|root certificate|does not match host name"),
    (Fault.UNTRUSTED, r"host name must be specified for a verified|with sslrootcert=system"),
    (Fault.UNTRUSTED, r"does not support SSL|invalid response to SSL negotiation"),
    # github.com/terraform-aws-modules/terraform-aws-rds-aurora issue 476: an immediate EOF on wake-up
    (Fault.RESUMING, r"server closed the connection unexpectedly|unexpected eof|EOF detected"),
    (Fault.RESUMING, r"Connection reset by peer|Broken pipe|Connection refused"),
    (Fault.UNREACHABLE, r"timed out|timeout expired|No route to host|Network is unreachable"),
)

# What is not the URL's fault but a setting's, for servers that do not know a startup parameter.
_NO_STARTUP_PARAMETER = (
    r'unrecognized configuration parameter "idle_session_timeout"|unsupported startup parameter'
)


def remedy_of(fault: Fault, text: str) -> str:
    """What to do about a fault that this text stands for."""
    if fault is Fault.LOGIN:
        return ""  # whoever had no login has said what to do
    if "no password supplied" in text:
        return (
            "The server asks for a password and was given none: use credentials=, or name it in the URL."
        )
    if re.search(_NO_STARTUP_PARAMETER, text):
        return (
            "A PostgreSQL before 14 knows no idle_session_timeout, and pgbouncer takes no options: use "
            "PerEnvironment or PerInvocation(idle_session_timeout=None), and for pgbouncer "
            "idle_in_transaction_session_timeout=None as well."
        )
    return fault.remedy


def fault_of(text: str) -> Fault:
    """
    The fault that the driver's error text of a failed connect stands for.

    A text that no rule knows is `MISCONFIGURED` when the server said it (FATAL), since a server that
    answers is awake, and `UNREACHABLE` when it did not.
    """
    for fault, pattern in _TEXTS:  # compiled, and kept so by re, when the first connect fails
        if re.search(pattern, text, re.IGNORECASE):
            return fault
    return Fault.MISCONFIGURED if "FATAL:" in text else Fault.UNREACHABLE


READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: among other things, the old writer after a failover."""

REPEATABLE = frozenset({"40001", "40P01", READ_ONLY})
"""
SQLSTATEs after which the server has rolled a transaction back and a repetition may succeed:
serialization_failure, deadlock_detected and read_only_sql_transaction.
"""


def one_line(text: str) -> str:
    """A driver's text as part of a sentence: its lines, without libpq's hints, which are indented."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("\t")]
    return " ".join(" ".join(lines).split()).rstrip(".")
