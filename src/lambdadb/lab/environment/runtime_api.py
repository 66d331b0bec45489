"""The Lambda Runtime API: what AWS's runtime client in a function's process talks to.

Source of the endpoints: Lambda Developer Guide, "Using the Lambda runtime API".
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class RuntimeEvent:
    """One event on its way to the runtime, with the headers of its context."""

    request_id: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class RuntimeAnswer:
    """What the runtime posted: a handler's result, or the error of a handler or of the init."""

    body: bytes
    failed: bool


class RuntimeAPI:
    """
    Serve one runtime for its life: events out, answers in, on a loopback port.

    Each runtime gets its own, so that nothing a killed process still sent can reach the next one. It is
    below a random path, which only the process is told: other users of this machine can reach the
    port, but neither take the function's events nor answer for it. Several processes of one runtime may
    ask at the same time, as on Managed Instances.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.pollers = 0
        self.waiting: deque[RuntimeEvent] = deque()
        self.open: set[str] = set()
        self.answer: RuntimeAnswer | None = None
        self.answers: dict[str, RuntimeAnswer] = {}
        self.snapshot_taken = False
        self.copies: deque[Mapping[str, str]] = deque()
        self.closed = False
        self.server = APIServer(self)
        self.path = f"/{secrets.token_urlsafe(24)}"
        self.address = f"127.0.0.1:{self.server.server_port}{self.path}"
        self.thread = threading.Thread(
            # Seconds after which a shutdown is noticed.
            target=lambda: self.server.serve_forever(poll_interval=0.05),
            name=f"runtime-api-{self.server.server_port}",
            daemon=True,
        )
        self.thread.start()

    @property
    def asking(self) -> bool:
        """Whether a process asks for an event and there is none."""
        return self.pollers > len(self.waiting)

    def hand_out(self, event: RuntimeEvent) -> None:
        """Give the event to a process that asks for one, now or later."""
        with self.changed:
            self.answer = None
            self.waiting.append(event)
            self.changed.notify_all()

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until `ready`, a question to this object; False: the time was over."""
        with self.changed:
            return self.changed.wait_for(ready, seconds)

    def next_event(self) -> RuntimeEvent | None:
        """Block the asking process until there is an event; None: this API was closed."""
        with self.changed:
            self.pollers += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.waiting or self.closed)
            self.pollers -= 1
            if self.closed:
                return None
            event = self.waiting.popleft()
            self.open.add(event.request_id)
            return event

    def accept(self, request_id: str | None, answer: RuntimeAnswer) -> bool:
        """Keep the answer to an event given out (None: to the init); False: not asked for."""
        with self.changed:
            asked_for = request_id in self.open if request_id else not (self.open or self.answer)
            if not asked_for:
                return False
            if request_id:
                self.open.remove(request_id)
                self.answers[request_id] = answer
            self.answer = answer
            self.changed.notify_all()
            return True

    def copy_snapshot(self, place: Mapping[str, str]) -> None:
        """Have the process that waits for its snapshot's restore make a copy of itself at `place`."""
        with self.changed:
            self.copies.append(place)
            self.changed.notify_all()

    def next_copy(self) -> Mapping[str, str] | None:
        """Block the process whose snapshot is taken until a copy is wanted; None: this was closed."""
        with self.changed:
            self.snapshot_taken = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.copies or self.closed)
            return None if self.closed else self.copies.popleft()

    def close(self) -> None:
        """Stop serving; a runtime still waiting for an event is hung up on."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class APIServer(ThreadingHTTPServer):
    """The HTTP server of one RuntimeAPI."""

    daemon_threads = True

    def __init__(self, api: RuntimeAPI) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), Endpoints)

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what went wrong here; that a runtime was killed, its environment reports."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Endpoints(BaseHTTPRequestHandler):
    """next, response, error, init/error and restore/next."""

    server: APIServer

    def do_GET(self) -> None:
        api = self.server.api
        if self.path == api.path + PREFIX + "restore/next":
            copy = api.next_copy()
            if copy is not None:
                self.reply(200, json.dumps(copy).encode())
        elif self.path == api.path + PREFIX + "invocation/next":
            event = api.next_event()
            if event is not None:
                self.reply(200, event.body, event.headers)
        else:
            self.reply(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        prefix = self.server.api.path + PREFIX
        parts = self.path.removeprefix(prefix).split("/") if self.path.startswith(prefix) else []
        match parts:
            case ["init", "error"]:
                taken = self.server.api.accept(None, RuntimeAnswer(body, failed=True))
            case ["invocation", request_id, "response"]:
                taken = self.server.api.accept(request_id, RuntimeAnswer(body, failed=False))
            case ["invocation", request_id, "error"]:
                taken = self.server.api.accept(request_id, RuntimeAnswer(body, failed=True))
            case _:
                self.reply(404)
                return
        self.reply(202 if taken else 400)

    def reply(self, status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the function's log is what counts."""
