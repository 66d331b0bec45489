"""One client's connection through the emulator: delayed, counted, and passed on to the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from lambdadb.lab import mysql_packets
from lambdadb.lab.aurora.encryption import Encryption
from lambdadb.lab.clock import LabClock
from lambdadb.lab.startup_packet import (
    ENCRYPTED,
    NOT_ENCRYPTED,
    TERMINATE,
    StartupPacket,
    packet_length,
    parse,
)

CHUNK = 65536
# Chunks under way in one direction: more than any window a client could notice.
IN_FLIGHT = 256
FAREWELLS = (TERMINATE, mysql_packets.QUIT)


class Tunnel:
    """
    A client's socket, its round trips, and the network delay on its way.

    A round trip is counted when the client speaks after it was spoken to: the first packet, and
    each change of direction after it. The farewell (Terminate, COM_QUIT) waits for no answer and
    does not count. The handshake of TCP itself is neither counted nor delayed.

    Args:
        client: The accepted socket, non-blocking.
        clock: The lab's time, for `used`.
        round_trip: Delay in real seconds, half of it each way.
        on_round_trip: Called at each round trip.
        tls: The server's side of TLS; None: encryption is declined.
    """

    def __init__(
        self,
        client: socket.socket,
        clock: LabClock,
        round_trip: float,
        on_round_trip: Callable[[], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.client = client
        self._tls = tls
        self._encryption: Encryption | None = None
        self.used = clock.now()
        self._clock = clock
        self._round_trip = round_trip
        self._on_round_trip = on_round_trip
        self._clients_turn = True

    async def read_startup(self) -> StartupPacket | None:
        """
        Read the startup packet, with the encryption before it.

        `None` when the client left, or is not a PostgreSQL client.
        """
        while head := await self._read_exactly(4):
            length = packet_length(head)
            rest = await self._read_exactly(length - 4) if length else b""
            if not rest:
                break
            startup = parse(head + rest)
            if not startup.asks_encryption:
                return startup
            if self._tls is not None and startup.asks_tls:
                await self.answer(ENCRYPTED)
                await self._encrypt(Encryption(self._tls))
            else:
                await self.answer(NOT_ENCRYPTED)
        return None

    async def _encrypt(self, encryption: Encryption) -> None:
        """Agree on TLS with the client; each of its flights is a round trip."""
        loop = asyncio.get_running_loop()
        while True:
            done = encryption.shake_hands()
            if out := encryption.to_send():
                if not done:  # nobody waits for what comes after the last flight
                    await asyncio.sleep(self._round_trip)
                    self._clients_turn = True
                await loop.sock_sendall(self.client, out)
            if done:
                self._encryption = encryption
                return
            data = await loop.sock_recv(self.client, CHUNK)
            if not data:
                raise ConnectionAbortedError("the client left in the middle of its handshake")
            self._count()
            encryption.take(data)

    async def read_mysql_packet(self) -> bytes:
        """Read one packet of a MySQL client; empty when the client left."""
        head = await self._read_exactly(mysql_packets.HEADER)
        rest = mysql_packets.packet_length(head) - mysql_packets.HEADER if head else 0
        return head + await self._read_exactly(rest)

    async def answer(self, data: bytes) -> None:
        """Send the client something that does not come from the server."""
        await asyncio.sleep(self._round_trip)
        self._clients_turn = True
        await self._send(data)

    async def wait_for_client(self) -> bool:
        """Wait for a word of the client; False when it left instead."""
        return bool(await self._receive())

    async def wait_for_end(self) -> None:
        """Say nothing until the client leaves."""
        while await self._receive():
            pass

    def client_left(self) -> bool:
        """Whether the client has closed the connection, found without reading from it."""
        try:
            return not self.client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    async def forward(self, server: socket.socket, first: bytes) -> None:
        """Send `first` to the server and pass everything on, until both sides have ended."""
        loop = asyncio.get_running_loop()

        async def to_server(data: bytes) -> None:
            await loop.sock_sendall(server, data)

        async def to_client(data: bytes) -> None:
            self._clients_turn = True
            self.used = self._clock.now()
            await self._send(data)

        async def from_server() -> bytes:
            return await loop.sock_recv(server, CHUNK)

        up = asyncio.create_task(self._pass_on(self._receive, to_server, server, first))
        try:
            # When the server has ended there is nothing more to wait for; when only the client
            # has, the server is still to read its last words.
            await self._pass_on(from_server, to_client, self.client, b"")
        finally:
            await cancelled(up)

    async def _pass_on(
        self,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[None]],
        target: socket.socket,
        first: bytes,
    ) -> None:
        """Pass one direction on until either end is gone, in order, half a round trip late."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

        async def collect() -> None:
            data = first
            while True:
                if data:
                    await chunks.put((loop.time() + self._round_trip / 2, data))
                try:
                    data = await receive()
                except ConnectionError:  # a reset ends a direction just as its end does
                    data = b""
                if not data:
                    await chunks.put((loop.time() + self._round_trip / 2, b""))
                    return

        collecting = asyncio.create_task(collect())
        try:
            while True:
                due, data = await chunks.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if not data:
                    if target is self.client and self._encryption:
                        await loop.sock_sendall(target, self._encryption.farewell())
                    target.shutdown(socket.SHUT_WR)
                    return
                await send(data)
        except OSError:  # the target is gone: the other direction ends by itself
            return
        finally:
            await cancelled(collecting)

    async def _read_exactly(self, count: int) -> bytes:
        """Read so many bytes of the client's; empty when it leaves before."""
        data = b""
        while len(data) < count:
            more = await self._receive(count - len(data))
            if not more:
                return b""
            data += more
        return data

    async def _receive(self, count: int = CHUNK) -> bytes:
        """Read what the client says next; empty when it left."""
        loop = asyncio.get_running_loop()
        if self._encryption is None:
            data: bytes | None = await loop.sock_recv(self.client, count)
        else:
            while (data := self._encryption.read(count)) is None:
                wire = await loop.sock_recv(self.client, CHUNK)
                if not wire:  # it left without a farewell
                    return b""
                self._encryption.take(wire)
        self.used = self._clock.now()
        if data and data not in FAREWELLS:
            self._count()
        return data or b""

    async def _send(self, data: bytes) -> None:
        wire = self._encryption.encrypted(data) if self._encryption else data
        await asyncio.get_running_loop().sock_sendall(self.client, wire)

    def _count(self) -> None:
        """Count a round trip if it is one: the client speaks after it was spoken to."""
        if self._clients_turn:
            self._clients_turn = False
            self._on_round_trip()


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; an error of its own is raised."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
