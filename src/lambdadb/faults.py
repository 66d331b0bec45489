"""
The faults of failed connects, and what to do about each.

They are the same for every driver. Each driver has a `faults` module that finds the fault of an error.
"""

from __future__ import annotations

from enum import Enum


class Fault(str, Enum):
    """Why an attempt to connect failed, which decides whether waiting can help."""

    RESUMING = "resuming"
    """The database is waking up, starting or restarting: it will answer in seconds."""
    EXHAUSTED = "exhausted"
    """All of its connections are in use: one may become free."""
    UNREACHABLE = "unreachable"
    """No answer came from the network: it may pass, or there is no route to the server."""
    CREDENTIALS = "credentials"
    """The server refused the user or the password."""
    LOGIN = "login"
    """The store of logins gave no login."""
    UNTRUSTED = "untrusted"
    """The server's certificate could not be verified, or the server does not support TLS."""
    MISCONFIGURED = "misconfigured"
    """The host, the database or a setting is wrong."""

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
        "Try again shortly; a function that has 30 s or more for a connect usually sees it awake."
    ),
    Fault.EXHAUSTED: (
        "All connections of the server are in use. Its list of sessions shows by whom. Lower the "
        "function's reserved concurrency, or raise the cluster's maximum capacity."
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
        "The credentials gave no login. Check that the function's role may read it, and that its store "
        "can be reached: from a VPC through a VPC endpoint or a NAT gateway."
    ),
    Fault.UNTRUSTED: (
        "The server was not verified, so no login was sent. docs/tls.md explains how servers are "
        "verified, and how to change it."
    ),
    Fault.MISCONFIGURED: (
        "Waiting cannot help. Check the host, port, database name and options of the URL."
    ),
}


def one_line(text: str) -> str:
    """Put a driver's text on one line, without its hints, which are indented."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("\t")]
    return " ".join(" ".join(lines).split()).rstrip(".")
