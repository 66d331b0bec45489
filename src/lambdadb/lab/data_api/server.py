"""The Data API's HTTP server, with a switch for every kind of failure."""

from __future__ import annotations

import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

from sqlalchemy import make_url

from lambdadb.lab.aurora import Cluster, Server
from lambdadb.lab.clock import LabClock
from lambdadb.lab.data_api.answers import STATUS, ApiError
from lambdadb.lab.data_api.service import CALL_TIMEOUT, Service, Transaction
from lambdadb.lab.data_api.signature import check_signature
from lambdadb.lab.listener import LOOPBACK

LARGEST_REQUEST = 4 * 1024 * 1024
CALLS = ("Execute", "BatchExecute", "BeginTransaction", "CommitTransaction", "RollbackTransaction")
_ACCOUNT = "123456789012"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """
    What happens to one call.

    Args:
        effect: Whether the call is carried out first.
        code: The error that is answered, by its AWS name. None closes the connection without an answer.
        message: The error's text, such as the database's own.
        cut: Whether the connection is closed in the middle of the call's own answer.
        delay: Seconds before anything happens.
        answered: Whether the call's own answer is sent in the end, as after a mere delay.
    """

    effect: bool = False
    code: str | None = None
    message: str = "injected by the lab"
    cut: bool = False
    delay: float = 0.0
    answered: bool = False


