"""
What a session behind a proxy does not have, and the tests that see it.

`pytest tests/database --proxy pgbouncer` (or `rds-proxy`) expects these tests to fail: one that
passes there fails the run. All others have to pass. docs/proxy.md has the differences for users.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PID = "The client does not know which session of the server it has, and an idle client has none."
SETTINGS = "What a client sets in a session is found by the next one that gets it, or lost."
OPTIONS = "A proxy refuses options, so neither the policy's timeouts nor the caller's are sent."
PREPARED = "Statements are not prepared, and those of other clients are in the session."
RESET = "PerEnvironment(reset='session') is refused."
LOGINS = "The proxy answers logins, in its own words and on a second attempt after a refusal."
PINGS = "No ping is sent, and no timeout of the session is known."
KEEPS = "The proxy's session was open before, so a change of the role does not reach it."
CANCEL = "RDS Proxy passes no cancel on, so the connection is closed at the deadline."
REPORTED = "The proxy answers logins, so what it reports of the server is not of the session."
TLS = "The proxy of the lab has no TLS."


BOTH = ("pgbouncer", "rds-proxy")


class Difference(NamedTuple):
    """Tests of a file that see one difference."""

    file: str
    tests: str
    """A regular expression, for names of tests with their parameters."""
    reason: str
    proxies: tuple[str, ...] = BOTH
    runs: bool = True
    """False: they are not run. They would wait for what does not come, or disturb others."""


DIFFERENCES = (
    Difference("test_connect.py", "test_what_waiting_cannot_mend.*change[0124]", LOGINS),
    Difference("test_by_url.py", "test_credentials_in_the_url", TLS, ("rds-proxy",)),
    Difference(
        "test_deadline.py", "test_a_statement_ends_in_time_for_the_handler", CANCEL, ("rds-proxy",)
    ),
    Difference("test_deadline.py", "test_the_servers_own_timeout_stays_the_servers", OPTIONS),
    Difference(
        "test_dialect.py", "test_it_learns_the_same.*standard_conforming", REPORTED, ("rds-proxy",)
    ),
    Difference(
        "test_differences.py", "test_it_does_what_sqlalchemy_and_psycopg_do", PREPARED, runs=False
    ),
    Difference("test_options.py", "test_the_callers_options_come_after_the_policys", OPTIONS),
    Difference("test_options.py", "test_pgoptions_holds_where_.*work_mem", OPTIONS),
    # A caller may not SET session_replication_role in a session of another one's.
    Difference(
        "test_outcome.py", "test_no_setting_changes_.*,session_replication_role,", SETTINGS, runs=False
    ),
    Difference(
        "test_outcome.py", "test_a_key_is_looked_for_in_its_own_table_only", SETTINGS, ("pgbouncer",)
    ),
    Difference(
        "test_outcome.py",
        "test_a_question_that_fails.*(no connections|statement_timeout)",
        KEEPS,
        runs=False,
    ),
    Difference(
        "test_pipeline.py",
        "test_a_stream_left_early_leaves_the_connection",
        CANCEL,
        ("rds-proxy",),
        runs=False,
    ),
    Difference("test_outcome.py", r"test_a_question_that_fails.*\[no login", KEEPS, ("rds-proxy",)),
    Difference("test_pipeline.py", "test_statements_are_prepared_as_ever", PREPARED),
    Difference("test_pipeline.py", "test_a_replication_connection_gets_psycopgs_cursor", LOGINS),
    Difference("test_policies.py", "test_an_environment_keeps_one_session", PID),
    Difference("test_policies.py", "test_an_invocation_leaves_no_session", PID),
    Difference("test_pool.py", "test_a_forked_child_has_a_session_of_its_own", PID),
    Difference("test_pool.py", "test_a_ping_that_fails_is_told_to_listeners", PINGS),
    Difference("test_pool.py", "test_a_ping_that_is_interrupted_costs_no_place", PINGS, runs=False),
    Difference("test_pool.py", "test_a_session_known_to_be_over.*(longer|no timeout|caller)", PINGS),
    Difference("test_pool.py", "test_a_session_long_unused_is_pinged_once", PINGS),
    Difference("test_pool.py", "test_a_session_that_the_server_ended_for_idleness_is_replaced", PINGS),
    Difference("test_reset.py", "test_", RESET, ("pgbouncer",)),
    Difference(
        "test_reset.py", "test_(?!.*-none)", RESET, ("rds-proxy",)
    ),  # SET pins, so its state stays
    Difference("test_sessions.py", "test_idle_sessions_end_by_default", OPTIONS),
    Difference("test_sessions.py", "test_psycopgs_own_keywords_reach_the_connection", OPTIONS),
    Difference("test_tls.py", "", TLS, runs=False),
    Difference("test_tracing.py", "test_the_login_is_a_part_of_the_connect", LOGINS),
    Difference(
        "test_unit_shapes.py",
        "test_the_drivers_own_statement_out_of",
        CANCEL,
        ("rds-proxy",),
        runs=False,
    ),
    Difference(
        "test_unit_of_work.py",
        "test_(?!what_follows_rollback_in_one_text|an_earlier_units_key_does_not_speak)",
        PID,
    ),
    Difference("test_unit_shapes.py", "test_a_connection_lost_in_copy_is_repeated", PID),
    Difference("test_unit_shapes.py", "test_begin_has_the_modes_of_the_engines_own", OPTIONS),
    Difference("test_unit_shapes.py", "test_read_only_is_not_believed", SETTINGS, ("pgbouncer",)),
)


def find_difference(proxy: str | None, file: str, test: str) -> Difference | None:
    """Return why a test fails behind a proxy; None if it has to pass."""
    for difference in DIFFERENCES:
        if proxy in difference.proxies and difference.file == file and re.match(difference.tests, test):
            return difference
    return None
