"""
What a failed connect means, whatever the driver: resuming, exhausted, unreachable, credentials, login,
untrusted or misconfigured. Each driver has a `faults` module that tells which one an error stands for.
"""

from __future__ import annotations

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
        "Try again shortly; a function that has 30 s or more for a connect usually sees it awake."
    ),
    Fault.EXHAUSTED: (
        "All connections of the server are taken. See who holds them in the server's list of sessions; "
        "lower the function's reserved concurrency or raise the cluster's maximum capacity."
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
        "The credentials gave no login. Check that the function's role may read it, and that it can be "
        "reached where it is kept: from a VPC through a VPC endpoint or a NAT gateway."
    ),
    Fault.UNTRUSTED: (
        "The server did not prove who it is, so no login was sent. docs/tls.md tells how servers are "
        "verified, and how to choose otherwise."
    ),
    Fault.MISCONFIGURED: (
        "Waiting cannot help: check the host, port, database name and options of the URL."
    ),
}


def one_line(text: str) -> str:
    """A driver's text as part of a sentence: its lines, without libpq's hints, which are indented."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("\t")]
    return " ".join(" ".join(lines).split()).rstrip(".")
