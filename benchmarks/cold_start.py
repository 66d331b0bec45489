"""
What each part adds to a cold start, and what the first login costs there, beside boto3's ways.

Every figure is of a fresh process; those of parts, of one that has imported SQLAlchemy and psycopg, as
a function with a database has. Whole functions are measured from their first import to their first row.
All programs run in turns; shown are medians and, of ratios, the smallest and the largest.
A secret is read from a server on loopback, without TLS: what TLS costs is the same for everybody.

    nox -s cold_start
    nox -s cold_start -- --runs 30 --json cold_start.json
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lambdadb.lab.postgres import Postgres

PROGRAM = """
{before}
import json, sys, time
modules, cpu, wall = len(sys.modules), time.process_time(), time.perf_counter()
{measured}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({{"cpu": cpu * 1e3, "wall": wall * 1e3, "modules": len(sys.modules) - modules}}))
"""

DRIVER = "import sqlalchemy, psycopg, sqlalchemy.dialects.postgresql.psycopg\n"

# What is imported, over SQLAlchemy and the driver for lambdadb itself, over lambdadb for the others.
IMPORTS = (
    "lambdadb",
    "lambdadb.aio",
    "lambdadb.credentials.rds_iam",
    "lambdadb.credentials.secrets_manager",
    "lambdadb.tracing.json_log",
    "lambdadb.tracing.opentelemetry",
    "lambdadb.tracing.xray",
    "aws_xray_sdk.core",
)

PASSWORD = secrets.token_hex(8)
HOST = "orders.cluster-c9akciq32.eu-west-1.rds.amazonaws.com"
TOKENS = {
    "RdsIam": f"""
from lambdadb.credentials.rds_iam import RdsIam
next(RdsIam().logins({{"host": "{HOST}", "port": 5432, "user": "app"}}))
""",
    "botocore.auth": f"""
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.session import Session
keys = Session().get_credentials()
request = AWSRequest("GET", "https://{HOST}:5432/", params={{"Action": "connect", "DBUser": "app"}})
SigV4QueryAuth(keys, "rds-db", "eu-west-1", 900).add_auth(request)
""",
    "boto3.client": f"""
import boto3
boto3.client("rds", "eu-west-1").generate_db_auth_token("{HOST}", 5432, "app")
""",
}
SECRETS = {
    "SecretsManager": """
from lambdadb.credentials.secrets_manager import SecretsManager
next(SecretsManager("orders/app").logins({}))
""",
    "boto3.client": """
import boto3
boto3.client("secretsmanager").get_secret_value(SecretId="orders/app")
""",
}

# lambdadb imports without collecting garbage, which works for what was not imported before it.
ORDERS = {
    "lambdadb first": """
import lambdadb
import sqlalchemy
lambdadb.create_engine("postgresql+psycopg://app@h/d")
""",
    "SQLAlchemy and the driver first": f"""
{DRIVER}
import lambdadb
lambdadb.create_engine("postgresql+psycopg://app@h/d")
""",
}
# Whole functions: a secret, a connect with its password, a row. {url} has neither user nor password.
FUNCTIONS = {
    "lambdadb, SecretsManager, XRay": """
import lambdadb
import sqlalchemy
from lambdadb.credentials.secrets_manager import SecretsManager
from lambdadb.tracing.xray import XRay
engine = lambdadb.create_engine(
    "postgresql+psycopg://{place}", credentials=SecretsManager("orders/app"), tracer=XRay()
)
with lambdadb.invocation(engine), engine.begin() as connection:
    assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
""",
    "SQLAlchemy, boto3, X-Ray's SDK": """
import json
import boto3
import sqlalchemy
from aws_xray_sdk.core import xray_recorder
from sqlalchemy.pool import StaticPool
answer = boto3.client("secretsmanager").get_secret_value(SecretId="orders/app")
login = json.loads(answer["SecretString"])
url = sqlalchemy.make_url("postgresql+psycopg://{place}").set(**login)
engine = sqlalchemy.create_engine(url, poolclass=StaticPool)
with xray_recorder.in_subsegment("query"), engine.begin() as connection:
    assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
""",
    "psycopg, boto3": """
