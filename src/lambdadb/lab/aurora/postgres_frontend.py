"""What clients of an emulated Aurora PostgreSQL meet."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from lambdadb.lab.aurora.frontend import POSTGRES_SHAPES, Frontend, Shape
from lambdadb.lab.aurora.tunnel import Tunnel
from lambdadb.lab.listener import LOOPBACK
from lambdadb.lab.startup_packet import StartupPacket, fatal

STARTUP_TIMEOUT = 60.0  # PostgreSQL's authentication_timeout


class PostgresFrontend(Frontend):
    """Meets clients in PostgreSQL's protocol, in which the client speaks first."""

    shapes: ClassVar[tuple[Shape, ...]] = POSTGRES_SHAPES

    async def _meet(self, tunnel: Tunnel, shape: Shape) -> None:
        if shape is Shape.RESET:
            if await tunnel.wait_for_client():
                tunnel.reset()
            return
        if self._tls is not None and shape is Shape.HOLD:
            # Held from its first packet on: the answer to its wish for TLS is late, too.
            await self._hold()
        startup = await asyncio.wait_for(tunnel.read_startup(), STARTUP_TIMEOUT)
        if startup is None:
            return
        if startup.is_cancel:
            if self.available.is_set():
                await self._forward(tunnel, startup)
        elif shape is Shape.STARTING:
            await tunnel.answer(fatal("57P03", "the database system is starting up"))
        elif shape is Shape.NO_HBA:
            entry = f'host "{LOOPBACK}", user "{startup.user}", database "{startup.database}"'
            text = f"no pg_hba.conf entry for {entry}, SSL encryption"
            await tunnel.answer(fatal("28000", text))
        elif shape is Shape.HOLD and await self._until_available(tunnel):
            with self._session(startup.application_name, tunnel):
                await self._forward(tunnel, startup)

    async def _forward(self, tunnel: Tunnel, startup: StartupPacket) -> None:
        async with self._connect_to_server() as server:
            await tunnel.forward(server, startup.raw)
