"""
What a file of roots costs a connect: milliseconds until libpq has its TLS session, by file.

RDS's roots of one region, of all regions, and the public roots of this system. The server answers on
loopback and says no once it has its TLS session; its own root is added to each file, so that it is
verified. Beside them a connect that verifies nothing. Needs `trustme`, which the group `test` brings.

    nox -s roots
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import trustme

from lambdadb.drivers.psycopg import tls
from lambdadb.drivers.psycopg.faults import diagnose
from lambdadb.faults import Fault

HOST, ROUNDS = "db.example", 200


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Take TLS sessions and end each at once."""
    while True:
        client, _ = listener.accept()
        client.recv(8)  # SSLRequest
        client.sendall(b"S")
        with contextlib.suppress(OSError):  # the client refuses it, and says so itself
            context.wrap_socket(client, server_side=True).close()


def milliseconds(conninfo: str) -> float:
    """One connect, until the server has hung up on it."""
    started = time.perf_counter()
    try:
        psycopg.connect(conninfo)
    except psycopg.OperationalError as error:
        if diagnose(str(error)).fault is Fault.RESUMING:  # an end without a word
            return (time.perf_counter() - started) * 1e3
        raise
    raise AssertionError("the server is to hang up")


def main() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=[listener, context], daemon=True).start()
    server = f"host={HOST} hostaddr=127.0.0.1 port={listener.getsockname()[1]}"
    system = Path(tls.apply_tls_defaults({"host": HOST}, {})["sslrootcert"])
    files = {
        "none (require)": [],
        "one region": [tls.ROOTS / "eu-west-1.pem"],
        "RDS Proxy": [tls.PROXY_ROOTS],
        "all regions": sorted(tls.ROOTS.glob("*-*.pem")),
        f"system: {system}": [system],
    }
    with tempfile.TemporaryDirectory() as directory:
        conninfos, sizes = {}, {}
        for number, (name, parts) in enumerate(files.items()):
            text = b"".join(part.read_bytes() for part in parts)
            sizes[name] = len(text)
            own = Path(directory, f"{number}.pem")
            own.write_bytes(text + authority.cert_pem.bytes())
            mode = f"sslmode=verify-full sslrootcert={own}" if parts else "sslmode=require"
            conninfos[name] = f"{server} {mode}"
        took = [{name: milliseconds(c) for name, c in conninfos.items()} for _ in range(ROUNDS)]
    for name, size in sizes.items():
        times = sorted(row[name] for row in took)
        low, high = times[ROUNDS // 20], times[-ROUNDS // 20]
        median = statistics.median(times)
        print(f"{name}: {size / 1e3:.0f} kB, {median:.2f} ms ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
