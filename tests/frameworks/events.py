"""Events as AWS's services send them to a function."""

from __future__ import annotations

import json
from typing import Any


def http(path: str) -> dict[str, Any]:
    """A POST as API Gateway's HTTP API and a function URL send it."""
    request = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "requestContext": {"http": request, "stage": "$default", "requestId": "1"},
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example"},
        "isBase64Encoded": False,
    }


def rest(path: str, resource: str, **parameters: str) -> dict[str, Any]:
    """A POST as API Gateway's REST API sends it."""
    nothing = ("queryStringParameters", "multiValueQueryStringParameters", "stageVariables", "body")
    return {
        "resource": resource,
        "path": path,
        "httpMethod": "POST",
        "headers": {},
        "multiValueHeaders": {},
        "pathParameters": parameters,
        "requestContext": {"httpMethod": "POST", "resourcePath": resource, "requestId": "1"},
        "isBase64Encoded": False,
        **dict.fromkeys(nothing),
    }


def sqs(*bodies: object) -> dict[str, Any]:
    """Messages of a queue."""
    fixed = {
        "receiptHandle": "handle",
        "attributes": {},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:orders",
        "awsRegion": "us-east-1",
    }
    return {
        "Records": [
            {"messageId": f"m-{number}", "body": json.dumps(body), **fixed}
            for number, body in enumerate(bodies, 1)
        ]
    }
