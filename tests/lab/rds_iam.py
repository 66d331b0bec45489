"""IAM's way into a database for tests: asks for the password in clear text, and takes it for a token."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, urlsplit

from lambdadb.lab.postgres import Postgres
from lambdadb.lab.startup_packet import fatal, parse

ASK_PASSWORD = b"R" + struct.pack("!II", 8, 3)


class TokenGate:
    """
    A port before a PostgreSQL that trusts a user: it lets in who shows a token signed with the keys.

    What RDS itself checks is not documented in detail. This checks the whole signature, the action, the
    user, and the host and port that the token is for.
    """

    def __init__(self, server: Postgres, *, secret_key: str) -> None:
        self.server = server
        self.host = server.host
        self.secret_key = secret_key
        self.place = ""
        self.tokens: list[str] = []
        self.refused: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def start(self) -> None:
        """A cluster starts its server: it runs."""

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            startup = read_packet(client)
            user = parse(startup).user
            client.sendall(ASK_PASSWORD)
            assert client.recv(1) == b"p"
            token = read_packet(client)[4:].rstrip(b"\0").decode()
            self.tokens.append(token)
            if why := problem(token, self.secret_key, user, self.place):
                self.refused.append(why)
                client.sendall(fatal("28000", f'PAM authentication failed for user "{user}"'))
                return
            with socket.create_connection(("127.0.0.1", self.server.port)) as server:
                server.sendall(startup)
                back = threading.Thread(target=pump, args=[server, client], daemon=True)
                back.start()
                pump(client, server)
                back.join()


def problem(token: str, secret_key: str, user: str, place: str) -> str:
    """Why a token is not good; empty if it is."""
    parts = urlsplit(f"https://{token}")
    fields = dict(parse_qsl(parts.query))
    signature = fields.pop("X-Amz-Signature", "")
    expected = {"Action": "connect", "DBUser": user}
    if parts.netloc != place:
        return f"it is for {parts.netloc}"
    if wrong := {name for name, value in expected.items() if fields.get(name) != value}:
        return f"wrong: {', '.join(sorted(wrong))}"
    query = "&".join(f"{quote(name, safe='')}={quote(fields[name], safe='')}" for name in sorted(fields))
    empty = hashlib.sha256(b"").hexdigest()
    request = f"GET\n/\n{query}\nhost:{parts.netloc}\n\nhost\n{empty}"
    scope = fields["X-Amz-Credential"].partition("/")[2]
    moment = fields["X-Amz-Date"]
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for part in [*scope.split("/"), text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return "" if hmac.compare_digest(key.hex(), signature) else "its signature is wrong"


def read_packet(client: socket.socket) -> bytes:
    """A message without its type: four bytes that say how long it is, and the rest."""
    head = client.recv(4, socket.MSG_WAITALL)
    return head + client.recv(struct.unpack("!I", head)[0] - 4, socket.MSG_WAITALL)


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def gate(server: Postgres, *, secret_key: str) -> Iterator[TokenGate]:
    """A gate that ends with the test. Its `place`, HOST:PORT, is the one that tokens are for."""
    found = TokenGate(server, secret_key=secret_key)
    try:
        yield found
    finally:
        found.close()
