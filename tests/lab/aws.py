"""AWS for tests: Secrets Manager as moto's server plays it, scripted servers, a function's variables."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "the-secret-key",
    "AWS_SESSION_TOKEN": "the-token",
    "AWS_REGION": "us-east-1",
}


def variables(monkeypatch: pytest.MonkeyPatch, **chosen: str) -> None:
    """The AWS variables are `chosen` and no others; no file of the machine says more."""
    for name in [
        name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    files = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    for name, value in {**files, **chosen}.items():
        monkeypatch.setenv(name, value)


class Secret:
    """One secret in Secrets Manager, and the steps of its rotation."""

    def __init__(self, client: Any, **value: Any) -> None:
        self._client = client
        self.id = f"orders/{uuid.uuid4()}"
        made = client.create_secret(Name=self.id, **value)
        self.arn: str = made["ARN"]
        self._current: str = made["VersionId"]
        self._pending = ""

    def create(self, value: str) -> None:
        """createSecret: a new value in the stage AWSPENDING."""
        made = self._client.put_secret_value(
            SecretId=self.id, SecretString=value, VersionStages=["AWSPENDING"]
        )
        self._pending = made["VersionId"]

    def finish(self) -> None:
        """finishSecret: AWSCURRENT moves to it, and AWSPENDING is taken away."""
        move = self._client.update_secret_version_stage
        old, self._current = self._current, self._pending
        move(
            SecretId=self.id,
            VersionStage="AWSCURRENT",
            MoveToVersionId=self._current,
            RemoveFromVersionId=old,
        )
        move(SecretId=self.id, VersionStage="AWSPENDING", RemoveFromVersionId=self._current)

    def rotate(self, value: str) -> None:
        """A whole rotation but for the database's part."""
        self.create(value)
        self.finish()


class SecretServer:
    """Secrets Manager over HTTP at `endpoint`; `client` is boto3's."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = boto3.client(
            "secretsmanager",
            region_name="us-east-1",
            endpoint_url=endpoint,
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )

    def secret(self, **value: Any) -> Secret:
        return Secret(self.client, **value)


@contextlib.contextmanager
def secret_server() -> Iterator[SecretServer]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield SecretServer("http://{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()


class Request(http.server.BaseHTTPRequestHandler):
    """One request to a scripted server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        self.server.answer(self)  # type: ignore[attr-defined]

    do_POST = do_GET

    def give(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def scripted(answer: Callable[[Request], None]) -> Iterator[int]:
    """The port of a server whose requests `answer` answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        server.answer = answer  # type: ignore[attr-defined]
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield server.server_port
        server.shutdown()
