"""
Subsegments of AWS X-Ray, sent to its daemon; inside those of its SDK where the function uses that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from lambdadb.tracing import Span, Statements, Tracer
from lambdadb.tracing.sanitize import reason
from lambdadb.tracing.xray_documents import Place, allowed, datagram, document, serialized


@dataclass(eq=False)
class _Block:
    """A block that was entered in this context, or in the one that this is a copy of."""

    place: Place
    """Of what is inside."""
    outer: _Block | None
    entity: Any = None
    """The SDK's subsegment, where it has one."""
    open: bool = True


_block: ContextVar[_Block | None] = ContextVar("lambdadb_xray_block", default=None)


class XRay(Tracer):
    """
    Record connects, and the statements asked for, as subsegments of the function's segment.

    Needs active tracing on the function, and no SDK, which X-Ray only maintains. Where
    the function has imported it (Powertools' Tracer does), what is recorded is nested in the SDK's
    subsegments, and those in `lambdadb.trace` blocks. Outside Lambda it records in sampled segments
    of the SDK only.

    Args:
        statements: Which statements are recorded: "all", "none", "traced", or the seconds from which on.
        recorder: The SDK's recorder, if not its global one.

    **Costs:** in a sampled invocation, a datagram to the local daemon for each connect, statement
    and block, which nobody waits for; otherwise a look at an environment variable.
    """

    def __init__(self, statements: Statements = "none", *, recorder: Any = None) -> None:
        self.statements = statements
        self._given = recorder

    def recording(self) -> bool:
        """Whether the invocation is sampled; never during INIT."""
        header = os.environ.get("_X_AMZN_TRACE_ID")
        return (header is None or "Sampled=1" in header) and self._place() is not None

    def record(self, span: Span) -> None:
        """Send it, with its parts, as one document."""
        if (place := self._place()) is not None:
            self._send(serialized(document(span, place)))

    @contextlib.contextmanager
    def block(self, name: str) -> Iterator[None]:
        """A subsegment around the block; what is recorded inside is nested in it."""
        place = self._place()
        if place is None:
            yield
            return
        block = self._entered(name, place)
        began = time.time()
        _block.set(block)
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:  # cancelled, too
            failed = error
            raise
        finally:
            block.open = False
            _block.set(block.outer)
            if block.entity is not None:
                self._end(block.entity, failed)
            else:
                span = Span(name=name, began=began, seconds=time.time() - began, error=failed)
                self._send(serialized(document(span, place, block.place.parent_id)))

    @property
    def _recorder(self) -> Any:
        return self._given or getattr(sys.modules.get("aws_xray_sdk.core"), "xray_recorder", None)

    def _entities(self) -> list[Any]:
        """
        The SDK's open subsegments here, outermost first.

        Its own question for them logs or raises where there are none, and they are kept by thread:
        the tasks of an event loop share them.
        """
        local = getattr(getattr(self._recorder, "context", None), "_local", None)
        return getattr(local, "entities", None) or []

    def _place(self) -> Place | None:
        """Where something recorded now belongs; None: nowhere, or nobody is to record."""
        if not _enabled():
            return None
        header = os.environ.get("_X_AMZN_TRACE_ID")
        segment = None if header is None else _segment(header)
        if header is not None and segment is None:
            return None
        entities = self._entities()
        block = _block.get()
        while block is not None and not block.open:  # a task that outlived it
            block = block.outer
        if block is not None and segment and block.place.trace_id != segment.trace_id:
            block = None  # of an earlier invocation
        if block is not None and block.entity not in entities:
            return block.place
        # The SDK's innermost one is the block's own, or inside it, or there is no block.
        if entities and not entities[-1].sampled:
            return None
        if entities and (segment is None or entities[-1].trace_id == segment.trace_id):
            return Place(entities[-1].trace_id, entities[-1].id)
        return segment

    def _entered(self, name: str, place: Place) -> _Block:
        """
        A new block, as one of the SDK's subsegments if it can be, so that the SDK's nest in it.

        Not on an event loop: a task of the SDK's own would end the one that was begun last, which
        may be another task's.
        """
        recorder = self._recorder
        block = _Block(Place(place.trace_id, secrets.token_hex(8)), _block.get())
        # Lambda's context has a segment always, and says so: it does not know `context_missing`.
        ready = recorder and (self._entities() or recorder.context.context_missing is None)
        if ready and not _on_a_loop():
            block.entity = recorder.begin_subsegment(allowed(name))
            block.entity.parent_id = place.parent_id
            block.place = Place(place.trace_id, block.entity.id)
        return block

    def _end(self, entity: Any, error: BaseException | None) -> None:
        if error is not None:
            # The SDK would keep the message, whatever is in it.
            kind = type(type(error).__name__, (Exception,), {})
            entity.add_exception(kind(reason(error)), [])
        entities = self._entities()
        if entities[-1:] == [entity]:
            self._recorder.end_subsegment()
            return
        # Not in turn, as from a generator that was closed later: the SDK would end another one.
        if entity in entities:
            entities.remove(entity)
        if entity.in_progress:
            entity.close()
        self._recorder.stream_subsegments()

    def _send(self, text: str) -> None:
        if recorder := self._recorder:
            recorder.emitter.send_entity(_Serialized(text))
            return
        address = os.environ.get("AWS_XRAY_DAEMON_ADDRESS") or "127.0.0.1:2000"
        with contextlib.suppress(OSError):  # no daemon, no buffer left: the function matters more
            self._socket.sendto(datagram(text), _daemon(address))

    @functools.cached_property
    def _socket(self) -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setblocking(False)
        weakref.finalize(self, sender.close)
        return sender


class _Serialized(NamedTuple):
    """A document as the SDK's emitters take one."""

    text: str

    def serialize(self) -> str:
        return self.text


def _enabled() -> bool:
    config = getattr(sys.modules.get("aws_xray_sdk"), "global_sdk_config", None)
    if config is not None:
        return bool(config.sdk_enabled())
    chosen = os.environ.get("AWS_XRAY_SDK_ENABLED", "true").lower()
    return chosen not in ("n", "no", "f", "false", "off", "0")


@functools.lru_cache(maxsize=1)
def _segment(header: str) -> Place | None:
    """Lambda's segment, by the variable that names it for each invocation; None: not sampled."""
    parts = dict(part.partition("=")[::2] for part in header.split(";"))
    if parts.get("Sampled") != "1" or not parts.get("Root") or not parts.get("Parent"):
        return None
    return Place(parts["Root"], parts["Parent"])


@functools.lru_cache(maxsize=1)
def _daemon(addresses: str) -> tuple[str, int]:
    """Of `127.0.0.1:2000`, or of `tcp:127.0.0.1:2000 udp:127.0.0.1:2000`."""
    every = addresses.split()
    address = next((one for one in every if one.startswith("udp:")), every[0])
    host, _, port = address.removeprefix("udp:").rpartition(":")
    return host, int(port)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
