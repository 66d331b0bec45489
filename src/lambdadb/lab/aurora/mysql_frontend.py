"""What clients of an emulated Aurora MySQL meet."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

from lambdadb.lab import mysql_packets
from lambdadb.lab.aurora.frontend import MYSQL_SHAPES, Frontend, Shape
from lambdadb.lab.aurora.tunnel import CHUNK, Tunnel

LOGIN_TIMEOUT = 10.0  # MySQL's connect_timeout
TEXTS = {
    1040: "Too many connections",
    1053: "Server shutdown in progress",
    1129: "Host is blocked because of many connection errors",
    1203: "User already has more than max_user_connections active connections",
}


class MySQLFrontend(Frontend):
    """Meets clients in MySQL's protocol, in which the server speaks first."""

    shapes: ClassVar[tuple[Shape, ...]] = MYSQL_SHAPES

    def __init__(self, *meeting: Any, error_number: int) -> None:
        super().__init__(*meeting)
        self._error = mysql_packets.error(error_number, TEXTS.get(error_number, "Emulated error"))

    async def _meet(self, tunnel: Tunnel, shape: Shape) -> None:
        if shape is Shape.RESET:
            tunnel.reset()
        elif shape is Shape.ERROR:
            await tunnel.answer(self._error)
        elif shape in (Shape.LOGIN_CLOSE, Shape.LOGIN_SILENT):
            await tunnel.answer(mysql_packets.greeting())
            await tunnel.read_mysql_packet()
            if shape is Shape.LOGIN_SILENT:
                await tunnel.wait_for_end()
        elif shape is Shape.HOLD and await self._until_available(tunnel):
            await self._forward(tunnel)

    async def _forward(self, tunnel: Tunnel) -> None:
        async with self._connect_to_server() as server:
            await tunnel.answer(await _read_packet(server))
            login = await asyncio.wait_for(tunnel.read_mysql_packet(), LOGIN_TIMEOUT)
            if not login:
                return
            parsed = mysql_packets.parse_login(login)
            with self._session(parsed.program_name if parsed else "", tunnel):
                await tunnel.forward(server, login)


async def _read_packet(server: socket.socket) -> bytes:
    """Read the server's first packet. It sends no more before it is answered."""
    data = b""
    while len(data) < mysql_packets.HEADER or len(data) < mysql_packets.packet_length(data):
        more = await asyncio.get_running_loop().sock_recv(server, CHUNK)
        if not more:
            raise ConnectionError("the server ended the connection before its greeting")
        data += more
    return data
