"""Queries of Logs Insights: bounded waits, halves of what is too long, refusals that can be mended."""

from __future__ import annotations

import pytest

from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed.clients import Clients, Refused
from lambdadb.lab.bench.deployed.insights import LOOK, PATIENCE, query
from lambdadb.lab.emulated_aws import EmulatedAWS

from .conftest import GROUP, line, minute

TEXT = "fields @timestamp, new_id | sort @timestamp asc"


def ids(clients: Clients, *, most: int = 10_000, minutes: float = 60) -> list[int]:
    begin, end = (int(minute(number).timestamp()) for number in (0, minutes))
    rows = query(clients.of("logs"), [GROUP], TEXT, begin, end, lambda seconds: None, most=most)
    return [int(row["new_id"]) for row in rows]


def test_more_rows_than_a_query_returns(aws: EmulatedAWS, clients: Clients) -> None:
    """The time is halved until each half has fewer rows; none is lost, doubled or out of order."""
    for number in range(50):
        aws.log(GROUP, minute(number / 2), line(number))
    assert ids(clients, most=7) == list(range(50))
    assert aws.requests.count("logs:StartQuery") > 8


def test_a_second_with_too_many_rows(aws: EmulatedAWS, clients: Clients) -> None:
    """One second that cannot be halved any more is an error that names it."""
    for number in range(9):
        aws.log(GROUP, minute(1), line(number))
    with pytest.raises(LabError, match="7 lines or more in the second"):
        ids(clients, most=7)


class Slow:
    """A service whose queries never end, or end as they should not."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.stopped: list[str] = []

    def start_query(self, **_: object) -> dict[str, str]:
        return {"queryId": "q1"}

    def get_query_results(self, **_: object) -> dict[str, object]:
        return {"status": self.status, "results": []}

    def stop_query(self, queryId: str) -> None:
        self.stopped.append(queryId)


def test_a_query_that_does_not_end_is_stopped() -> None:
    """The wait is bounded, and nothing goes on running that nobody waits for."""
    client, waits = Slow("Running"), []
    with pytest.raises(Refused, match="took over 300 s and was stopped"):
        list(query(client, [GROUP], TEXT, 0, 10, waits.append))
    assert PATIENCE <= sum(waits) < PATIENCE + LOOK
    assert client.stopped == ["q1"]


def test_a_query_that_is_interrupted_is_stopped() -> None:
    """Ctrl-C while a query runs stops it."""
    client = Slow("Running")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(query(client, [GROUP], TEXT, 0, 10, interrupt))
    assert client.stopped == ["q1"]


def test_a_query_that_fails() -> None:
    """Its state is told."""
    with pytest.raises(Refused, match="ended as Timeout"):
        list(query(Slow("Timeout"), [GROUP], TEXT, 0, 10, lambda seconds: None))


def test_a_right_that_is_missing(aws: EmulatedAWS, clients: Clients) -> None:
    """The error names the action to allow, and the page with the policy."""
    aws.denied.add("logs:StartQuery")
    with pytest.raises(Refused, match=r"need logs:StartQuery. docs/benchmark.md has the policy"):
        ids(clients)


def test_a_log_group_that_is_missing(aws: EmulatedAWS, clients: Clients) -> None:
    """The error names it, and asks whether it is deployed."""
    aws.groups.clear()
    with pytest.raises(Refused, match=rf"query {GROUP}: there is no such thing in this region"):
        ids(clients)
