"""What a test tells an emulated cluster to do, and asks of it: from Python, and over HTTP."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from lambdadb.lab import LabError
from lambdadb.lab.aurora.cluster import Cluster, State
from lambdadb.lab.aurora.frontend import Shape
from lambdadb.lab.mariadb import MariaDB
from lambdadb.lab.postgres import Postgres

CLOSING = 1.0  # seconds in which a connection that has been closed is seen to be
LONGEST_REQUEST = 10_000  # bytes


class StillAwake(AssertionError):
    """The cluster does not pause: an open connection keeps it awake. The message says whose."""


class ClusterControl:
    """
    Pauses a cluster, says how it wakes up, and tells what keeps it awake.

    Args:
        emulated: The cluster, which runs.
    """

    def __init__(self, emulated: Cluster) -> None:
        self.emulated = emulated

    @property
    def is_paused(self) -> bool:
        """Whether it is paused now; False also while it wakes up."""
        return self.emulated.state is State.PAUSED

    @property
    def resumes(self) -> int:
        """How many times it has begun to wake up."""
        return len([event for event in self.emulated.events if event.kind == "resuming"])

    @property
    def connects(self) -> int:
        """TCP connections that clients have opened so far."""
        return self.emulated.connects

    def pause(self) -> None:
        """
        Let the time until an auto-pause (300 s by default) pass at once, and see it pause.

        Raises:
            StillAwake: An open connection keeps it awake, or a client has just connected.
            LabError: It is a hot cluster.
        """
        if self.emulated.auto_pause is None:
            raise LabError("A hot cluster never pauses. Leave out the pause, or use a cold cluster.")
        if self.is_paused:
            return
        if reasons := self.awake_because():
            raise StillAwake(
                f"The cluster does not pause: {'; '.join(reasons)}. Close the connection in the "
                "invocation (PerInvocation), or end it: engine.dispose(), sessions.terminate()."
            )
        self.let_pass(self.emulated.auto_pause)
        if not self.is_paused:
            raise StillAwake("The cluster does not pause: a client has just connected.")

    def let_pass(self, seconds: float) -> None:
        """Let so much of the cluster's time pass at once, and see it do what is due by then."""
        self.emulated.settle()  # a resume that a client has just begun starts now, not later
        self.emulated.clock.advance(seconds)
        self.emulated.settle()
        server = self.emulated.server
        while self.is_paused and isinstance(server, (Postgres, MariaDB)) and server.running:
            time.sleep(0.005)

    def resume_left(self) -> float | None:
        """Seconds until it is awake; None while it does not resume."""
        return self.emulated.resume_left

    def resume(self, *, shape: str | None = None, seconds: float | None = None) -> None:
        """
        Say how it wakes up from now on. As on Aurora, a connect begins it.

        Args:
            shape: What a client meets meanwhile: "hold" (it waits; the default, which Aurora documents),
                "refuse", "close", "reset", "silent", "drop", or "mix" of them; with PostgreSQL also
                "starting" and "no-hba", with MySQL "error", "login-close" and "login-silent".
                In this process set AWS_LAMBDA_FUNCTION_NAME with "refuse": elsewhere an engine gives up
                at once if this machine refuses a connection.
            seconds: How long it takes. Aurora: about 15; 30 and more after a day of pause.

        Raises:
            LabError: There is no such shape.
        """
        if shape is not None:
            try:
                self.emulated.shape = Shape(shape)
            except ValueError:
                known = ", ".join(one.value for one in Shape)
                raise LabError(f"There is no shape {shape!r}. Say one of {known}.") from None
        if seconds is not None:
            self.emulated.resume = self.emulated.deep_resume = seconds

    def awake_because(self) -> list[str]:
        """
        What keeps the cluster from pausing: a line for each open connection, or nothing.

        A connection that has just been closed has a second to end.
        """
        end = time.monotonic() + CLOSING
        while (open_now := self.emulated.sessions()) and time.monotonic() < end:
            time.sleep(0.005)
        return [
            f"a connection of {one.application_name or 'no application_name'}, idle for {one.idle:.0f} s"
            for one in open_now
        ]

    def describe(self) -> dict[str, object]:
        """Its state, as JSON can carry it."""
        return {
            "state": self.emulated.state.value,
            "awake_because": self.awake_because(),
            "resumes": self.resumes,
            "connects": self.connects,
            "round_trips": self.emulated.round_trips,
        }


class ControlServer:
    """
    Gives tests in any language the verbs of `ClusterControl`, as JSON over HTTP.

    `GET /` describes the cluster. `POST /pause` pauses it. `POST /resume` takes `shape` and `seconds`,
    and `POST /let-pass` takes `seconds`. Each is answered with the description; 409 if the cluster does
    not pause, 400 if the request is wrong. Whoever reaches the port can do this: it has no password.

    Args:
        control: The cluster.
        host: IPv4 address to listen on.
        port: Port to listen on; 0 chooses a free one.

    Raises:
        LabError: The port is in use.
    """

    def __init__(self, control: ClusterControl, host: str, port: int) -> None:
        try:
            self._http = _Server((host, port), _Handler)
        except OSError as error:
            raise LabError(f"Port {port} on {host} cannot be used for --control: {error}.") from error
        self._http.control = control
        self.port: int = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    control: ClusterControl


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Describe the cluster."""
        control = cast("_Server", self.server).control
        self._send(200 if self.path == "/" else 404, control.describe())

    def do_POST(self) -> None:
        """Do what the path says."""
        control = cast("_Server", self.server).control
        verbs = {"/pause": control.pause, "/resume": control.resume, "/let-pass": control.let_pass}
        verb: Any = verbs.get(self.path)
        if verb is None:
            self._send(404, {"error": f"There is no {self.path}. There are {', '.join(verbs)}."})
            return
        try:
            length = min(int(self.headers.get("content-length") or 0), LONGEST_REQUEST)
            arguments = json.loads(self.rfile.read(length) or b"{}")
            verb(**arguments)
        except StillAwake as error:
            self._send(409, {"error": str(error), **control.describe()})
        except (LabError, TypeError, ValueError) as error:
            self._send(400, {"error": str(error)})
        else:
            self._send(200, control.describe())

    def _send(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
