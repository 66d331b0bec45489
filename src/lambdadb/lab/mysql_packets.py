"""The first and the last words of a MySQL connection: greeting, login, error packet.

Layouts are those of the MySQL source documentation's page "Connection Phase Packets".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

QUIT = b"\x01\x00\x00\x00\x01"  # COM_QUIT, the client's farewell
HEADER = 4
_LOGIN_FIXED = 4 + 4 + 1 + 23  # capabilities, longest packet, character set, filler
# Capabilities: bits of a client's first four bytes
_WITH_DATABASE, _SECURE, _PLUGIN, _ATTRIBUTES = 1 << 3, 1 << 15, 1 << 19, 1 << 20
_LENGTH_ENCODED = 1 << 21
_OFFERED = 1 | _WITH_DATABASE | 1 << 9 | 1 << 13 | _SECURE | _PLUGIN | _ATTRIBUTES | _LENGTH_ENCODED
_PLUGIN_NAME = b"mysql_native_password"


def packet_length(head: bytes) -> int:
    """Length of the whole packet from its first four bytes."""
    return HEADER + int.from_bytes(head[:3], "little")


def packet(number: int, body: bytes) -> bytes:
    """A packet with its header."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def greeting() -> bytes:
    """The first packet of a server, for one that never gets further."""
    seed = b"01234567890123456789"
    body = b"\x0a8.0.39-emulated\0" + struct.pack("<I", 1) + seed[:8] + b"\0"
    body += struct.pack("<H", _OFFERED & 0xFFFF) + b"\x2d" + struct.pack("<HH", 2, _OFFERED >> 16)
    body += bytes([len(seed) + 1]) + bytes(10) + seed[8:] + b"\0" + _PLUGIN_NAME + b"\0"
    return packet(0, body)


def error(number: int, text: str) -> bytes:
    """The error packet of a server that has not greeted: it has no SQLSTATE."""
    return packet(0, b"\xff" + struct.pack("<H", number) + text.encode())


@dataclass(frozen=True)
class Login:
    """A client's answer to the greeting."""

    user: str
    program_name: str


def parse_login(raw: bytes) -> Login | None:
    """Read a login; `None` if it is not one, but a request for TLS or something else."""
    body = raw[HEADER:]
    if len(body) <= _LOGIN_FIXED:
        return None
    (flags,) = struct.unpack("<I", body[:4])
    try:
        user, _, rest = body[_LOGIN_FIXED:].partition(b"\0")
        rest = rest[1 + rest[0] :]  # the answer to the seed
        if flags & _WITH_DATABASE:
            rest = rest.partition(b"\0")[2]
        if flags & _PLUGIN:
            rest = rest.partition(b"\0")[2]
        attributes = _read_attributes(rest) if flags & _ATTRIBUTES and rest else {}
    except (IndexError, struct.error):
        return None
    return Login(user.decode(errors="replace"), attributes.get("program_name", ""))


def _read_attributes(data: bytes) -> dict[str, str]:
    length, start = _read_length(data, 0)
    words, end = [], start + length
    while start < end:
        length, start = _read_length(data, start)
        words.append(data[start : start + length].decode(errors="replace"))
        start += length
    return dict(zip(words[::2], words[1::2], strict=False))


def _read_length(data: bytes, start: int) -> tuple[int, int]:
    """A length-encoded integer, and where the next byte is."""
    first = data[start]
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    if size == 0:
        return first, start + 1
    return int.from_bytes(data[start + 1 : start + 1 + size], "little"), start + 1 + size
