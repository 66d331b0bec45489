"""A client's arrival: its request for encryption, and its startup packet."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass

from lambdadb.lab.startup_packet import (
    ENCRYPTED,
    NOT_ENCRYPTED,
    StartupPacket,
    packet_length,
    parse,
)

REQUEST = 8  # bytes of a request for encryption; of any other packet, its length and code


@dataclass(frozen=True, repr=False, eq=False)
class Arrival:
    """A client that has said who it is."""

    startup: StartupPacket
    encrypted: bool
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def receive(connection: socket.socket, tls: ssl.SSLContext | None) -> Arrival | None:
    """
    Read what a client says first; None if it asks for a cancel, which RDS Proxy ignores, or no session.

    Args:
        tls: The proxy's side of TLS; None: encryption is declined.

    Raises:
        ConnectionError: The client has gone, or refuses the certificate.
    """
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        head = await _read_exactly(connection, REQUEST)
        length = packet_length(head[:4])
        if length is None:
            return None
        request = parse(head)
        if request.is_cancel:
            return None
        if request.asks_tls and tls is not None:
            await loop.sock_sendall(connection, ENCRYPTED)
            return await _receive_encrypted(connection, tls)
        if not request.asks_encryption:
            startup = parse(head + await _read_exactly(connection, length - REQUEST))
            return Arrival(startup, False, *await _open(connection, None))
        await loop.sock_sendall(connection, NOT_ENCRYPTED)


async def _receive_encrypted(connection: socket.socket, tls: ssl.SSLContext) -> Arrival | None:
    reader, writer = await _open(connection, tls)
    try:
        head = await reader.readexactly(REQUEST)
        length = packet_length(head[:4])
        if length is not None:
            startup = parse(head + await reader.readexactly(length - REQUEST))
            if not startup.is_cancel:
                return Arrival(startup, True, reader, writer)
    except BaseException:
        writer.close()
        raise
    writer.close()
    return None


async def _open(
    connection: socket.socket, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
    except ssl.SSLError as error:
        raise ConnectionAbortedError(str(error)) from error
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(connection, count - len(data))
        if not more:
            raise ConnectionResetError("the client has gone")
        data += more
    return data
