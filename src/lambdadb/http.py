"""
The HTTP answer for a database that cannot be reached yet: 503 with `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lambdadb.errors import ConnectFailed
from lambdadb.faults import Fault

_MESSAGES = {
    Fault.RESUMING: "The database is waking up. Please try again.",
    Fault.EXHAUSTED: "The database is busy. Please try again.",
}
_OTHER = "The database cannot be reached. Please try again."


def describe_unavailable(error: ConnectFailed) -> tuple[dict[str, str], str] | None:
    """Return headers and body of a 503; None if trying again would not help."""
    if error.retry_after is None:
        return None
    message = {"message": _MESSAGES.get(error.fault, _OTHER), "retryAfter": error.retry_after}
    headers = {"Retry-After": str(error.retry_after), "Content-Type": "application/json"}
    return headers, json.dumps(message)


def answer_event(event: object, error: ConnectFailed) -> dict[str, Any] | None:
    """
    Return the answer to an event of API Gateway, a load balancer or a function URL.

    Returns None for other events, and if trying again would not help.
    """
    described = describe_unavailable(error)
    if described is None or not isinstance(event, Mapping) or not _is_http(event):
        return None
    headers, body = described
    answer: dict[str, Any] = {
        "statusCode": 503,
        "statusDescription": "503 Service Unavailable",  # a load balancer requires it
        "isBase64Encoded": False,
        "body": body,
    }
    # A load balancer with multi-value headers sends these alone, and ignores `headers` in the answer.
    if "multiValueHeaders" in event and "headers" not in event:
        answer["multiValueHeaders"] = {name: [value] for name, value in headers.items()}
    else:
        answer["headers"] = headers
    return answer


def _is_http(event: Mapping[str, Any]) -> bool:
    request = event.get("requestContext")
    if not isinstance(request, Mapping):
        return False
    return bool(request.keys() & {"elb", "http", "httpMethod"}) or "httpMethod" in event
