"""The messages of PostgreSQL's protocol that a proxy reads and writes."""

from __future__ import annotations

import asyncio
import struct

from lambdadb.lab.startup_packet import NOT_ENCRYPTED, StartupPacket, packet_length, parse

ENDED = (ConnectionError, asyncio.IncompleteReadError)
"""What reading raises when the other side has ended the connection."""


async def read_startup(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> StartupPacket | None:
    """Read the startup packet, declining encryption before it; None for a request to cancel."""
    while True:
        head = await reader.readexactly(4)
        length = packet_length(head)
        if length is None:
            return None
        startup = parse(head + await reader.readexactly(length - 4))
        if startup.is_cancel:
            return None  # ignored: RDS Proxy has no cancel
        if not startup.asks_encryption:
            return startup
        writer.write(NOT_ENCRYPTED)


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message: its type, and its body."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body
