"""A cluster's control over HTTP, for tests in any language."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing
from urllib.error import HTTPError

import psycopg
import pytest

from lambdadb.lab import LabError
from lambdadb.lab.aurora.control import ControlServer


class Client:
    """Calls a control server."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}"

    def __call__(self, method, path, body=b""):
        """The status and the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data or None, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.fixture
def call(aurora_cluster):
    with closing(ControlServer(aurora_cluster, "127.0.0.1", 0)) as server:
        yield Client(server.port)


def connect(cluster):
    return psycopg.connect(cluster.url.replace("+psycopg", ""), application_name="shop")


def test_a_test_in_any_language_pauses_and_wakes_the_cluster(aurora_cluster, call):
    """The same verbs as the fixture's; each is answered with the cluster's state."""
    found = {"state": "paused", "awake_because": [], "resumes": 0, "connects": 0, "round_trips": 0}
    assert call("GET", "/") == (200, found)
    assert call("POST", "/resume", {"shape": "starting", "seconds": 0.3})[0] == 200
    with pytest.raises(psycopg.OperationalError, match="starting up"):
        connect(aurora_cluster)
    assert call("POST", "/let-pass", {"seconds": 0.3})[1]["state"] == "available"
    with connect(aurora_cluster):
        status, answer = call("POST", "/pause")
        assert (status, answer["state"], answer["resumes"]) == (409, "available", 1)
        assert "a connection of shop" in answer["error"]
        assert "a connection of shop" in answer["awake_because"][0]
    assert call("POST", "/pause")[1]["state"] == "paused"
    assert call("POST", "/pause")[0] == 200  # it is paused already


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/resume", {"shape": "sleepy"}, 400, "hold, refuse"),
        ("/resume", {"colour": "green"}, 400, "colour"),
        ("/let-pass", {}, 400, "seconds"),
        ("/let-pass", {"seconds": "soon"}, 400, ""),
        ("/pause", b"no JSON", 400, ""),
        ("/sleep", {}, 404, "There are /pause, /resume, /let-pass"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(call, path, body, status, words):
    """And changes nothing."""
    got, answer = call("POST", path, body)
    assert got == status
    assert words in answer["error"]
    assert call("GET", "/")[1]["state"] == "paused"


def test_a_port_in_use_is_told(aurora_cluster):
    """With its number."""
    first = ControlServer(aurora_cluster, "127.0.0.1", 0)
    with closing(first), pytest.raises(LabError, match=f"Port {first.port} on 127"):
        ControlServer(aurora_cluster, "127.0.0.1", first.port)
