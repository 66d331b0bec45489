"""
What the HTTP client of the Data API's driver costs at a cold start: lambdadb's own, httpx, and boto3.

    nox -s data_api_cold_start
    nox -s data_api_cold_start -- --rounds 40 --json

Each run is a fresh interpreter that makes an engine and selects 1, over HTTPS with a root store of the
usual size. The driver is the same; only what sends its requests is replaced. httpx is given lambdadb's
signature. boto3 signs, and sends once. sqlalchemy-aurora-data-api is beside them as it is.

The clients take turns in each round, in another order each time. A ratio compares two runs of the same
round, so that a busy machine slows both. Processor time is that of the process, without the server's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import certifi
import trustme
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lambdadb.lab.data_api import DataApi
from lambdadb.lab.postgres import Postgres

OURS = "lambdadb's own"
SELECT = """
import os
from sqlalchemy import text
import lambdadb
# here
engine = lambdadb.create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:
    assert connection.scalar(text("SELECT 1")) == 1
"""
HTTPX = """
import httpx
from lambdadb.drivers.data_api import http, target

class Connection:
    def __init__(self, url):
        self.url = "{}://{}:{}".format(*url)
        self.client = httpx.Client(verify=os.environ["SSL_CERT_FILE"])

    def post(self, path, headers, body, *, clock, until):
        answer = self.client.post(self.url + path, headers=headers, content=body)
        return http.Answer(answer.status_code, answer.headers, answer.content)

    def close(self):
        self.client.close()

target.HttpConnection = Connection
"""
BOTO3 = """
import boto3
from botocore.config import Config
from lambdadb.drivers.data_api.api import DataApi

OPERATIONS = {"Execute": "execute_statement", "BatchExecute": "batch_execute_statement",
    "BeginTransaction": "begin_transaction", "CommitTransaction": "commit_transaction",
    "RollbackTransaction": "rollback_transaction"}
client = boto3.client("rds-data", config=Config(retries={"total_max_attempts": 1}))

def call(self, name, request, *, clock, until):
    arns = {"resourceArn": self.cluster_arn, "secretArn": self.secret_arn}
    return getattr(client, OPERATIONS[name])(**arns, **request)

DataApi.call = call
"""
PEER = """
import os
from sqlalchemy import create_engine, text
engine = create_engine("postgresql+auroradataapi://:@/postgres")
with engine.connect() as connection:
    assert connection.scalar(text("SELECT 1")) == 1
"""
CLIENTS = {
    OURS: SELECT,
    "httpx": SELECT.replace("# here", HTTPX),
    "boto3": SELECT.replace("# here", BOTO3),
    "sqlalchemy-aurora-data-api": PEER,
}
EMPTY = "nothing"


@contextmanager
def serve(folder: Path) -> Iterator[DataApi]:
    """The emulated API over HTTPS, found by the environment variables of this process."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    roots = folder / "roots.pem"
    roots.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    with Postgres(settings={"fsync": "off"}) as server, DataApi(server, tls=context) as api:
        os.environ.update(
            api.environment(),
            DATABASE_URL=api.url(),
            SSL_CERT_FILE=str(roots),
            AWS_CA_BUNDLE=str(roots),
            AURORA_CLUSTER_ARN=api.cluster_arn,
            AURORA_SECRET_ARN=api.secret_arn,
        )
        yield api


def run(code: str) -> dict[str, float]:
    """Milliseconds of a fresh interpreter: processor time and elapsed time."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"A client failed:\n{code}")
    elapsed = time.perf_counter() - began
    return {"cpu": (usage.ru_utime + usage.ru_stime) * 1000, "elapsed": elapsed * 1000}


def measure(api: DataApi, rounds: int, console: Console) -> dict[str, dict[str, Any]]:
    """Each client's medians above an empty interpreter, its ratio to ours by round, and its calls."""
    programs = {EMPTY: "pass", **CLIENTS}
    calls = {}
    for name, code in programs.items():  # compiles
        before = len(api.calls)
        run(code)
        calls[name] = len(api.calls) - before
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    order = list(programs)
    for _ in track(range(rounds), "rounds", console=console, transient=True):
        random.shuffle(order)
        for name in order:
            found[name].append(run(programs[name]))
    empty = statistics.median(one["cpu"] for one in found[EMPTY])
    return {name: row(found[name], found[OURS], empty, calls[name]) for name in CLIENTS}


def row(
    runs: list[dict[str, float]], ours: list[dict[str, float]], empty: float, calls: int
) -> dict[str, Any]:
    cpu = [one["cpu"] - empty for one in runs]
    ratios = [(a["cpu"] - empty) / (b["cpu"] - empty) for a, b in zip(runs, ours, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "cpu_milliseconds": round(statistics.median(cpu)),
        "elapsed_milliseconds": round(statistics.median(one["elapsed"] for one in runs)),
        "ratio": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
        "calls": calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each client")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    console = Console(stderr=options.json, width=None if sys.stdout.isatty() else 110)
    with TemporaryDirectory() as folder, serve(Path(folder)) as api:
        found = measure(api, options.rounds, console)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "clients": found}))
        return
    title = f"A fresh interpreter that selects 1, {options.rounds} rounds (measured, medians)"
    table = Table(title=title)
    for heading in ("HTTP client", "CPU ms", "ratio", "quartiles", "elapsed ms", "calls"):
        table.add_column(heading, justify="left" if heading == "HTTP client" else "right")
    for name, one in found.items():
        low, high = one["ratio_quartiles"]
        table.add_row(
            name,
            str(one["cpu_milliseconds"]),
            f"{one['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}",
            str(one["elapsed_milliseconds"]),
            str(one["calls"]),
        )
    console.print(table)
    console.print("CPU ms: above an interpreter that does nothing. Ratio: to lambdadb's own, by round.")


if __name__ == "__main__":
    main()
