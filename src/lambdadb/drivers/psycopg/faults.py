"""
What a failed connect to PostgreSQL means.

psycopg gives no SQLSTATE when a connect fails (github.com/psycopg/psycopg, issue 242), so only the text
can be used. It is English unless the server's `lc_messages` was changed. Aurora's default is English.
"""

from __future__ import annotations

import re

from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault

# The first match wins. A text may have several lines, one for each address or TLS fallback. So what is
# certain (a refused login) comes before what is vague (a refused connection).
_TEXTS: tuple[tuple[Fault, str], ...] = (
    # Aurora waking up, with IAM authentication: github.com/cyrilgdn/terraform-provider-postgresql
    # issue 540. Its pg_hba.conf admits every TLS client once awake, so over TLS this line can only
    # mean "not yet"; without TLS ("no encryption") it means that TLS is required.
    (Fault.RESUMING, r"no pg_hba\.conf entry .*(SSL encryption|SSL on)\b"),
    # pgbouncer, src/objects.c: it cannot log in to the server, and tries again every 15 s by default.
    # The text may quote why, such as the refusal of pgbouncer's own password.
    (Fault.UNREACHABLE, r"server_login_retry|pgbouncer cannot connect to server"),
    # Rates and slots of RDS Proxy (53300, 08000) and of pgbouncer
    (
        Fault.EXHAUSTED,
        r"too many competing requests|to the proxy exceeded|connection to proxy exceeded",
    ),
    (Fault.EXHAUSTED, r"Timed-out waiting to acquire database connection|query_wait_timeout"),
    (Fault.EXHAUSTED, r"no more connections allowed"),
    # 28P01, 28000 (PostgreSQL, src/backend/libpq/auth.c); RDS Proxy troubleshooting page; pgbouncer,
    # src/client.c: "SASL authentication failed", "password authentication failed", "no such user"
    (Fault.CREDENTIALS, r"authentication failed|no password supplied|FATAL: +no such user"),
    (Fault.CREDENTIALS, r'role ".*" (does not exist|is not permitted to log in)'),
    # 53300 (PostgreSQL, src/backend/storage/lmgr/proc.c, utils/init/postinit.c)
    (Fault.EXHAUSTED, r"too many clients already|too many connections for (role|database)"),
    (Fault.EXHAUSTED, r"remaining connection slots are reserved"),
    # 57P03 (PostgreSQL, src/backend/postmaster), 57P01 while stopping
    (Fault.RESUMING, r"the database system is|not yet accepting connections"),
    (Fault.RESUMING, r"terminating connection due to administrator command"),
    (Fault.RESUMING, r"resuming after being auto-paused"),  # the Data API's text
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

_REFUSED = r"Connection refused|No such file or directory"

# Remedies for these texts, more precise than the fault's own.
_REMEDIES = (
    (
        r"no password supplied",
        "The server wants a password and got none. Use credentials=, or write it in the URL.",
    ),
    (
        r'unrecognized configuration parameter "idle_session_timeout"',
        "PostgreSQL before 14 has no idle_session_timeout. Use PerEnvironment or "
        "PerInvocation(idle_session_timeout=None).",
    ),
    (
        r"unsupported startup parameter|RDS Proxy.* support (command-line options|the option)",
        "A proxy refuses a setting of the session: options or another parameter of the URL, of "
        "connect_args or of PGOPTIONS. Remove it, and use ALTER ROLE ... SET, or the proxy's "
        "initialization query. docs/proxy.md lists what a proxy accepts.",
    ),
    (
        r"Timed-out waiting to acquire database connection|query_wait_timeout",
        "All of the proxy's server sessions were in use for as long as it waits (RDS Proxy: "
        "ConnectionBorrowTimeout, pgbouncer: query_wait_timeout), or the database is down. Make "
        "transactions shorter, look for pinned sessions, or allow the proxy more sessions "
        "(MaxConnectionsPercent, default_pool_size).",
    ),
    (
        r"server_login_retry|pgbouncer cannot connect to server",
        "The proxy cannot log in to the database, which is restarting, failing over or unreachable. A "
        "database behind a proxy that is open does not pause.",
    ),
    (
        r"no more connections allowed|client connections to the proxy exceeded",
        "The proxy has as many clients as it allows (max_client_conn of pgbouncer; RDS Proxy: its "
        "maximum capacity). Lower the function's reserved concurrency, or raise the limit.",
    ),
    (
        r"connection to proxy exceeded|too many competing requests",
        "The proxy limits the rate of new connections. PerEnvironment connects less often than "
        "PerInvocation. Lower the function's reserved concurrency.",
    ),
    (
        r"has no credentials for the role|no credentials for role",
        "The RDS Proxy has no secret for this user. Add one to the proxy, or use end-to-end IAM "
        "authentication (DefaultAuthScheme).",
    ),
    (
        r"IAM authentication failed for user",
        "The RDS Proxy gives this answer for every token that it does not accept. The token has to be "
        "signed for the proxy's own endpoint and port (RdsIam(host=..., port=...) if the URL has "
        "another name), for its region and this user, by a role with rds-db:connect on "
        "dbuser:prx-.../USER, the proxy's id.",
    ),
    (
        r"only with SSL connections|requires TLS connections|no SSL connection",
        "The proxy requires TLS. Remove sslmode=disable from the URL.",
    ),
    (
        r"too many clients already|too many connections for|remaining connection slots",
        "All connections of the server are in use. pg_stat_activity shows by whom. Lower the function's "
        "reserved concurrency, or raise the cluster's maximum capacity.",
    ),
)


def diagnose(text: str) -> AttemptFailed:
    """
    Return the failure that libpq's text of a failed connect stands for.

    If no rule matches, a text of the server (FATAL) is `MISCONFIGURED`, because a server that answers is
    awake. Any other text is `UNREACHABLE`.
    """
    unknown = Fault.MISCONFIGURED if "FATAL:" in text else Fault.UNREACHABLE
    # re compiles each pattern once, when the first connect fails.
    fault = next((f for f, pattern in _TEXTS if re.search(pattern, text, re.IGNORECASE)), unknown)
    remedy = next((advice for pattern, advice in _REMEDIES if re.search(pattern, text)), None)
    return AttemptFailed(fault, text, refused=re.search(_REFUSED, text) is not None, remedy=remedy)
