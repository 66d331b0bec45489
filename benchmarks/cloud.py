"""
The report of a run on Lambda without AWS: `lambdadb bench --on lambda` against an emulation.

The functions that Terraform deploys run under AWS's runtime client, on PostgreSQL behind an emulated
Aurora. Each reads its login from Secrets Manager, as moto plays it, and verifies the cluster's
certificate. The lab serves their log lines, the clusters' metrics and the events of their pauses to real
boto3.

The network of the published day is not known. Two delays stand for it, chosen so that an invocation of
the hot cluster takes as long as was published. So the hot figures show that the report adds up, and
nothing about a network. Needs moto and trustme, which the group `test` brings.

    nox -s cloud                                        # all four handlers, about four minutes
    nox -s cloud -- --policies hand_written --speed 400
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import logging
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import boto3
import trustme
from moto.server import ThreadedMotoServer

from lambdadb.lab.bench.records import POLICIES
from lambdadb.lab.emulated_aws import EmulatedAWS
from lambdadb.lab.emulated_aws.experiment import (
    EmulatedExperiment,
    EmulatedSettings,
    lasting,
    write_infra,
)
from lambdadb.lab.postgres import Postgres

# Seconds: of a round trip to the cluster, and until Secrets Manager answers.
ROUND_TRIP, SECRET = 0.08, 0.5
KEYS = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Late(http.server.BaseHTTPRequestHandler):
    """Passes each request on, a while later."""

    protocol_version = "HTTP/1.1"
    target: tuple[str, int]
    delay: float

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.delay)
        connection = http.client.HTTPConnection(*self.target)
        connection.request("POST", self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@contextmanager
def late(target: tuple[str, int], delay: float) -> Iterator[str]:
    """The address of a server before another one."""
    handler = type("Handler", (Late,), {"target": target, "delay": delay})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def moto() -> Iterator[tuple[str, int]]:
    """Host and port of moto's server."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


class Secrets:
    """Makes a cluster's secret, as RDS does, and tells a function where it is."""

    def __init__(self, place: tuple[str, int], endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = boto3.client(
            "secretsmanager",
            endpoint_url="http://{}:{}".format(*place),
            region_name="us-east-1",
            aws_access_key_id="emulated",
            aws_secret_access_key="emulated",  # noqa: S106 moto takes any
        )
        self.names: dict[str, str] = {}

    def login(self, kind: str, server: Postgres) -> Mapping[str, str]:
        """The variables of a function."""
        if kind not in self.names:
            self.names[kind] = f"emulated/{kind}"
            value = json.dumps({"username": "postgres", "password": server.password})
            self.client.create_secret(Name=self.names[kind], SecretString=value)
        return {**KEYS, "SECRET_NAME": self.names[kind], "AWS_ENDPOINT_URL": self.endpoint}


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto's server tells each request
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--rounds", type=int, default=2, help="invocations of each function")
    parser.add_argument("--speed", type=float, default=120.0, help="of the time between invocations")
    parser.add_argument("--resume", type=float, default=15.0, help="seconds")
    parser.add_argument("--round-trip", type=float, default=ROUND_TRIP, help="seconds")
    parser.add_argument("--secret", type=float, default=SECRET, help="seconds until a secret is read")
    parser.add_argument("--out", type=Path, default=Path("build/cloud"), help="the report's folder")
    parser.add_argument("--beside", type=Path, help="a run of `lambdadb bench` on this machine")
    chosen = parser.parse_args()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority.cert_pem.write_to_path(str(folder / "root.pem"))
        place = stack.enter_context(moto())
        secrets = Secrets(place, stack.enter_context(late(place, chosen.secret)))
        settings = EmulatedSettings(
            policies=chosen.policies,
            rounds=chosen.rounds,
            speed=chosen.speed,
            resume=chosen.resume,
            round_trip=chosen.round_trip,
            tls=context,
            login=secrets.login,
            variables={"PGSSLROOTCERT": str(folder / "root.pem")},
            emulated={
                "Secrets Manager": f"moto's; it answers after {chosen.secret:g} s. This delay and the "
                "network's are chosen so that the hot cluster takes as long as was published"
            },
        )
        began = datetime.now(timezone.utc) - lasting(settings)
        aws = stack.enter_context(EmulatedAWS())
        experiment = stack.enter_context(EmulatedExperiment(aws, settings, began))
        experiment.run(lambda line: print(line, file=sys.stderr, flush=True))
        command = [sys.executable, "-m", "lambdadb", "bench", "--on", "lambda", "--yes"]
        command += ["--infra", str(write_infra(experiment, folder / "experiment.json"))]
        command += ["--since", began.isoformat(), "--out", str(chosen.out)]
        command += ["--beside", str(chosen.beside)] if chosen.beside else []
        # Neither a profile nor an endpoint of this machine is used.
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(command, env={**own, **KEYS, **aws.variables}).returncode


if __name__ == "__main__":
    sys.exit(main())
