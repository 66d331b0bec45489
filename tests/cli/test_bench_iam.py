"""`lambdadb bench --iam`, end to end: each handler signs a token, and a server with TLS checks it."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import trustme

from lambdadb.lab.aurora import Cluster
from lambdadb.lab.postgres import Postgres

from ..lab.aws import KEYS
from ..lab.rds_iam import TokenGate, gate
from .processes import Finished, lambdadb

pytestmark = [pytest.mark.timeout(180), pytest.mark.sweep]


def trust(server: Postgres, user: str) -> None:
    """Make a user whom the server itself lets in, and who may use the schema."""
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {user} LOGIN".encode())
        admin.execute(f"GRANT CREATE ON SCHEMA public TO {user}".encode())
        admin.execute("CREATE EXTENSION vector")
        (file,) = admin.execute("SHOW hba_file").fetchone() or ("",)
        first = f"host all {user} 127.0.0.1/32 trust"
        lines = psycopg.sql.SQL(
            "COPY (SELECT unnest({} || regexp_split_to_array(pg_read_file({}), '\n'))) TO {}"
        )
        admin.execute(lines.format([first], file, file))
        admin.execute("SELECT pg_reload_conf()")


@contextmanager
def cluster(folder: Path, *, secret_key: str) -> Iterator[tuple[str, TokenGate]]:
    """A cluster with TLS where a user logs in by IAM: its URL, and the gate that sees the tokens."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    with Postgres() as server, gate(server, secret_key=secret_key) as tokens:
        trust(server, "writer")
        with Cluster(tokens, tls=context) as running:  # type: ignore[arg-type]
            tokens.place = f"127.0.0.1:{running.port}"
            yield f"postgresql://writer@{tokens.place}/postgres?sslrootcert={folder}/root.pem", tokens


def bench(folder: Path, url: str) -> Finished:
    command = ("bench", "--hot", url, "--iam", "--rounds", "1", "--no-steady", "--yes", "--json")
    return lambdadb(*command, folder=folder, env={**os.environ, **KEYS})


def test_every_handler_logs_in_with_a_token(tmp_path: Path) -> None:
    """Four handlers over verified TLS, a good token for each connect, and no token in any file."""
    with cluster(tmp_path, secret_key=KEYS["AWS_SECRET_ACCESS_KEY"]) as (url, tokens):
        done = bench(tmp_path, url)
    assert done.code == 0, done.stderr
    assert [cell["errors"] for cell in json.loads(done.stdout)["cells"]] == [0, 0, 0, 0]
    assert tokens.refused == []
    assert len(tokens.tokens) >= 4 + 2  # the checks and the preparation log in, too
    files = [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert not any("X-Amz-Signature" in text for text in [done.stdout, done.stderr, *files])


def test_a_token_of_other_keys_is_refused_before_the_first_round(tmp_path: Path) -> None:
    """The server says no to the login, and the command says so before anything is run."""
    with cluster(tmp_path, secret_key="another-key") as (url, tokens):
        done = bench(tmp_path, url)
    assert done.code == 2, done.stderr
    assert "hot: login: No connection to" in " ".join(done.stderr.split())
    assert set(tokens.refused) == {"its signature is wrong"}