import json
import boto3
import psycopg
answer = boto3.client("secretsmanager").get_secret_value(SecretId="orders/app")
login = json.loads(answer["SecretString"])
with psycopg.connect(
    "postgresql://{place}", user=login["username"], password=login["password"]
) as connection:
    assert connection.execute("SELECT 1").fetchone() == (1,)
""",
}

Figures = dict[str, float]


class Secret(http.server.BaseHTTPRequestHandler):
    """Answers every request with a secret."""

    seconds = 0.0

    def do_POST(self) -> None:
        time.sleep(self.seconds)
        self.rfile.read(int(self.headers["Content-Length"]))
        text = json.dumps({"SecretString": json.dumps({"username": "postgres", "password": PASSWORD})})
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def measured(before: str, code: str, port: int) -> Figures:
    """CPU and wall milliseconds and modules that `code` costs in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages bring theirs compiled
    environment |= {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "x" * 40,
        "AWS_SESSION_TOKEN": "x" * 800,
        # As in a sampled invocation: X-Ray's SDK then polls for no sampling rules.
        "LAMBDA_TASK_ROOT": "/var/task",
        "_X_AMZN_TRACE_ID": f"Root=1-65000000-{'0' * 24};Parent={'0' * 16};Sampled=1",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{port}",
    }
    program = PROGRAM.format(before=before, measured=code)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True, timeout=60
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def in_turns(programs: dict[str, str], before: str, runs: int, port: int) -> dict[str, list[Figures]]:
    """`runs` results of each program, none of which is given a quieter time than the others."""
    results: dict[str, list[Figures]] = {name: [] for name in programs}
    for run in range(runs + 1):
        for name, code in programs.items():
            figures = measured(before, code, port)
            if run:  # the first one compiles what was never imported before
                results[name].append(figures)
    return results


def median(figures: list[Figures], key: str) -> float:
    return statistics.median(one[key] for one in figures)


def spread(ours: list[Figures], theirs: list[Figures], key: str) -> list[float]:
    """How many times as much theirs is: the median, the smallest and the largest of the pairs."""
    ratios = [other[key] / own[key] for own, other in zip(ours, theirs, strict=True)]
    return [statistics.median(ratios), min(ratios), max(ratios)]


def table(title: str, results: dict[str, list[Figures]], *, compared: bool) -> Table:
    """A row for each program; ratios are to the first of them."""
    shown = Table(title=title, title_justify="left")
    ratios = ["x CPU", "x time"] if compared else []
    for column in ("", "CPU ms", "ms", "modules", *ratios):
        shown.add_column(column, justify="right" if column else "left")
    ours = next(iter(results.values()))
    for name, figures in results.items():
        cells = [f"{median(figures, 'cpu'):.1f}", f"{median(figures, 'wall'):.1f}"]
        cells.append(f"{median(figures, 'modules'):.0f}")
        for key in ("cpu", "wall") if compared else ():
            middle, low, high = spread(ours, figures, key)
            cells.append("1" if figures is ours else f"{middle:.3g} ({low:.3g}-{high:.3g})")
        shown.add_row(name, *cells)
    return shown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=12)
    options.add_argument("--json", type=Path, help="where to write every single figure")
    chosen = options.parse_args()
    results: dict[str, dict[str, list[Figures]]] = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Secret) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        runs, port = chosen.runs, server.server_port
        own, *others = IMPORTS
        with_own = f"{DRIVER}import {own}"
        results["imports"] = in_turns({own: f"import {own}"}, DRIVER, runs, port)
        results["imports"] |= in_turns({n: f"import {n}" for n in others}, with_own, runs, port)
        results["token"] = in_turns(TOKENS, with_own, runs, port)
        results["secret"] = in_turns(SECRETS, with_own, runs, port)
        results["order"] = in_turns(ORDERS, "", runs, port)
        with Postgres(password=PASSWORD) as postgres:
            place = postgres.url().partition("@")[2]
            whole = {name: code.replace("{place}", place) for name, code in FUNCTIONS.items()}
            results["function"] = in_turns(whole, "", runs, port)
        server.shutdown()
    console = Console(width=110)
    console.print(table("Imported", results["imports"], compared=False))
    console.print(table("Imported and an engine made, by order", results["order"], compared=True))
    console.print(table("First IAM token of a process", results["token"], compared=True))
    console.print(table("First secret of a process", results["secret"], compared=True))
    console.print(table("A whole function, to its first row", results["function"], compared=True))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
