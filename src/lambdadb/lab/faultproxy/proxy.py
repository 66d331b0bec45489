"""A proxy that damages a real conversation with a server at a chosen place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from lambdadb.lab import LabError
from lambdadb.lab.faultproxy.fault_point import (
    Action,
    ArmedFault,
    Direction,
    FaultPoint,
    Message,
    points_at_boundaries,
    points_in_bytes,
)
from lambdadb.lab.faultproxy.messages import Messages, PostgreSQLMessages
from lambdadb.lab.listener import LOOPBACK, Listener, Port

__all__ = [
    "Action",
    "Direction",
    "FaultPoint",
    "Message",
    "Proxy",
    "points_at_boundaries",
    "points_in_bytes",
]

CHUNK = 65536
LAST_CHUNKS = 256  # of someone who talks on and on while his connection is ended
Result = TypeVar("Result")


class Proxy:
    """
    A loopback port in front of a server that forwards faithfully until a `FaultPoint` is reached.

    Ends and resets are passed on as such; while the server refuses, clients are reset. Messages
    are forwarded when they are complete. Encryption is out of its reach.

    Args:
        target_port: The server's port on 127.0.0.1.
        on_fault: Called in a thread when the fault point is reached, while nothing is forwarded and
            before either side sees the damage; `server.crash` crashes the server
            at that moment. It must not use the proxy.
        protocol: How its messages are found: `MySQLMessages` in front of MySQL.

    Raises:
        LabError: From `close()`: `on_fault` raised, or something else than the plain protocol passed.
    """

    def __init__(
        self,
        target_port: int,
        *,
        on_fault: Callable[[], None] | None = None,
        protocol: type[Messages] = PostgreSQLMessages,
    ) -> None:
        self.port = 0
        self.protocol = protocol
        self.target_port = target_port
        self.on_fault = on_fault
        self.armed = ArmedFault(None)
        self._conversations: dict[Conversation, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening on `port`."""
        self._listener = Listener(0, self._welcome)
        self.port = self._listener.port
        self._loop = asyncio.new_event_loop()
        name = f"proxy:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        try:
            self._settled(lambda: self._listener.set_mode(Port.ANSWER))
        except BaseException:
            self.close()
            raise

    def arm(self, point: FaultPoint | None) -> None:
        """
        Start anew: forget what was recorded, release what is held, and damage what reaches `point`.

        What was sent before the call passes before it. From then on each connection is counted by
        itself: an open one from now, a later one from its first message. The first connection
        that reaches the fault point is damaged, and no other.

        Args:
            point: Where and how; `None` only records.
        """

        def start_anew() -> None:
            self._release()
            self.armed = ArmedFault(point)

        self._settled(start_anew)

    @property
    def fault_done(self) -> bool:
        """Whether the fault point was reached; its damage is complete then, `on_fault` included."""
        return self._settled(lambda: self.armed.fault_done)

    @property
    def messages(self) -> list[Message]:
        """What was forwarded since `arm()`, in the order of passing."""
        return self._settled(lambda: list(self.armed.messages))

    def release(self) -> None:
        """Close the connection that a STALL or a DROP holds."""
        self._settled(self._release)

    def close(self) -> None:
        """End every connection and give the port back; raise what failed meanwhile, if anything."""
        if self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._dismiss(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
            self._loop.close()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise LabError(f"The proxy on port {self.port} failed: {failure}") from failure

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _settled(self, act: Callable[[], Result]) -> Result:
        """Call `act` in the proxy's thread, when everything sent before has passed."""

        async def settle() -> Result:
            await asyncio.sleep(0)  # one turn of the loop reads everything that has come,
            await asyncio.sleep(0)  # and the next one passes it on
            await self.armed.calm.wait()
            return act()

        if self._thread is None:
            return act()
        return asyncio.run_coroutine_threadsafe(settle(), self._loop).result()

    # From here on everything runs in the proxy's own thread.

    def fail(self, error: BaseException) -> None:
        """Keep an error that no client is to blame for, for `close()` to raise."""
        self._failure = self._failure or error

    def _welcome(self, client: socket.socket) -> None:
        talk = Conversation(self, client)

        def ended(task: asyncio.Task[None]) -> None:
            del self._conversations[talk]
            talk.close()
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.fail(error)

        self._conversations[talk] = task = self._loop.create_task(talk.hold())
        task.add_done_callback(ended)

    def _release(self) -> None:
        for talk, task in self._conversations.items():
            if talk is self.armed.damaged:
                task.cancel()

    async def _dismiss(self) -> None:
        self._listener.close()
        tasks = list(self._conversations.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


@dataclass(eq=False)
class Way:
    """One direction of a conversation, and what was read of it but not passed on."""

    direction: Direction
    source: socket.socket
    target: socket.socket
    buffer: bytearray = field(default_factory=bytearray)

    async def receive(self) -> bytes:
        """Read what comes next; empty at the end."""
        return await asyncio.get_running_loop().sock_recv(self.source, CHUNK)

    async def send(self, data: bytes | bytearray) -> None:
        await asyncio.get_running_loop().sock_sendall(self.target, data)


class Conversation:
    """A client's connection and its counterpart to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        server = socket.socket()
        self._proxy = proxy
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets = (client, server)
        self._messages = proxy.protocol()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def close(self) -> None:
        """Close both sides; one that is dismissed before it has begun has nobody else to do it."""
        for side in self._sockets:
            side.close()

    async def hold(self) -> None:
        """Carry the conversation until both directions have ended."""
        client, server = self._sockets
        tasks = self._tasks
        try:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = (LOOPBACK, self._proxy.target_port)
            await asyncio.get_running_loop().sock_connect(server, target)
            up = Way(Direction.CLIENT_TO_SERVER, client, server)
            down = Way(Direction.SERVER_TO_CLIENT, server, client)
            tasks += [asyncio.create_task(self._carry(way)) for way in (up, down)]
            await asyncio.wait(tasks)
        except ConnectionError:
            reset(client)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for side in self._sockets:
                finish(side)

    async def _carry(self, way: Way) -> None:
        """Carry one direction; unless only the client has ended, end both with it."""
        end = reset
        try:
            while data := await way.receive():
                way.buffer += data
                while message := self._messages.take(way.direction, way.buffer):
                    await self._flowing.wait()
                    if await self._reaches_fault_point(way, *message):
                        return
                    await way.send(message[1])
            await self._flowing.wait()
            await way.send(way.buffer)
            if way.direction is Direction.CLIENT_TO_SERVER:
                way.target.shutdown(socket.SHUT_WR)  # the server may still have to answer
                return
            end = finish
        except OSError:  # either side is gone
            await self._flowing.wait()
        except Exception as error:
            self._proxy.fail(error)
        await self._end(end)

    async def _reaches_fault_point(self, way: Way, kind: str, packet: bytes) -> bool:
        """Count a message; when it reaches the fault point, pass on what is before and do the damage."""
        armed = self._proxy.armed
        left = armed.bytes_left(self, way.direction, len(packet))
        if left is None or left == len(packet):
            armed.record(self, way.direction, kind, len(packet))
        if left is None:
            return False
        action = armed.begin_damage(self)
        self._flowing.clear()
        with contextlib.suppress(OSError):  # that side is gone by itself
            await way.send(packet[:left])
        try:
            if self._proxy.on_fault is not None:
                await asyncio.to_thread(self._proxy.on_fault)
        except Exception as error:
            self._proxy.fail(error)
        await self._damage(way, action, armed)
        return True

    async def _damage(self, way: Way, action: Action, armed: ArmedFault) -> None:
        if action is Action.CLOSE:
            await self._end(finish)
        elif action is Action.RESET:
            await self._end(reset)
        elif action is Action.DROP:
            self._flowing.set()
        armed.end_damage()
        if action is Action.DROP:
            with contextlib.suppress(OSError):  # a reset vanishes as well
                while await way.receive():
                    pass

    async def _end(self, end: Callable[[socket.socket], None]) -> None:
        """Stop the other direction, and end both connections in this way."""
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        for side in self._sockets:
            end(side)


def finish(side: socket.socket) -> None:
    """End a connection with a FIN: bytes left unread would make a reset of it."""
    with contextlib.suppress(OSError):  # nothing more to read, or that side is gone
        side.shutdown(socket.SHUT_WR)
        for _ in range(LAST_CHUNKS):
            if not side.recv(CHUNK):
                break
    side.close()


def reset(side: socket.socket) -> None:
    """End a connection with a TCP reset."""
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()
