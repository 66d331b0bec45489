"""The Lambda Runtime API: what AWS's runtime client in a function's process talks to.

Source of the four endpoints: Lambda Developer Guide, "Using the Lambda runtime API".
"""

from __future__ import annotations

import secrets
import sys
import threading
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
    Serve one runtime process for its life: events out, answers in, on a loopback port.

    Each process gets its own, so that nothing a killed process still sent can reach the next one. It is
    below a random path, which only the process is told: other users of this machine can reach the
    port, but neither take the function's events nor answer for it.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.asking = False
        self.answer: RuntimeAnswer | None = None
        self.event: RuntimeEvent | None = None
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

    def hand_out(self, event: RuntimeEvent) -> None:
        """Give the event to the runtime that asks for it."""
        with self.changed:
            self.event, self.answer, self.asking = event, None, False
            self.changed.notify_all()

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until `ready`, a question to `asking` and `answer`; False: the time was over."""
        with self.changed:
            return self.changed.wait_for(ready, seconds)

    def next_event(self) -> RuntimeEvent | None:
        """Block the asking runtime until there is an event; None: this API was closed."""
        with self.changed:
            self.event, self.asking = None, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.event is not None or self.closed)
            return None if self.closed else self.event

    def accept(self, request_id: str | None, answer: RuntimeAnswer) -> bool:
        """Keep the answer to the event given out (None: to the init); False: not asked for."""
        with self.changed:
            current = self.event.request_id if self.event else None
            if request_id != current or self.answer is not None:
                return False
            self.answer = answer
            self.changed.notify_all()
            return True

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
    """next, response, error and init/error."""

    server: APIServer

    def do_GET(self) -> None:
        if self.path != self.server.api.path + PREFIX + "invocation/next":
            self.reply(404)
            return
        event = self.server.api.next_event()
        if event is not None:
            self.reply(200, event.body, event.headers)

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
