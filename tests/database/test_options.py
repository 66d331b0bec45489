"""libpq's `options` and `PGOPTIONS` hold beside what a policy sets."""

from __future__ import annotations

import pytest
from sqlalchemy import text

import lambdadb

POLICY = lambdadb.PerEnvironment(idle_session_timeout=600)


def settings(engine):
    """work_mem and idle_session_timeout of a session."""
    with engine.connect() as connection:
        names = ("work_mem", "idle_session_timeout")
        shown = [connection.scalar(text(f"SHOW {name}")) for name in names]
    engine.dispose()
    return shown


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        (None, None, ["4MB", "10min"]),
        ("-c work_mem=5MB", None, ["5MB", "10min"]),
        ("-c work_mem=5MB -c idle_session_timeout=7s", None, ["5MB", "7s"]),
        (None, "-c work_mem=6MB -c idle_session_timeout=8s", ["6MB", "8s"]),
        ("-c work_mem=5MB -c idle_session_timeout=7s", "-c work_mem=6MB", ["6MB", "10min"]),
        ("-c work_mem=5MB", "", ["4MB", "10min"]),
    ],
)
def test_the_callers_options_come_after_the_policys(
    environment, options, expected, mode, database, monkeypatch
):
    """`options` replaces PGOPTIONS, as in libpq. Either wins over the policy's timeouts."""
    if environment is not None:
        monkeypatch.setenv("PGOPTIONS", environment)
    arguments = {} if options is None else {"options": options}

    def steps():
        engine = mode.create_engine(database, policy=POLICY, connect_args=arguments)
        assert settings(engine) == expected

    mode.run(steps)


@pytest.mark.parametrize("environment", [None, "-c work_mem=5MB"])
def test_pgoptions_holds_where_the_policy_sets_nothing(environment, mode, database, monkeypatch):
    """A policy without timeouts leaves it to libpq."""
    if environment is not None:
        monkeypatch.setenv("PGOPTIONS", environment)
    none = lambdadb.PerEnvironment(idle_session_timeout=None, idle_in_transaction_session_timeout=None)

    def steps():
        assert settings(mode.create_engine(database, policy=none)) == [
            "5MB" if environment else "4MB",
            "0",
        ]

    mode.run(steps)
