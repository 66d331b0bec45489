"""The settings of the policies."""

from __future__ import annotations

import pytest

from lambdadb import InvalidSettings, PerEnvironment, PerInvocation

WRONG = {
    "connections": [0, -1, 1.5, "2", None],
    "checkout_timeout": [-1, "1", None],
    "ping_after": [-1, "1", None],
    "idle_session_timeout": [0, -1, "1"],
    "idle_in_transaction_session_timeout": [0, -1, "1"],
}


@pytest.mark.parametrize("policy", [PerEnvironment, PerInvocation])
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_number_that_cannot_work_is_refused(policy, name, value):
    """A bad setting is found while the policy is made, and named."""
    with pytest.raises(InvalidSettings, match=name):
        policy(**{name: value})


@pytest.mark.parametrize("value", ["all", "", None, True])
def test_a_reset_that_there_is_not_is_refused(value):
    """`reset` is "none" or "session"."""
    with pytest.raises(InvalidSettings, match="'none' or 'session'"):
        PerEnvironment(reset=value)


def test_a_session_per_invocation_needs_no_reset():
    """PerInvocation has no such setting: each of its sessions begins anew."""
    with pytest.raises(TypeError, match="reset"):
        PerInvocation(reset="session")
