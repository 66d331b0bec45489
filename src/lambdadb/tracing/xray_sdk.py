"""
The X-Ray SDK's context, where the function has imported the SDK; nothing here imports it.

The SDK keeps its open segments and subsegments ("entities") in a `threading.local`. So a thread that
lambdadb starts, such as the one that reads a login from Secrets Manager, has none: in Lambda a boto3
subsegment made there would be in the function's segment, elsewhere it would be lost with a logged
error. `carry_entity` gives the thread the entity of its caller.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("lambdadb")

# The entity that the SDK's subsegments of this context's threads belong to, in place of the caller's.
thread_entity: ContextVar[Any] = ContextVar("lambdadb_xray_thread_entity", default=None)


def get_recorder() -> Any:
    """The SDK's global recorder; None if the SDK is not imported."""
    return getattr(sys.modules.get("aws_xray_sdk.core"), "xray_recorder", None)


def is_enabled() -> bool:
    """Whether X-Ray is switched on, by the SDK where it is imported, or by its variable."""
    config = getattr(sys.modules.get("aws_xray_sdk"), "global_sdk_config", None)
    if config is not None:
        return bool(config.sdk_enabled())
    chosen = os.environ.get("AWS_XRAY_SDK_ENABLED", "true").lower()
    return chosen not in ("n", "no", "f", "false", "off", "0")


def get_entities(recorder: Any) -> list[Any]:
    """
    The recorder's open entities in this thread, the outermost one first.

    Read from the SDK's private storage: its public `get_trace_entity()` logs or raises where there is
    none. They are kept by thread: the tasks of an event loop share them.
    """
    local = getattr(getattr(recorder, "context", None), "_local", None)
    return getattr(local, "entities", None) or []


def make_entity(trace_id: str, id: str) -> Any:
    """
    An SDK entity that stands for a subsegment which lambdadb sends itself; None without the SDK.

    It is the class by which the SDK represents Lambda's own segment: it is never sent, only what is
    inside it.
    """
    module = sys.modules.get("aws_xray_sdk.core.models.facade_segment")
    return module and module.FacadeSegment("lambdadb", id, trace_id, True)


def carry_entity() -> AbstractContextManager[object]:
    """Take the caller's entity; the context manager sets it in the thread that enters it."""
    try:
        recorder = get_recorder()
        entities = get_entities(recorder)
        entity = thread_entity.get() or (entities[-1] if entities else None)
        # AsyncContext keeps entities by task, and cannot be given a thread.
        if entity is not None and isinstance(recorder.context._local, threading.local):
            return _set_entity(recorder, entity)
    except Exception:
        logger.exception("The X-Ray SDK's context cannot be read; the traced work goes on")
    return nullcontext()


@contextmanager
def _set_entity(recorder: Any, entity: Any) -> Iterator[None]:
    recorder.set_trace_entity(entity)
    try:
        yield
    finally:
        if entity is thread_entity.get():
            # The SDK sends subsegments with their segment, or when there are many. This one is never
            # sent, so what is inside it is sent here.
            recorder.streaming.stream(entity, recorder.emitter.send_entity)
