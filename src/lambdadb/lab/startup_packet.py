"""The first and the last words of a PostgreSQL connection: startup packets and fatal errors.

Layouts are those of the manual's chapter on the frontend/backend protocol, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 10_000  # PostgreSQL's own limit, MAX_STARTUP_PACKET_LENGTH
CANCEL = 80877102
ENCRYPTION = {80877103: "TLS", 80877104: "GSSAPI"}
NOT_ENCRYPTED, ENCRYPTED = b"N", b"S"
TERMINATE = b"X\x00\x00\x00\x04"


@dataclass(frozen=True)
class StartupPacket:
    """A packet that a client opens a connection with; `raw` is the packet as it came."""

    code: int
    raw: bytes
    user: str = ""
    database: str = ""
    application_name: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def asks_encryption(self) -> bool:
        """Whether the client asks for TLS or GSSAPI first, and will go on after the answer."""
        return self.code in ENCRYPTION

    @property
    def asks_tls(self) -> bool:
        """Whether it asks for TLS."""
        return ENCRYPTION.get(self.code) == "TLS"

    @property
    def is_cancel(self) -> bool:
        """Whether this is no session but a request to cancel another one's statement."""
        return self.code == CANCEL


def packet_length(head: bytes) -> int | None:
    """Length of the whole packet from its first four bytes; `None`: no PostgreSQL client's."""
    length: int = struct.unpack("!I", head)[0]
    return length if 8 <= length <= LONGEST else None


def parse(packet: bytes) -> StartupPacket:
    """Read a whole startup packet."""
    code: int = struct.unpack("!I", packet[4:8])[0]
    if code == CANCEL or code in ENCRYPTION:
        return StartupPacket(code, packet)
    words = packet[8:].decode(errors="replace").rstrip("\0").split("\0")
    options = dict(zip(words[::2], words[1::2], strict=False))
    user = options.get("user", "")
    return StartupPacket(
        code,
        packet,
        user=user,
        database=options.get("database", user),
        application_name=options.get("application_name", ""),
        parameters=options,
    )


def fatal(sqlstate: str, message: str) -> bytes:
    """The error message that ends a connection."""
    fields = [("S", "FATAL"), ("V", "FATAL"), ("C", sqlstate), ("M", message)]
    body = b"".join(f"{kind}{text}\0".encode() for kind, text in fields) + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body
