"""
A server that speaks MySQL 8's logins, which MariaDB lacks: it is scripted, and no MySQL.

It greets, asks for a login of one kind, records what the client answers, and accepts it. The packets are
those of the MySQL documentation ("Connection Phase"). What else a real MySQL 8.4 does is not shown.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

SALT = b"12345678abcdefghijkl"
OK = b"\x00\x00\x00\x02\x00\x00\x00"
FULL_LOGIN = b"\x01\x04"  # caching_sha2_password: the server does not know the password's hash yet
KEY = b"\x01-----BEGIN PUBLIC KEY-----\nof whoever is in the way\n-----END PUBLIC KEY-----\n"
# LONG_PASSWORD, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH,
# PLUGIN_AUTH_LENENC_CLIENT_DATA
CAPABILITIES = 1 | 8 | 0x200 | 0x2000 | 0x8000 | 0x80000 | 0x200000
SSL = 0x800


class ScriptedLogin:
    """
    One login.

    Args:
        plugin: `caching_sha2_password`, or `mysql_clear_password` as for a token of IAM.
        context: The server's TLS; None offers none.
    """

    def __init__(self, plugin: str, context: ssl.SSLContext | None) -> None:
        self.answers: list[bytes] = []
        """What the client has sent after the server asked for the login."""
        self._plugin = plugin
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self._thread.join(30)

    def _serve(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            plain, _ = self._listener.accept()
            with plain:
                self._log_in(plain)

    def _log_in(self, plain: socket.socket) -> None:
        flags = CAPABILITIES | (SSL if self._context else 0)
        default = b"caching_sha2_password"
        greeting = b"\x0a8.4.0-scripted\0" + struct.pack("<I", 7) + SALT[:8] + b"\0"
        greeting += struct.pack("<HBHHB", flags & 0xFFFF, 255, 2, flags >> 16, 21) + bytes(10)
        send(plain, 0, greeting + SALT[8:] + b"\0" + default + b"\0")
        number, packet = receive(plain)
        if self._context is None or not struct.unpack("<I", packet[:4])[0] & SSL:
            self._ask(plain, number)
            return
        with self._context.wrap_socket(plain, server_side=True) as encrypted:
            self._ask(encrypted, receive(encrypted)[0])

    def _ask(self, talk: socket.socket, number: int) -> None:
        """Ask for the login, and accept it."""
        if self._plugin == "caching_sha2_password":
            send(talk, number + 1, FULL_LOGIN)
        else:
            send(talk, number + 1, b"\xfe" + self._plugin.encode() + b"\0" + SALT + b"\0")
        number, packet = receive(talk)
        self.answers.append(packet)
        if packet == b"\x02":  # the client asks for the server's key
            send(talk, number + 1, KEY)
            number, packet = receive(talk)
            self.answers.append(packet)
        send(talk, number + 1, OK)
        receive(talk)  # SET NAMES
        send(talk, 1, OK)
        receive(talk)  # until the client ends


def send(talk: socket.socket, number: int, payload: bytes) -> None:
    talk.sendall(struct.pack("<I", len(payload))[:3] + bytes([number]) + payload)


def receive(talk: socket.socket) -> tuple[int, bytes]:
    """The next packet: its number, and its payload. Raises `struct.error` at the end."""
    header = read(talk, 4)
    length = struct.unpack("<I", header[:3] + b"\0")[0]
    return header[3], read(talk, length)


def read(talk: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = talk.recv(count - len(data))
        if not more:
            raise struct.error("the client has ended the connection")
        data += more
    return data
