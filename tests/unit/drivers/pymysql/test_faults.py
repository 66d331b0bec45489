"""What a failed connect to MySQL means."""

from __future__ import annotations

import socket
import ssl

import pymysql
import pytest

from lambdadb.drivers.pymysql.faults import diagnose
from lambdadb.faults import Fault


def hidden(error):
    """PyMySQL's error for whatever the network has raised."""
    shown = pymysql.OperationalError(2003, f"Can't connect to MySQL server on 'h' ({error})")
    shown.original_exception = error
    return shown


@pytest.mark.parametrize(
    ("number", "text", "fault"),
    [
        # As the servers said them, or as their sources have them (share/messages_to_clients.txt).
        (1040, "Too many connections", Fault.EXHAUSTED),
        (1203, "User app already has more than 'max_user_connections' connections", Fault.EXHAUSTED),
        (1226, "User 'app' has exceeded the 'max_user_connections' resource", Fault.EXHAUSTED),
        (9501, "Timed-out waiting to acquire database connection", Fault.EXHAUSTED),
        (1045, "Access denied for user 'app'@'127.0.0.1' (using password: YES)", Fault.CREDENTIALS),
        (1698, "Access denied for user 'root'@'localhost'", Fault.CREDENTIALS),
        (1049, "Unknown database 'not_there'", Fault.MISCONFIGURED),
        (1129, "Host '10.0.0.1' is blocked because of many connection errors", Fault.MISCONFIGURED),
        (1251, "Client does not support authentication protocol", Fault.MISCONFIGURED),
        (2006, "MySQL server has gone away", Fault.RESUMING),
        (2013, "Lost connection to MySQL server during query", Fault.RESUMING),
        (4031, "The client was disconnected by the server because of inactivity", Fault.RESUMING),
        (2026, "SSL is required but the server doesn't support it", Fault.UNTRUSTED),
    ],
)
def test_a_number_has_one_meaning(number, text, fault):
    """With the server's own words beside it."""
    failure = diagnose(pymysql.OperationalError(number, text))
    assert failure.fault is fault
    assert failure.text == f"{number}: {text}"


@pytest.mark.parametrize(
    ("error", "fault", "refused"),
    [
        (ConnectionRefusedError("refused"), Fault.RESUMING, True),
        (ConnectionResetError("reset"), Fault.RESUMING, False),
        (ssl.SSLCertVerificationError("self-signed certificate"), Fault.UNTRUSTED, False),
        (ssl.SSLEOFError("EOF occurred in violation of protocol"), Fault.RESUMING, False),
        (ssl.SSLError("wrong version number"), Fault.UNTRUSTED, False),
        (socket.gaierror("Name or service not known"), Fault.MISCONFIGURED, False),
        (OSError(113, "No route to host"), Fault.UNREACHABLE, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_2003_is_what_it_hides(error, fault, refused):
    """PyMySQL raises it for every error of the network and of TLS."""
    failure = diagnose(hidden(error))
    assert (failure.fault, failure.refused) == (fault, refused)


def test_a_blocked_host_is_told_what_to_do():
    """Waiting does not help, so the remedy does."""
    failure = diagnose(pymysql.OperationalError(1129, "Host is blocked"))
    assert "FLUSH HOSTS" in failure.remedy
