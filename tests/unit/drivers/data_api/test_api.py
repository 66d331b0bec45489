"""One call: what is sent, and what its answer means."""

from __future__ import annotations

import json

import pytest

from lambdadb import InvalidSettings
from lambdadb.drivers.data_api import http
from lambdadb.drivers.data_api.api import CallFailed, DataApi, Endpoint, find_endpoint
from lambdadb.drivers.data_api.http import Answer, NoAnswer, NotSent

ENDPOINT = Endpoint(("https", "rds-data.eu-west-1.amazonaws.com", 443), "rds-data", "eu-west-1")


class ScriptedHttp:
    """Stands for `HttpConnection`."""

    def __init__(self, answer=None):
        self.answer = answer or Answer(200, {"x-amzn-requestid": "r1"}, b'{"records": []}')
        self.posts = []

    def post(self, path, headers, body, *, clock, until):
        self.posts.append((path, headers, json.loads(body)))
        clock.time += 0.25
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret-key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary-token")


def call(clock, answer=None, *, tag=None, request=None):
    """The scripted HTTP connection and the API, after one call; and its result, or its failure."""
    scripted = ScriptedHttp(answer)
    api = DataApi(ENDPOINT, "cluster", "secret", tag, scripted)
    try:
        result = api.call("Execute", request or {"sql": "SELECT 1"}, clock=clock, until=clock.now() + 9)
    except CallFailed as failure:
        result = failure
    return scripted, api, result


def test_a_request_names_cluster_secret_and_function(clock):
    """And is signed for the region of the cluster."""
    scripted, api, result = call(clock, tag="orders")
    [(path, headers, body)] = scripted.posts
    assert path == "/Execute"
    assert body == {"resourceArn": "cluster", "secretArn": "secret", "sql": "SELECT 1"}
    assert headers["user-agent"].startswith("lambdadb/")
    assert headers["user-agent"].endswith(" app/orders")
    assert "/eu-west-1/rds-data/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "canary-token"
    assert result == {"records": []}
    assert (api.request_id, api.seconds) == ("r1", 0.25)


@pytest.mark.parametrize(
    ("code", "status", "effect"),
    [
        ("DatabaseErrorException", 400, "none"),
        ("DatabaseResumingException", 400, "none"),
        ("ThrottlingException", 429, "none"),
        ("TransactionNotFoundException", 404, "none"),
        ("StatementTimeoutException", 400, "unknown"),
        ("InternalServerErrorException", 500, "unknown"),
        ("ServiceUnavailableError", 503, "unknown"),
        ("DatabaseUnavailableException", 504, "unknown"),
        ("", 502, "unknown"),
    ],
)
def test_an_error_says_whether_it_may_have_an_effect(clock, code, status, effect):
    """A timeout, and whatever is an error of AWS's, may come after it."""
    headers = {"x-amzn-errortype": f"{code}:http://internal.amazon.com/coral/"} if code else {}
    _, _, failure = call(clock, Answer(status, headers, b'{"message": "what AWS says"}'))
    assert (failure.code, failure.status, failure.effect) == (code, status, effect)
    assert str(failure) == f"{code or 'HTTP'} ({status}): what AWS says"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"'])
def test_an_answer_that_is_none_of_the_apis_is_no_answer(clock, body):
    """Such as a proxy's page: whether the call was carried out is not known."""
    _, _, failure = call(clock, Answer(200, {}, body))
    assert failure.effect == "unknown"


@pytest.mark.parametrize(("error", "effect"), [(NotSent("x"), "none"), (NoAnswer("x"), "unknown")])
def test_no_answer_may_have_an_effect_if_the_request_was_sent(clock, error, effect):
    """Otherwise it has none."""
    _, api, failure = call(clock, error)
    assert (failure.effect, failure.status, api.request_id) == (effect, 0, None)


def test_the_error_of_a_signature_does_not_repeat_the_request(clock):
    """AWS's text has the token in its later lines."""
    said = {"message": "The request signature does not match.\nx-amz-security-token:canary-token"}
    answer = Answer(403, {"x-amzn-errortype": "InvalidSignatureException"}, json.dumps(said).encode())
    _, _, failure = call(clock, answer)
    assert str(failure).endswith("(403): The request signature does not match.")


def test_a_request_that_is_too_large_is_not_sent(clock):
    """And says what to do."""
    scripted, _, failure = call(clock, request={"sql": "x" * (4 << 20)})
    assert scripted.posts == []
    assert (failure.code, failure.effect) == ("RequestTooLarge", "none")
    assert "insertmanyvalues_page_size" in str(failure)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "rds-data.eu-west-1.amazonaws.com"),
        ("cn-north-1", "rds-data.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_region_has_its_own_endpoint(monkeypatch, region, host):
    """In each partition of AWS."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_RDS_DATA", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    endpoint = find_endpoint(region)
    assert (endpoint.url, endpoint.host_header) == (("https", host, 443), host)


def test_an_endpoint_can_be_given(monkeypatch):
    """By the variables that boto3 reads; a port that is not the usual one is part of the signed host."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other")
    monkeypatch.setenv("AWS_ENDPOINT_URL_RDS_DATA", "http://127.0.0.1:8080/")
    assert find_endpoint("eu-west-1").host_header == "127.0.0.1:8080"
    for wrong in ("localhost", "ftp://x", "http://canary-user:canary-password@x", "http://x:y"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_RDS_DATA", wrong)
        with pytest.raises(InvalidSettings, match="not a URL of a host"):
            find_endpoint("eu-west-1")


def test_a_kept_connection_is_used_for_five_seconds(clock):
    """The service closes an idle one without a warning."""
    connection = http.HttpConnection(("http", "127.0.0.1", 1))
    connection._used = clock.moment()
    assert not connection._is_usable(clock)  # there is none
    connection._socket = object()
    clock.time += 5.1
    assert not connection._is_usable(clock)
