"""The messages of PostgreSQL's protocol that a proxy reads and writes."""

from __future__ import annotations

import asyncio
import struct

ENDED = (ConnectionError, asyncio.IncompleteReadError)
"""What reading raises when the other side has ended the connection."""


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message: its type, and its body."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body
