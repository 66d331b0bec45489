"""A connection over a scripted API, in virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lambdadb.deadline import ActiveInvocations, StatementDeadline
from lambdadb.drivers.data_api.api import CallFailed
from lambdadb.drivers.data_api.backends import POSTGRESQL, Backend
from lambdadb.drivers.data_api.connection import DataApiConnection

UNANSWERED = CallFailed("no answer came", certain=False)
REFUSED = CallFailed("no request was sent")
RESUMING = CallFailed("resuming", code="DatabaseResumingException", status=400)


@dataclass
class ScriptedApi:
    """Stands for `DataApi`: each call takes a second, and is answered from a list."""

    clock: Any
    tag: str | None = None
    answers: list[Any] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    untils: list[float] = field(default_factory=list)
    http: Any = field(default_factory=lambda: SimpleNamespace(close=lambda: None))
    endpoint: Any = field(default_factory=lambda: SimpleNamespace(url=("https", "aws", 443)))

    def call(self, name: str, request: Any, *, clock: Any, until: float) -> dict[str, Any]:
        assert clock is self.clock
        self.calls.append((name, dict(request)))
        self.untils.append(until)
        clock.time += 1.0
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            return dict(answer)
        number = sum(one == "BeginTransaction" for one, _ in self.calls)
        status = "Transaction Committed" if name == "CommitTransaction" else "Rollback Complete"
        return {"transactionId": f"t{number}", "transactionStatus": status}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def api(clock) -> ScriptedApi:
    return ScriptedApi(clock)


@pytest.fixture
def connection(api, clock) -> DataApiConnection:
    """It is connected, and counts how often it has waited for the database."""
    return make_connection(api, clock)


def make_connection(
    api: Any,
    clock: Any,
    *,
    invocations: ActiveInvocations | None = None,
    backend: Backend = POSTGRESQL,
) -> DataApiConnection:
    deadline = StatementDeadline(invocations or ActiveInvocations(), clock, reserve=1.0)
    connection = DataApiConnection(api, backend, "orders", deadline, math.inf)
    connection.wait_limit = None
    waits: list[object] = []
    connection.wait_until_ready = lambda: waits.append(None)
    connection.waits = waits  # type: ignore[attr-defined]
    return connection
