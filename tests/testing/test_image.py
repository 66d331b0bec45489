"""The container image of the cluster. `nox -s image` builds it and runs these tests; it needs Docker."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from contextlib import suppress

import psycopg
import pytest

pytestmark = pytest.mark.image
PASSWORD = "canary-image"


def docker(*arguments):
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def container():
    ports = ["-p", "127.0.0.1::5432", "-p", "127.0.0.1::8080"]
    variable = f"LAMBDADB_PASSWORD={PASSWORD}"
    options = ["--paused", "--resume", "0.5"]
    image = os.environ["LAMBDADB_CLUSTER_IMAGE"]
    name = docker("run", "--init", "--detach", *ports, "--env", variable, image, *options)
    yield name
    docker("rm", "--force", name)


def place(container, port):
    """Where a port of the container is on this machine."""
    return docker("port", container, str(port)).splitlines()[0]


def call(container, path, method="GET"):
    url = f"http://{place(container, 8080)}{path}"
    request = urllib.request.Request(url, b"" if method == "POST" else None, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_client_of_any_language_wakes_the_cluster_and_lets_it_pause(container):
    """It listens with the password of the variable; nobody is root in it, and it becomes healthy."""
    end = time.monotonic() + 120
    while True:
        with suppress(OSError):
            assert call(container, "/")["state"] == "paused"
            break
        assert time.monotonic() < end, docker("logs", container)
        time.sleep(0.2)
    url = f"postgresql://postgres:{PASSWORD}@{place(container, 5432)}/postgres?sslmode=disable"
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    assert call(container, "/")["resumes"] == 1
    assert call(container, "/pause", "POST")["state"] == "paused"
    assert docker("exec", container, "id", "--user", "--name") == "lambdadb"
    while docker("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
        assert time.monotonic() < end
        time.sleep(0.2)
