"""Where a conversation with a server can be damaged, how, and how far it is from there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

from lambdadb.lab import LabError


class Direction(str, Enum):
    """Who speaks, in the words of PostgreSQL's protocol."""

    CLIENT_TO_SERVER = "frontend"
    SERVER_TO_CLIENT = "backend"


class Action(str, Enum):
    """
    What becomes of a conversation.

    CLOSE ends both sides' connections (FIN), RESET resets them (RST). STALL forwards nothing more
    in either direction and keeps both open. DROP loses the rest of the fault point's direction, its
    end included, while the other direction flows. After STALL and DROP the
    server's session can outlive the client's, until `Proxy.release()`.
    """

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"
    DROP = "drop"


@dataclass(frozen=True)
class FaultPoint:
    """
    Where a conversation is damaged, and how; it takes either `message` or `byte`.

    Args:
        direction: The direction that is counted.
        action: What happens there.
        message: When message number N (from 0) has come, before any of it is forwarded.
        byte: As soon as N bytes are forwarded; when the first byte has come for 0.

    Raises:
        LabError: Neither or both are given, or a negative one.
    """

    direction: Direction
    action: Action
    message: int | None = None
    byte: int | None = None

    def __post_init__(self) -> None:
        places = [place for place in (self.message, self.byte) if place is not None]
        if len(places) != 1 or places[0] < 0:
            raise LabError("A FaultPoint needs either message= or byte=, counted from 0.")


@dataclass(frozen=True)
class Message:
    """
    A message that was forwarded whole.

    Args:
        direction: Who said it.
        kind: Its one-letter type, in MySQL a command's number; empty for what has none: the packets that
            open a connection, the server's answer to a request for encryption, what MySQL answers.
        length: Bytes on the wire, all of them.
        connection: Number of its connection, in the order of their first words since `arm()`.
    """

    direction: Direction
    kind: str
    length: int
    connection: int = 0


def points_at_boundaries(messages: Sequence[Message], action: Action) -> list[FaultPoint]:
    """Fault points before each message of one connection's recording, and after the last, both ways."""
    points = []
    for direction in Direction:
        lengths = [message.length for message in messages if message.direction is direction]
        points += [FaultPoint(direction, action, message=number) for number in range(len(lengths))]
        points += [FaultPoint(direction, action, byte=sum(lengths))] if lengths else []
    return points


def points_in_bytes(
    messages: Sequence[Message], first: int, last: int, action: Action
) -> list[FaultPoint]:
    """Fault points after each byte of `messages[first]` to `messages[last]`, both ways."""
    points = []
    for direction in Direction:
        lengths = [message.length * (message.direction is direction) for message in messages]
        start, end = sum(lengths[:first]), sum(lengths[: last + 1])
        points += [FaultPoint(direction, action, byte=n) for n in range(start + 1, end + 1)]
    return points


class ArmedFault:
    """What has passed since the proxy was armed, and where the fault point is."""

    def __init__(self, point: FaultPoint | None) -> None:
        self.point = point
        self.fault_done = False
        self.messages: list[Message] = []
        self.damaged: Hashable | None = None  # the conversation that reached the fault point
        self.calm = asyncio.Event()  # not set while damage is being done
        self.calm.set()
        self._connections: dict[Hashable, int] = {}
        self._counts: Counter[tuple[Hashable, Direction]] = Counter()
        self._bytes: Counter[tuple[Hashable, Direction]] = Counter()

    def bytes_left(self, talk: Hashable, direction: Direction, length: int) -> int | None:
        """Bytes of the next message that pass before the fault point; `None`: all of them."""
        point = self.point
        if point is None or point.direction is not direction:
            return None
        if point.byte is None:
            return 0 if point.message == self._counts[talk, direction] else None
        left = point.byte - self._bytes[talk, direction]
        return left if left <= length else None

    def record(self, talk: Hashable, direction: Direction, kind: str, length: int) -> None:
        """Count a message that passes whole."""
        connection = self._connections.setdefault(talk, len(self._connections))
        self.messages.append(Message(direction, kind, length, connection))
        self._counts[talk, direction] += 1
        self._bytes[talk, direction] += length

    def begin_damage(self, talk: Hashable) -> Action:
        """Take the fault point, which is for one conversation only, and learn its action."""
        assert self.point is not None
        action, self.point, self.damaged = self.point.action, None, talk
        self.calm.clear()
        return action

    def end_damage(self) -> None:
        """Tell those who wait for it that the damage is complete."""
        self.fault_done = True
        self.calm.set()
