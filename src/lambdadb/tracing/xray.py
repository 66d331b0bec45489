"""
Subsegments of AWS X-Ray, sent to its daemon; nested in those of its SDK where the function uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import socket
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from lambdadb.tracing.sanitize import get_message
from lambdadb.tracing.span import Span, StatementFilter, Tracer
from lambdadb.tracing.xray_documents import (
    TraceContext,
    TraceHandle,
    make_datagram,
    make_document,
    sanitize_name,
    serialize,
)
from lambdadb.tracing.xray_sdk import (
    get_entities,
    get_recorder,
    is_enabled,
    make_entity,
    thread_entity,
)


@dataclass(eq=False)
class _Block:
    """A subsegment that has begun: what is recorded inside it is nested in it."""

    inside: TraceContext
    """Of what is nested in it: its parent id is the block's own id."""
    outer: _Block | None
    """The block around it."""
    entity: Any = None
    """The SDK's entity for it, where there is one."""
    is_open: bool = True


# The innermost block of this task or thread. A copy of a context, as each task has one, shares it.
_block: ContextVar[_Block | None] = ContextVar("lambdadb_xray_block", default=None)


class XRay(Tracer):
    """
    Record connects, and the statements asked for, as subsegments of the function's segment.

    Needs active tracing on the function. It does not need the X-Ray SDK. If the function has imported
    the SDK, as Powertools' Tracer does, recorded spans are nested in the SDK's open subsegment, and the
    SDK's subsegments are nested in `lambdadb.trace` blocks. Outside Lambda it records only inside a
    sampled segment of the SDK.

    Args:
        statements: Which statements are recorded: "all", "none", "traced" (those in `trace` blocks), or
            a number of seconds: those that take as long or longer.
        recorder: The SDK's recorder, if it is not the SDK's global one.

    **Costs:** in a sampled invocation one datagram to the local daemon, without waiting, for each
    connect, statement and block. Otherwise a look at an environment variable.
    """

    def __init__(self, statements: StatementFilter = "none", *, recorder: Any = None) -> None:
        self.statements = statements
        self._given = recorder

    def recording(self) -> bool:
        """Whether the invocation is sampled; never during INIT."""
        header = os.environ.get("_X_AMZN_TRACE_ID")
        return (header is None or "Sampled=1" in header) and self._current() is not None

    def record(self, span: Span) -> None:
        """Send the span, with its parts, as one document."""
        handle = span.handle
        parent = handle.parent if isinstance(handle, TraceHandle) else self._current()
        if parent is not None:
            self._send(serialize(make_document(span, parent)))

    @contextlib.contextmanager
    def start_span(self, name: str, began: float) -> Iterator[object]:
        """Choose the id of the subsegment now, so that others can be nested in it before it is sent."""
        del name, began
        parent = self._current()
        if parent is None:
            yield None
            return
        handle = TraceHandle(parent, secrets.token_hex(8))
        inside = TraceContext(parent.trace_id, handle.id)
        block = _Block(inside, _block.get(), make_entity(*inside))
        around = thread_entity.get()
        _block.set(block)
        thread_entity.set(block.entity)
        try:
            yield handle
        finally:
            block.is_open = False
            _block.set(block.outer)
            thread_entity.set(around)

    @contextlib.contextmanager
    def block(self, name: str) -> Iterator[None]:
        """Send a subsegment for the block; what is recorded inside it is nested in it."""
        parent = self._current()
        if parent is None:
            yield
            return
        block = self._enter_block(name, parent)
        began = time.time()
        _block.set(block)
        failed: BaseException | None = None
        try:
            yield
        except BaseException as error:  # a cancellation, too
            failed = error
            raise
        finally:
            block.is_open = False
            _block.set(block.outer)
            if block.entity is not None:
                self._end_entity(block.entity, failed)
            else:
                handle = TraceHandle(parent, block.inside.parent_id)
                seconds = time.time() - began
                self.record(Span(name=name, began=began, seconds=seconds, error=failed, handle=handle))

    @property
    def _recorder(self) -> Any:
        return self._given or get_recorder()

    def _current(self) -> TraceContext | None:
        """The parent of something recorded now; None if it is not to be recorded."""
        if not is_enabled():
            return None
        header = os.environ.get("_X_AMZN_TRACE_ID")
        segment = None if header is None else _parse_header(header)
        if header is not None and segment is None:
            return None
        entities = get_entities(self._recorder)
        block = _block.get()
        while block is not None and not block.is_open:  # a task that outlives its block
            block = block.outer
        if block is not None and segment and block.inside.trace_id != segment.trace_id:
            block = None  # it belongs to an earlier invocation
        if block is not None and block.entity not in entities:
            return block.inside
        # The SDK's innermost entity is the block's own, or inside it, or there is no block.
        if entities and not entities[-1].sampled:
            return None
        if entities and (segment is None or entities[-1].trace_id == segment.trace_id):
            return TraceContext(entities[-1].trace_id, entities[-1].id)
        return segment

    def _enter_block(self, name: str, parent: TraceContext) -> _Block:
        """
        A new block. If possible it is a subsegment of the SDK, so that the SDK's others nest in it.

        It is none on an event loop: there the SDK has one stack for all tasks, and ending a subsegment
        ends the one that was begun last, which may be another task's.
        """
        recorder = self._recorder
        block = _Block(TraceContext(parent.trace_id, secrets.token_hex(8)), _block.get())
        # Lambda's context always has a segment; its sign is that `context_missing` is None.
        ready = recorder and (get_entities(recorder) or recorder.context.context_missing is None)
        if ready and not _is_on_event_loop():
            block.entity = recorder.begin_subsegment(sanitize_name(name))
            block.entity.parent_id = parent.parent_id
            block.inside = TraceContext(parent.trace_id, block.entity.id)
        return block

    def _end_entity(self, entity: Any, error: BaseException | None) -> None:
        if error is not None:
            # The SDK would keep the message, whatever it contains.
            kind = type(type(error).__name__, (Exception,), {})
            entity.add_exception(kind(get_message(error)), [])
        entities = get_entities(self._recorder)
        if entities[-1:] == [entity]:
            self._recorder.end_subsegment()
            return
        # Another one was begun later and is still open, as when a generator is closed late. The SDK
        # would end that one.
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
        with contextlib.suppress(OSError):  # no daemon, or no buffer left: the document is lost
            self._socket.sendto(make_datagram(text), _parse_address(address))

    @functools.cached_property
    def _socket(self) -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setblocking(False)
        weakref.finalize(self, sender.close)
        return sender


class _Serialized(NamedTuple):
    """A serialized document in the form that the SDK's emitter takes."""

    text: str

    def serialize(self) -> str:
        return self.text


@functools.lru_cache(maxsize=1)
def _parse_header(header: str) -> TraceContext | None:
    """Lambda's segment, as `_X_AMZN_TRACE_ID` names it; None if the invocation is not sampled."""
    parts = dict(part.partition("=")[::2] for part in header.split(";"))
    if parts.get("Sampled") != "1" or not parts.get("Root") or not parts.get("Parent"):
        return None
    return TraceContext(parts["Root"], parts["Parent"])


@functools.lru_cache(maxsize=1)
def _parse_address(addresses: str) -> tuple[str, int]:
    """The UDP address in `127.0.0.1:2000`, or in `tcp:127.0.0.1:2000 udp:127.0.0.1:2000`."""
    every = addresses.split()
    address = next((one for one in every if one.startswith("udp:")), every[0])
    host, _, port = address.removeprefix("udp:").rpartition(":")
    return host, int(port)


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