class DataApi:
    """
    An emulation of the RDS Data API over a real PostgreSQL or MariaDB, on a loopback port.

    It takes the five calls of the API, checks their signatures, and has the API's documented limits:
    65,536 characters of SQL, 4 MiB a request, 1 MiB a result, 64 KB a row, 45 s a call, and transactions
    that end 3 minutes after their last call. Errors have the form and the names of the service's model.
    What AWS does not document is a guess: which types of the catalogs it returns, how it names MySQL's
    types, and some errors' texts. Behind a `Cluster` that pauses, a call wakes the cluster and is
    answered as the API does.

    Args:
        server: The server: PostgreSQL, or a MariaDB for `mysql+data_api`.
        cluster: The emulated cluster in front of it, if it pauses.
        region: The region that requests have to be signed for.
        port: Port to listen on; 0 chooses a free one.
        clock: The lab's time, for transactions that nobody uses.
        call_timeout: Seconds after which a statement is ended.
        secret_key: The secret key of its one caller; a random one by default.
        tls: Answer over HTTPS, with this context's certificate. By default it is HTTP.

    Attributes:
        calls: The names of the calls that have come, in their order.
    """

    def __init__(
        self,
        server: Server,
        *,
        cluster: Cluster | None = None,
        region: str = "us-east-1",
        port: int = 0,
        clock: LabClock | None = None,
        call_timeout: float = CALL_TIMEOUT,
        secret_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.region = region
        self.port = port
        self.cluster_arn = f"arn:aws:rds:{region}:{_ACCOUNT}:cluster:lab"
        self.secret_arn = f"arn:aws:secretsmanager:{region}:{_ACCOUNT}:secret:lab-AbCdEf"
        self.access_key = "AKIALAMBDADBLAB00000"
        self.secret_key = secret_key or secrets.token_urlsafe(30)
        self.calls: list[str] = []
        self._tls = tls
        self._service = Service(
            server,
            cluster,
            cluster_arn=self.cluster_arn,
            secret_arn=self.secret_arn,
            clock=clock or LabClock(),
            call_timeout=call_timeout,
        )
        self._faults: dict[int, Fault] = {}
        self._lock = threading.Lock()
        self._http: _Server | None = None

    @property
    def endpoint(self) -> str:
        """The URL to give to a client as its endpoint."""
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}"

    def url(self, database: str | None = None) -> str:
        """SQLAlchemy URL of a database through the API, by default of the server's own."""
        backend, name = ("mysql", None) if self._service.is_mysql else ("postgresql", "postgres")
        name = database or name or make_url(self._service.server.url()).database or ""
        arns = f"cluster_arn={quote(self.cluster_arn)}&secret_arn={quote(self.secret_arn)}"
        return f"{backend}+data_api:///{quote(name, safe='')}?{arns}"

    def environment(self) -> dict[str, str]:
        """The environment variables by which an AWS client, boto3 or lambdadb, finds it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL_RDS_DATA": self.endpoint,
        }

    @property
    def transactions(self) -> list[Transaction]:
        """The transactions that are open."""
        self._service.end_idle()
        return list(self._service.transactions.values())

    def fail(self, fault: Fault, *, after: int = 0, times: int = 1) -> None:
        """Let the next call fail, or the one `after` others, and those that follow it."""
        with self._lock:
            first = len(self.calls) + after
            self._faults.update(dict.fromkeys(range(first, first + times), fault))

    def repair(self) -> None:
        """Let no call fail any more."""
        self._faults.clear()

    def answer_resumes_with(self, code: str) -> None:
        """Answer with another error while the cluster resumes, such as `StatementTimeoutException`."""
        assert code in STATUS, code
        self._service.resuming = code

    def start(self) -> None:
        """Start listening."""
        self._http = _Server((LOOPBACK, self.port), _Handler)
        self._http.api = self
        if self._tls is not None:  # each connection's thread does its handshake, with the first read
            self._http.socket = self._tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._http.server_address[1]
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name=f"data-api:{self.port}", daemon=True
        ).start()

    def close(self) -> None:
        """Stop listening, and end every transaction."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        self._service.close()

    def __enter__(self) -> DataApi:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What a request's thread calls

    def count_call(self, call: str) -> Fault | None:
        """Record a call. Returns the fault that is meant for it."""
        with self._lock:
            fault = self._faults.pop(len(self.calls), None)
            self.calls.append(call)
            return fault

    def check_request(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Raise `ApiError` if a request may not be carried out."""
        if path.lstrip("/") not in CALLS:
            raise ApiError("UnknownOperationException", f"{path} is no call of the Data API.")
        keys = {self.access_key: self.secret_key}
        check_signature(path, headers, body, keys=keys, region=self.region)
        if len(body) > LARGEST_REQUEST:
            raise ApiError("RequestEntityTooLargeException", "The request is larger than 4 MiB.")

    def carry_out(self, call: str, body: bytes, caller: str) -> dict[str, Any]:
        """Carry out a call. Raises `ApiError`."""
        request = json.loads(body or b"{}")
        if not isinstance(request, dict):
            raise ApiError("ValidationException", "The request is not a JSON object.")
        return self._service.carry_out(call, request, caller)

    def end_idle(self) -> None:
        """Roll back the transactions that nobody uses any more."""
        self._service.end_idle()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    api: DataApi

    def service_actions(self) -> None:
        """Called by `serve_forever` twenty times a second."""
        self.api.end_idle()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer: Nagle's algorithm would delay the second
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        """Answer one call."""
        api = cast("_Server", self.server).api
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = self.path.lstrip("/")
        try:
            api.check_request(self.path, headers, body)
        except ApiError as error:
            self._send_error(error)
            return
        fault = api.count_call(call)
        if fault is not None and fault.delay:
            time.sleep(fault.delay)
        answer: dict[str, Any] | ApiError = {}
        if fault is None or fault.effect or fault.answered:
            caller = re.search(r"\bapp/(\S+)", headers.get("user-agent", ""))
            try:
                answer = api.carry_out(call, body, caller[1] if caller else "")
            except ApiError as error:
                answer = error
        if fault is None or fault.answered:
            self._send(answer)
        elif fault.code is not None:
            self._send_error(ApiError(fault.code, fault.message))
        else:
            if fault.cut:
                self._send(answer, cut=True)
            self.close_connection = True

    def _send(self, answer: dict[str, Any] | ApiError, *, cut: bool = False) -> None:
        if isinstance(answer, ApiError):
            self._send_error(answer, cut=cut)
        else:
            self._send_json(200, answer, {}, cut=cut)

    def _send_error(self, error: ApiError, *, cut: bool = False) -> None:
        self._send_json(
            error.status, {"message": error.message}, {"x-amzn-ErrorType": error.code}, cut=cut
        )

    def _send_json(
        self, status: int, content: dict[str, Any], headers: dict[str, str], *, cut: bool
    ) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-amzn-RequestId", secrets.token_hex(16))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
