"""
What a session behind pgbouncer's transaction pooling does not have, and the tests that see it.

`pytest tests/database --pgbouncer` expects these tests to fail, in some or all of their cases.
All others have to pass there. docs/proxy.md has the differences for users.
"""

from __future__ import annotations

SESSIONS = "The server's sessions are pgbouncer's. They stay when their client has gone."
SETTINGS = "What a client sets in a session is found by the next one that gets it, or lost."
OPTIONS = "pgbouncer refuses options, so neither the policy's timeouts nor the caller's are sent."
PREPARED = "Statements are not prepared, and those of other clients are in the session."
PID = "The process id that the client knows is not the session's."
PINGS = "No ping is sent, and no timeout of the session is known."
RESET = "PerEnvironment(reset='session') is refused."
LOGINS = "pgbouncer answers logins, in its own words and on a second attempt after a refusal."
CANCEL = "pgbouncer forgets a client that disconnects, so its statement runs on."
TLS = "The lab's pgbouncer has no TLS."

DIFFERENCES: dict[str, str | dict[str, str]] = {
    "test_by_url.py": {
        "test_an_invocation_and_a_transaction": SESSIONS,
    },
    "test_cancellation.py": {
        "test_a_connect_cancelled_at_any_turn_of_the_loop_ends": SESSIONS,
    },
    "test_connect.py": {
        "test_an_asynchronous_store_is_asked_on_the_loop": LOGINS,
        "test_what_waiting_cannot_mend_fails_at_once_without_secrets": LOGINS,
    },
    "test_deadline.py": {
        "test_a_statement_ends_in_time_for_the_handler_to_answer": SESSIONS,
        "test_the_servers_own_timeout_stays_the_servers": OPTIONS,
    },
    "test_differences.py": {
        "test_it_does_what_sqlalchemy_and_psycopg_do": PREPARED,
    },
    "test_invocation.py": {
        "test_a_statement_sent_as_the_invocation_ends_does_not_run_on": CANCEL,
        "test_a_task_left_behind_disturbs_no_other_invocation": SESSIONS,
        "test_an_asynchronous_engine_made_inside_an_invocation_ends_with_it": SESSIONS,
        "test_an_engine_made_inside_an_invocation_ends_with_it": SESSIONS,
        "test_engines_that_differ_or_are_made_by_tests_are_left_alone": SESSIONS,
    },
    "test_options.py": {
        "test_pgoptions_holds_where_the_policy_sets_nothing": OPTIONS,
        "test_the_callers_options_come_after_the_policys": OPTIONS,
    },
    "test_outcome.py": {
        "test_a_key_is_looked_for_in_its_own_table_only": SETTINGS,
        "test_a_question_that_fails_leaves_doubt_and_says_why": SESSIONS,
        "test_no_setting_changes_the_answer": SETTINGS,
    },
    "test_pipeline.py": {
        "test_a_replication_connection_gets_psycopgs_cursor": LOGINS,
        "test_statements_are_prepared_as_ever": PREPARED,
    },
    "test_policies.py": {
        "test_a_failed_invocation_ends_like_any_other": SESSIONS,
        "test_an_environment_keeps_one_session": SESSIONS,
        "test_an_invocation_leaves_no_session": SESSIONS,
        "test_outside_an_invocation_a_session_ends_with_its_checkout": SESSIONS,
    },
    "test_pool.py": {
        "test_a_forked_child_has_a_session_of_its_own": SESSIONS,
        "test_a_listener_that_raises_costs_no_place": PINGS,
        "test_a_ping_that_fails_is_told_to_listeners": PINGS,
        "test_a_ping_that_is_interrupted_costs_no_place": PINGS,
        "test_a_session_known_to_be_over_is_not_handed_out": PINGS,
        "test_a_session_long_unused_is_pinged_once": PINGS,
        "test_a_session_that_the_server_ended_for_idleness_is_replaced": PINGS,
        "test_a_timeout_by_signal_costs_no_place": SESSIONS,
        "test_cancelled_tasks_cost_no_place": SESSIONS,
        "test_connecting_while_disposed_leaves_no_session": SESSIONS,
        "test_dispose_while_a_connection_is_out_closes_it_when_it_comes_back": SESSIONS,
    },
    "test_reset.py": {
        "test_a_reset_session_begins_as_at_its_start": RESET,
        "test_a_session_that_was_killed_is_replaced_by_the_reset": RESET,
        "test_inside_one_invocation_a_session_keeps_its_state": RESET,
        "test_statements_that_psycopg_prepared_are_prepared_again": RESET,
    },
    "test_run_transaction.py": {
        "test_a_unit_left_in_a_thread_is_not_repeated_after_its_invocation": SESSIONS,
    },
    "test_sessions.py": {
        "test_idle_sessions_end_by_default": OPTIONS,
        "test_psycopgs_own_keywords_reach_the_connection": LOGINS,
    },
    "test_tls.py": TLS,  # all of them
    "test_tracing.py": {
        "test_a_reconnect_records_how_long_the_lost_connection_was_idle": SESSIONS,
        "test_the_login_is_a_part_of_the_connect": LOGINS,
    },
    "test_unit_shapes.py": {
        "test_a_connection_lost_in_copy_is_repeated": PID,
        "test_begin_has_the_modes_of_the_engines_own": SETTINGS,
        "test_read_only_is_not_believed": SETTINGS,
    },
}


def find_difference(nodeid: str) -> str | None:
    """Return why a test may fail behind pgbouncer; None if it has to pass."""
    file, _, test = nodeid.partition("[")[0].rpartition("/")[2].partition("::")
    found = DIFFERENCES.get(file, {})
    return found if isinstance(found, str) else found.get(test)
