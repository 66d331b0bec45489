"""
What a failed connect to MySQL means, by the number of its error.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

import pymysql

from lambdadb.drivers.base import AttemptFailed
from lambdadb.faults import Fault

FAULTS: Mapping[int, Fault] = {
    # MySQL Reference Manual, "Server Error Message Reference". A server that is up says these.
    1040: Fault.EXHAUSTED,  # ER_CON_COUNT_ERROR: Too many connections; also RDS Proxy's rate limits
    1203: Fault.EXHAUSTED,  # ER_TOO_MANY_USER_CONNECTIONS
    1226: Fault.EXHAUSTED,  # ER_USER_LIMIT_REACHED
    9501: Fault.EXHAUSTED,  # RDS Proxy: Timed-out waiting to acquire database connection
    1045: Fault.CREDENTIALS,  # ER_ACCESS_DENIED_ERROR
    1698: Fault.CREDENTIALS,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    1862: Fault.CREDENTIALS,  # ER_MUST_CHANGE_PASSWORD_LOGIN: the password has expired
    1053: Fault.RESUMING,  # ER_SERVER_SHUTDOWN
    1927: Fault.RESUMING,  # MariaDB, ER_CONNECTION_KILLED
    4031: Fault.RESUMING,  # ER_CLIENT_INTERACTION_TIMEOUT
    # MySQL Reference Manual, "Client Error Message Reference", as PyMySQL raises them
    2006: Fault.RESUMING,  # CR_SERVER_GONE_ERROR: while the login was being sent
    2013: Fault.RESUMING,  # CR_SERVER_LOST: an end before the greeting, or in the middle of a login
    2026: Fault.UNTRUSTED,  # CR_SSL_CONNECTION_ERROR: the server offers no TLS
}
"""
The meaning of an error's number. Any other number is `MISCONFIGURED`, because a server that answers is
awake.

AWS does not publish what a resuming Aurora MySQL answers. Users add what they meet by
`ResumeRetry(resuming_errors=[...])`.
"""

_REMEDIES = {
    1040: (
        "All connections of the server are in use. performance_schema.session_connect_attrs shows by "
        "whom. Lower the function's reserved concurrency, or raise the cluster's maximum capacity."
    ),
    1129: (
        "The server has blocked this host after many failed connects. Find out why they failed, then "
        "run FLUSH HOSTS, or raise max_connect_errors."
    ),
    1251: "The server wants a kind of login that PyMySQL does not know. Change the user's plugin.",
    2059: "The server wants a kind of login that PyMySQL does not know. Change the user's plugin.",
    3159: (
        "The server takes no logins without TLS (require_secure_transport). Name the file of its root "
        "certificate: ?ssl_ca=/path/to/root.pem"
    ),
}


def diagnose(error: BaseException) -> AttemptFailed:
    """Return the failure that an exception of a connect stands for."""
    if isinstance(error, AttemptFailed):
        return error
    original = getattr(error, "original_exception", None) or error
    if isinstance(original, OSError):
        return diagnose_network(original)
    if not isinstance(error, pymysql.Error):
        return AttemptFailed(Fault.MISCONFIGURED, f"{type(error).__name__}: {error}")
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = f"{number}: {error.args[-1]}" if number else str(error)
    fault = FAULTS.get(number, Fault.MISCONFIGURED)
    return AttemptFailed(fault, text, remedy=_REMEDIES.get(number))


def diagnose_network(error: OSError) -> AttemptFailed:
    """
    Return the failure that an error of the network stands for.

    PyMySQL shows it as 2003, whatever it was.
    """
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return AttemptFailed(Fault.UNTRUSTED, text)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return AttemptFailed(Fault.RESUMING, text)
    if isinstance(error, ssl.SSLError):
        return AttemptFailed(Fault.UNTRUSTED, text)
    if isinstance(error, (ConnectionError, FileNotFoundError)):
        refused = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
        return AttemptFailed(Fault.RESUMING, text, refused=refused)
    if isinstance(error, socket.gaierror):
        return AttemptFailed(Fault.MISCONFIGURED, text)
    return AttemptFailed(Fault.UNREACHABLE, text)
