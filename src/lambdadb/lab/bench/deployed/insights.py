"""CloudWatch Logs Insights: a query, waited for within bounds, and split where it has too many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from lambdadb.lab import LabError
from lambdadb.lab.bench.deployed.clients import Refused, explained

# The most rows that a query returns (CloudWatch Logs API reference, StartQuery).
MOST_ROWS = 10_000
# Seconds between two looks at a query, the first and the most, and in all. A query ends by itself after
# 60 minutes.
FIRST_LOOK, LOOK, PATIENCE = 0.1, 2.0, 300.0
WAITING = {"Scheduled", "Running"}
# Looks at an account that has too many queries running already, before it is given up.
TRIES = 20

Row = dict[str, str]


def query(
    client: Any,
    groups: Sequence[str],
    text: str,
    begin: int,
    end: int,
    wait: Callable[[float], object],
    *,
    most: int = MOST_ROWS,
) -> Iterator[Row]:
    """
    Run a query over log groups, and give its rows, the earliest first.

    A stretch of time with as many rows as a query can return is halved until each half has fewer. The
    halves share a second, as it is not documented whether a query's last second is read to its end.

    Args:
        client: A boto3 client of CloudWatch Logs. It needs `logs:StartQuery`, `logs:GetQueryResults`
            and `logs:StopQuery`.
        text: The query without its limit; sorted by `@timestamp`.
        begin: Epoch seconds, included.
        end: Epoch seconds, included.
        wait: Waits for so many seconds.
        most: Rows that a query may return.

    Raises:
        Refused: AWS refused it, it failed, or it took over five minutes.
        LabError: One second has more rows than a query can return.
    """
    seen: set[str] = set()
    parts = [(begin, end)]
    while parts:
        first, last = parts.pop()
        rows = run(client, groups, f"{text} | limit {most}", first, last, wait)
        if len(rows) >= most:
            if last - first < 2:
                moment = datetime.fromtimestamp(first, timezone.utc).isoformat()
                raise LabError(f"{', '.join(groups)} have {most} lines or more in the second {moment}")
            middle = (first + last) // 2
            parts += [(middle, last), (first, middle)]
            continue
        yield from (row for row in rows if row["@ptr"] not in seen)
        seen |= {row["@ptr"] for row in rows}


def run(
    client: Any,
    groups: Sequence[str],
    text: str,
    begin: int,
    end: int,
    wait: Callable[[float], object],
) -> list[Row]:
    """One query's rows. It is stopped where the wait for it is cut short."""
    number = start(client, groups, text, begin, end, wait)
    pause, waited = FIRST_LOOK, 0.0
    try:
        answer = look(client, number)
        while answer["status"] in WAITING and waited < PATIENCE:
            wait(pause)
            waited += pause
            pause = min(pause * 2, LOOK)
            answer = look(client, number)
    except BaseException:
        stop(client, number)
        raise
    if answer["status"] == "Complete":
        return [{one["field"]: one["value"] for one in row} for row in answer["results"]]
    if answer["status"] in WAITING:
        stop(client, number)
        raise Refused(
            f"a query of {', '.join(groups)} took over {PATIENCE:.0f} s and was stopped. Run the same "
            "command again, or one with a later --since"
        )
    raise Refused(f"a query of {', '.join(groups)} ended as {answer['status']}: {text}")


def look(client: Any, number: str) -> dict[str, Any]:
    with explained("read a query's results", "logs:GetQueryResults"):
        answer: dict[str, Any] = client.get_query_results(queryId=number)
    return answer


def start(
    client: Any,
    groups: Sequence[str],
    text: str,
    begin: int,
    end: int,
    wait: Callable[[float], object],
) -> str:
    for number in range(TRIES):
        try:
            with explained(f"query {', '.join(groups)}", "logs:StartQuery"):
                answer = client.start_query(
                    logGroupNames=list(groups), startTime=begin, endTime=end, queryString=text
                )
                return str(answer["queryId"])
        except Refused as error:
            if "LimitExceededException" not in str(error) or number == TRIES - 1:
                raise
        wait(LOOK)
    raise AssertionError("the last try returns or raises")


def stop(client: Any, number: str) -> None:
    """Stop a query that nobody waits for any longer; it may have ended by itself."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.stop_query(queryId=number)
    except (BotoCoreError, ClientError):
        return  # the reason why nobody waits is the one to tell
