"""The rules on sessions, on data."""

from __future__ import annotations

from typing import Any

import pytest

from lambdadb.operate.checks import Weight
from lambdadb.operate.postgresql import find_setting
from lambdadb.operate.sessions import (
    Session,
    SessionView,
    Slots,
    blockers,
    duration,
    examine,
    holders,
    keeps_awake,
)


def session(number: int, **values: Any) -> Session:
    known: dict[str, Any] = {
        "name": "orders",
        "user": "app",
        "database": "shop",
        "client": "10.0.0.7",
        "state": "idle",
        "age": 100.0,
        "idle": 10.0,
        "idle_timeout": 900.0,
    }
    return Session(id=number, **{**known, **values})


def view(*sessions: Session, limit: int = 100) -> SessionView:
    return SessionView(
        server="s",
        kind="PostgreSQL",
        version="16.6",
        reader=False,
        slots=Slots(limit=limit, reserved=5, used=len(sessions) + 1),
        sessions=sessions,
        sees_all=True,
        role="ops",
    )


def test_a_chain_of_waiting_sessions() -> None:
    """The one at its head has all others behind it; a circle has no head."""
    chain = view(session(1), session(2, waits_for=(1,)), session(3, waits_for=(2,)))
    assert [(one.id, count) for one, count in blockers(chain)] == [(1, 2)]
    circle = view(session(1, waits_for=(2,)), session(2, waits_for=(1,)))
    assert blockers(circle) == []
    assert blockers(view(session(1, waits_for=(99,)))) == []


def test_most_of_few_do_not_stand_out() -> None:
    """Nine of nine sessions are no incident."""
    assert not holders(view(*map(session, range(9))))[0].stands_out
    ten = view(*map(session, range(10)))
    assert holders(ten)[0].stands_out
    assert [one.weight for one in examine(ten)] == [Weight.NOTE]
    narrow = view(*map(session, range(10)), limit=24)
    assert [one.weight for one in examine(narrow) if one.name == "main holder"] == [Weight.WARNING]


def test_a_long_transaction() -> None:
    """It is a warning from a minute on, and not said twice of one that blocks others."""
    (finding,) = examine(view(session(1, transaction=61.0, state="idle in transaction")))
    assert (finding.name, finding.weight) == ("long transaction", Weight.WARNING)
    both = view(session(1, transaction=61.0), session(2, waits_for=(1,), transaction=1.0))
    assert [one.name for one in examine(both)] == ["blocker"]
    assert examine(view(session(1, transaction=59.0))) == []


def test_what_keeps_a_cluster_awake() -> None:
    """Without an end first, then the longest; AWS's own sessions do not count."""
    found = keeps_awake(
        view(
            session(1, name="soon", idle=890.0),
            session(2, name="later", idle=0.0),
            session(3, name="never", idle_timeout=0.0),
            session(4, name="busy", state="active", idle=None),
            session(5, name="", user="rdsadmin", idle_timeout=0.0),
            session(6, name="due", idle=900.0),
        )
    )
    assert [(one.holder, one.seconds) for one in found] == [
        ("busy", None),
        ("never", None),
        ("later", 900.0),
        ("soon", 10.0),
        ("due", 0.0),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("60000", 60.0), ("60s", 60.0), ("15min", 900.0), ("0", 0.0), ("1d", 86400.0), ("'x'", None)],
)
def test_durations_of_postgresql(value: str, expected: float | None) -> None:
    """As ALTER ROLE … SET keeps them, with or without a unit."""
    config = ["search_path=a", f"idle_session_timeout={value}"]
    assert find_setting(config, "idle_session_timeout") == expected
    assert find_setting(["search_path=a"], "idle_session_timeout") is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (8000, "2 h"), (200000, "2 d")]
)
def test_durations_have_one_unit(seconds: float, shown: str) -> None:
    """So that a column of them can be compared at a glance."""
    assert duration(seconds) == shown
