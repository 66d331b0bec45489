"""What X-Ray's daemon would get: a listener on a loopback port that checks every document."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Document = dict[str, Any]

# Source of the rules: AWS X-Ray Developer Guide, "X-Ray segment documents", "Sending trace data".
FIELDS = {
    *("name", "id", "start_time", "end_time", "in_progress", "trace_id", "parent_id", "type"),
    *("namespace", "sql", "annotations", "metadata", "cause", "error", "throttle", "fault"),
    *("subsegments", "http", "aws", "service", "user", "origin"),
}
SQL = {
    *("connection_string", "url", "sanitized_query", "database_type", "database_version"),
    *("driver_version", "user", "preparation"),
}
EXCEPTION = {"id", "message", "type", "remote", "truncated", "skipped", "cause", "stack"}
ID = re.compile(r"[0-9a-f]{16}")
TRACE_ID = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
NAME = re.compile(r"[\w\s.:/%&#=+\\\-@]{1,200}")
# "local" is no published namespace, but what the SDK writes for a function's own work.
NAMESPACES = {None, "aws", "remote", "local"}
LONGEST = 64_000


@dataclass
class Node:
    """A subsegment of a trace, with those that are nested in it, by their beginning."""

    document: Document
    children: list[Node]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.document["name"])

    @property
    def names(self) -> tuple[Any, ...]:
        """The names of all of it: `("handler", ("orders@host", ("attempt",)))`."""
        return (self.name, *(child.names for child in self.children))

    def walk(self) -> Iterator[Node]:
        """This one, then those in it."""
        yield self
        for child in self.children:
            yield from child.walk()


class XRayDaemon:
    """
    Receives trace documents as X-Ray's daemon does, and keeps them.

    Use it as a context manager, with `AWS_XRAY_DAEMON_ADDRESS` set to its `address`.

    Attributes:
        documents: What has arrived.
        problems: What is wrong with it by X-Ray's published rules.
    """

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.problems: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        host, port = self.socket.getsockname()
        self.address = f"{host}:{port}"
        self.arrived = threading.Condition()
        self.thread = threading.Thread(target=self.listen, name="xray-daemon", daemon=True)
        self.thread.start()

    def listen(self) -> None:
        """Receive until an empty datagram comes, which is this daemon's own."""
        while datagram := self.socket.recv(70_000):
            with self.arrived:
                self.keep(datagram)
                self.arrived.notify_all()

    def keep(self, datagram: bytes) -> None:
        header, _, body = datagram.partition(b"\n")
        if json.loads(header) != {"format": "json", "version": 1}:
            self.problems.append(f"the header is {header!r}")
        if len(datagram) > LONGEST:
            self.problems.append(f"a document of {len(datagram)} bytes")
        document = json.loads(body)
        if not TRACE_ID.fullmatch(document.get("trace_id", "")):
            self.problems.append(f"trace_id is {document.get('trace_id')!r}")
        if document.get("type") == "subsegment" and not ID.fullmatch(document.get("parent_id", "")):
            self.problems.append(f"parent_id is {document.get('parent_id')!r}")
        self.problems += problems(document)
        self.documents.append(document)

    def wait(self, count: int, seconds: float = 10.0) -> list[Document]:
        """
        At least so many documents, in the order of arrival.

        Raises:
            TimeoutError: They have not arrived within `seconds`.
        """
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.documents) >= count, seconds):
                raise TimeoutError(f"{len(self.documents)} of {count} trace documents arrived")
            return list(self.documents)

    def settle(self) -> list[Document]:
        """What has been sent until now: a datagram on loopback is there before its sender goes on."""
        before = -1
        while before != len(self.documents):
            before = len(self.documents)
            time.sleep(0.05)
        return list(self.documents)

    def close(self) -> None:
        """Listen no longer."""
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()

    def __enter__(self) -> XRayDaemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def nested(documents: Iterable[Document]) -> list[Node]:
    """
    The documents as trees, whether a child came in its parent's document or by itself.

    Their roots are those whose parent did not arrive, as Lambda's own segment never does.

    Raises:
        ValueError: A child's time is not within its parent's.
    """
    nodes = {document["id"]: Node(document, []) for document in flat(documents)}
    roots: list[Node] = []
    for document in flat(documents):
        node, parent = nodes[document["id"]], nodes.get(document.get("parent_id", ""))
        (parent.children if parent else roots).append(node)
        if parent and not within(document, parent.document):
            raise ValueError(f"{node.name} is not within {parent.name}: {document}, {parent.document}")
    for node in nodes.values():
        node.children.sort(key=lambda child: float(child.document["start_time"]))
    return sorted(roots, key=lambda root: float(root.document["start_time"]))


def flat(documents: Iterable[Document], parent: str | None = None) -> Iterator[Document]:
    """Each document, then those inside it, with their `parent_id`."""
    for document in documents:
        parts = document.get("subsegments", [])
        yield {**document, **({"parent_id": parent} if parent else {}), "subsegments": []}
        yield from flat(parts, document["id"])


def within(part: Document, whole: Document) -> bool:
    """Whether a part's time is inside the whole's."""
    begins = whole["start_time"] <= part["start_time"]
    return bool(begins and part["start_time"] <= part["end_time"] <= whole["end_time"])


def problems(document: Document) -> list[str]:
    """What is wrong with a document, and with those inside it."""
    name = document.get("name", "")
    annotations = document.get("annotations", {})
    metadata = document.get("metadata", {})
    sql = document.get("sql", {})
    flags = [document.get(flag, False) for flag in ("fault", "error", "throttle")]
    obeyed = {
        "fields": document.keys() <= FIELDS,
        "name": NAME.fullmatch(name),
        "id": ID.fullmatch(document.get("id", "")),
        "times": within(document, document),
        "namespace": document.get("namespace") in NAMESPACES,
        "annotations": all(is_annotation(*item) for item in annotations.items()),
        "metadata": all(isinstance(value, dict) for value in metadata.values()),
        "sql": sql.keys() <= SQL and all(isinstance(value, str) for value in sql.values()),
        "cause": is_cause(document.get("cause", "0" * 16)),
        "flags": all(isinstance(flag, bool) for flag in flags),
    }
    found = [f"{rule} of {document}" for rule, fine in obeyed.items() if not fine]
    for part in document.get("subsegments", []):
        if not within(part, document):
            found.append(f"{part.get('name')} is not within {name}")
        found += problems(part)
    return found


def is_annotation(key: str, value: object) -> bool:
    """Whether X-Ray would index it."""
    right = isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 1000)
    return right and re.fullmatch(r"[A-Za-z0-9_]+", key) is not None


def is_cause(cause: object) -> bool:
    """Whether it is an exception's id, or a list of exceptions."""
    if isinstance(cause, str):
        return ID.fullmatch(cause) is not None
    exceptions = cause.get("exceptions", []) if isinstance(cause, dict) else [{}]
    return all(one.keys() <= EXCEPTION and ID.fullmatch(one.get("id", "")) for one in exceptions)
