"""
What is wrong with a MySQL or MariaDB server and its settings: facts, and the rules that read them.

`mysql.read_server_facts` makes the facts. Nothing here asks a server.
"""

from __future__ import annotations

from dataclasses import dataclass

from lambdadb.operate.checks import Finding, Weight
from lambdadb.operate.postgresql_server import (
    AUTO_PAUSE,
    LONG_IDLE,
    check_open_sessions,
    parameter_command,
    weight_of,
)
from lambdadb.operate.sessions import SessionView, duration

END_IDLE = (
    parameter_command("wait_timeout", f"{LONG_IDLE:.0f}")
    + f". Elsewhere: SET GLOBAL wait_timeout = {LONG_IDLE:.0f}"
)


@dataclass(frozen=True, kw_only=True)
class MySQLFacts:
    """A server as a role sees it."""

    version: str
    aurora: bool
    log_bin: bool
    performance_schema: bool
    event_scheduler: bool
    wait_timeout: float
    """Seconds."""
    forces_tls: bool | None
    """None: the server does not have the setting."""


def examine_mysql(facts: MySQLFacts, view: SessionView, *, pauses: bool | None) -> list[Finding]:
    """
    All that is wrong with the server.

    Args:
        pauses: Whether the cluster is to pause; None: unknown.
    """
    for_pause = [] if pauses is False else check_pause(facts, view, weight_of(pauses))
    return [*for_pause, *check_settings(facts, weight_of(pauses))]


def check_pause(facts: MySQLFacts, view: SessionView, weight: Weight) -> list[Finding]:
    """What keeps Aurora from pausing, as far as the server itself shows it."""
    found = check_open_sessions(view, weight, END_IDLE)
    if facts.log_bin:
        found.append(
            Finding(
                "replication",
                "The binary log is on (log_bin).",
                "If nothing reads from it: " + parameter_command("binlog_format", "OFF", reboot=True),
                "With it the writer, and readers of promotion tier 0 and 1, never pause.",
                AUTO_PAUSE,
                weight,
            )
        )
    if facts.event_scheduler:
        found.append(
            Finding(
                "jobs",
                "The event scheduler is on.",
                "Schedule what must run with EventBridge Scheduler and a function: its connect wakes "
                "the cluster.",
                "An event does not wake a paused cluster: it is skipped.",
                AUTO_PAUSE,
                Weight.NOTE,
            )
        )
    return found


def check_settings(facts: MySQLFacts, weight: Weight) -> list[Finding]:
    """Idle sessions should end, connects should be encrypted, and sessions should show their names."""
    found = []
    if facts.wait_timeout > LONG_IDLE:
        found.append(
            Finding(
                "wait_timeout",
                f"The server ends idle sessions after {duration(facts.wait_timeout)} (wait_timeout).",
                END_IDLE,
                "A session of a frozen function stays open for so long. lambdadb's sessions bring a "
                "timeout of their own.",
                "MySQL, Server System Variables",
                weight,
            )
        )
    if facts.forces_tls is False:
        found.append(
            Finding(
                "TLS",
                "require_secure_transport is off.",
                parameter_command("require_secure_transport", "ON"),
                "A client that does not ask for TLS sends statements and reads rows in clear text.",
                "Aurora User Guide, Security with Amazon Aurora MySQL",
                Weight.WARNING,
            )
        )
    if not facts.performance_schema:
        found.append(
            Finding(
                "names",
                "performance_schema is off.",
                parameter_command("performance_schema", "1", reboot=True),
                "The server keeps no names of sessions: functions cannot be told apart.",
                "MySQL, Performance Schema Connection Attribute Tables",
                Weight.NOTE,
            )
        )
    return found
