"""Where the messages of a conversation begin and end, in the protocols that the proxy understands."""

from __future__ import annotations

from typing import Protocol

from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.fault_point import Direction
from lambdadb.lab.startup_packet import packet_length, parse


class Messages(Protocol):
    """The messages of one conversation."""

    def take(self, direction: Direction, buffer: bytearray) -> tuple[str, bytes] | None:
        """Take the next whole message from what was read: its type, and all of it."""


class PostgreSQLMessages:
    """The messages of a conversation with PostgreSQL: a type and a length, less at its beginning."""

    def __init__(self) -> None:
        self._opening = True  # the client's packets have no type yet
        self._asked = False  # the server owes an answer about encryption

    def take(self, direction: Direction, buffer: bytearray) -> tuple[str, bytes] | None:
        """Take the next whole message from what was read: its type, and all of it."""
        from_client = direction is Direction.CLIENT_TO_SERVER
        # Whoever asks for encryption is answered by one byte, or else by an error message.
        untyped = self._opening if from_client else self._asked and buffer[:1] != b"E"
        start = 0 if untyped else 1
        header = bytes(buffer[start : start + 4])
        if untyped and not from_client:
            length = 1
        elif len(header) < 4:
            return None
        elif untyped and packet_length(header) is None:
            raise LabError("Something else than a PostgreSQL client connected, or TLS was begun.")
        else:
            length = start + int.from_bytes(header, "big")
        if len(buffer) < length:
            return None
        packet = bytes(buffer[:length])
        del buffer[:length]
        if untyped:
            self._asked = from_client and parse(packet).asks_encryption
            self._opening = self._asked or not from_client
        return packet[:start].decode("latin-1"), packet


class MySQLMessages:
    """
    The packets of a conversation with MySQL.

    The type is a command's number, such as `03` of a query, and `03 COMMIT` of a COMMIT.
    """

    def take(self, direction: Direction, buffer: bytearray) -> tuple[str, bytes] | None:
        """Take the next whole packet from what was read: its command, and all of it."""
        length = 4 + int.from_bytes(buffer[:3], "little")
        if len(buffer) < length:
            return None
        packet = bytes(buffer[:length])
        del buffer[:length]
        is_command = direction is Direction.CLIENT_TO_SERVER and packet[3] == 0
        word = " COMMIT" if packet[4:11] == b"\x03COMMIT" else ""
        return packet[4:5].hex() + word if is_command else "", packet
